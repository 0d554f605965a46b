"""Flower's own differential privacy beside ours: FedAvg with server-side fixed clipping, in one process.

`DifferentialPrivacyServerSideFixedClipping` over `FedAvg` does every round's `configure_train` and
`aggregate_train`; devices' replies are computed here, all at once. A device starts from the round's adapter
and takes `STEPS` gradient steps on its own moments and a public anchor set of `ANCHORS` windows, with the
loss of the refit (`clients.personal.fit`). Everybody takes part in every round, with the same weight.

Accounting is ours: R rounds of Gaussian noise of z times the clip on a sum to which a device adds at most the
clip cost ρ = R/(2z²) of zCDP, so z = √(R/(2ρ)) at the ρ of the same epsilon and delta. In its favour: the
clip is the median of the first round's true updates, for nothing; the number of devices (by accent too) is
exact and public; the noise is the server's floating-point numbers, and the server sees every single update.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from numpy.typing import NDArray

from clients.personal.adapter import Step
from clients.personal.features import LOGIT_SCALE
from fa_core.flower.transport import identify
from fa_core.privacy.accounting import rho_for
from fa_core.tables import VECTOR
from fa_core.training.step import PENALTY, threshold
from scripts.bench.training_rounds.rounds import DELTA, Fleet, Floats, Heads, Setting
from scripts.bench.training_rounds.voices import LABELS

STEPS: Final = 10
ANCHORS: Final = 200
MOMENTS: Final = 5


@dataclass(frozen=True)
class Way:
    """How devices and server learn. `rate`: of a gradient step. `by_accent`: a model for each accent."""

    rounds: int = 5
    rate: float = 0.5
    by_accent: bool = False


@dataclass(frozen=True)
class Spent:
    """CPU seconds of the server in all rounds and of one device in all of them, and bytes of a device's
    arrays, received and sent."""

    server: float
    device: float
    size: int


class _Nodes:
    """As much of a grid as `FedAvg.configure_train` asks for."""

    def __init__(self, count: int) -> None:
        self._ids = range(1, count + 1)

    def get_node_ids(self) -> list[int]:
        """Return the ids of all devices."""
        return list(self._ids)


def flower(setting: Setting, fleet: Fleet, epsilon: Fraction | None, way: Way) -> tuple[Heads, Spent]:
    """Return the head of each accent, and what all of it cost; without noise where there is no epsilon."""
    members = [np.flatnonzero(fleet.accents == at) for at in range(len(LABELS))]
    parts = members if way.by_accent else [np.arange(len(fleet.moments))]
    found = [_model(setting, fleet, part, epsilon, way) for part in parts]
    steps = [step for step, _ in found]
    _, unseen = setting.public.anchors().halves()
    heads = [(step, threshold(step, unseen, setting.limit)) for step in steps]
    server, devices = sum(each.server for _, each in found), sum(each.device for _, each in found)
    spent = Spent(server, devices / len(fleet.moments), max(each.size for _, each in found))
    return (heads if way.by_accent else heads * len(LABELS)), spent


def _model(
    setting: Setting, fleet: Fleet, members: NDArray[np.int64], epsilon: Fraction | None, way: Way
) -> tuple[Step, Spent]:
    """Return the adapter that these devices train, the base itself where there are fewer than two."""
    current, devices = np.zeros(VECTOR), _Devices.of(setting, fleet, members)
    if len(members) < 2:
        return Step(current[:-1], 0.0), Spent(0.0, 0.0, 0)
    noise = 0.0 if epsilon is None else (way.rounds / (2 * float(rho_for(epsilon, DELTA)))) ** 0.5
    clip = float(np.median(np.linalg.norm(devices.trained(current, way.rate) - current, axis=1)))
    strategy = DifferentialPrivacyServerSideFixedClipping(FedAvg(), noise, clip, len(members))
    grid, server, device, size = cast(Grid, _Nodes(len(members))), 0.0, 0.0, 0
    identify()
    with _quiet():
        for number in range(1, way.rounds + 1):
            began = time.process_time()
            asked = list(strategy.configure_train(number, _record(current), ConfigRecord(), grid))
            server += time.process_time() - began
            began = time.process_time()
            trained = devices.trained(current, way.rate)
            device += time.process_time() - began
            answers = [_reply(to, trained[to.metadata.dst_node_id - 1]) for to in asked]
            size += sum(
                len(array.data) for each in (asked[0], answers[0]) for array in _arrays(each).values()
            )
            began = time.process_time()
            arrays, _ = strategy.aggregate_train(number, answers)
            server += time.process_time() - began
            assert arrays is not None
            (current,) = arrays.to_numpy_ndarrays()
    return Step(current[:-1], float(current[-1])), Spent(server, device, size)


def updates(setting: Setting, fleet: Fleet, rate: float) -> Floats:
    """Return every device's update in the first round of one model, before the clip, (D, 97)."""
    everyone = np.arange(len(fleet.moments))
    return _Devices.of(setting, fleet, everyone).trained(np.zeros(VECTOR), rate)


def _record(values: Floats) -> ArrayRecord:
    return ArrayRecord({"adapter": Array(values)})


def _arrays(message: Message) -> ArrayRecord:
    return message.content.array_records["arrays"]


def _reply(to: Message, values: Floats) -> Message:
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": _record(values), "metrics": metrics}), reply_to=to)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Flower from a line of log for every reply."""
    log = logging.getLogger("flwr")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


@dataclass(frozen=True)
class _Devices:
    """What devices learn from: own moments (D, 5, 97) with base logits (D, 5) and weights (D, 5), which are
    0 where a device has fewer; public windows (n, 97) with base logits (n,)."""

    own: Floats
    own_base: Floats
    weights: Floats
    public: Floats
    public_base: Floats

    @classmethod
    def of(cls, setting: Setting, fleet: Fleet, members: NDArray[np.int64]) -> "_Devices":
        """Return these devices of a fleet."""
        own, base, weights = (np.zeros((len(members), MOMENTS, size)) for size in (VECTOR, 1, 1))
        for at, member in enumerate(members):
            moments = fleet.moments[member]
            count = len(moments)
            own[at, :count] = np.hstack([moments[:, :-1], np.ones((count, 1))])
            base[at, :count, 0], weights[at, :count, 0] = LOGIT_SCALE * moments[:, -1], 1.0 / count
        learned, _ = setting.public.anchors().halves()
        peaks = [each.peak(0) for each in (*learned.human, *learned.near)]
        peaks = [peaks[at] for at in np.random.default_rng(0).permutation(len(peaks))[:ANCHORS]]
        features = np.concatenate([each.features for each in peaks])
        public = np.hstack([features, np.ones((len(features), 1))])
        public_base = np.concatenate([each.base for each in peaks])
        return cls(own, base[..., 0], weights[..., 0], public, public_base)

    def trained(self, start: Floats, rate: float) -> Floats:
        """Return each device's adapter after its steps of gradient descent, (D, 97)."""
        found = np.tile(start, (len(self.own), 1))
        for _ in range(STEPS):
            missed = self.weights * _sigmoid(-(self.own_base + np.einsum("dmf,df->dm", self.own, found)))
            woken = _sigmoid(self.public_base + found @ self.public.T) / len(self.public)
            pull = np.einsum("dm,dmf->df", missed, self.own) - woken @ self.public
            found += rate * (pull - PENALTY * found)
        return found


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))
