"""A protocol of five stages that adds vectors in the clear, devices that fail on command, and a clock."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from clients.app import relay
from clients.device.interface import Declined, Reason
from fa_core.flower.transport import ClientApp, ConfigRecord, LocalGrid, Message, RecordDict
from fa_core.rounds.round import Pace, Progress, Watch, conduct
from fa_core.secagg.server import Result
from fa_core.secagg.task import IN_ORDER, RoundFailure, Stage

RELEASE = "ab" * 16
CANARY = "CANARY-score-0.8125"
LENGTH = 7
SLICE = 600.0
"""Seconds of one pull: every node runs in it, however slow the machine is."""

Fault = Callable[[bytes], bytes]
"""What a device does at a stage in place of answering: raises, or returns other bytes."""


class Sum:
    """The server of the fake protocol: everyone may drop before `masked`, then who masked is counted."""

    def __init__(self, needed: int, attempt: int, nodes: Iterable[int]) -> None:
        self.quorum = needed
        self._stages = list(IN_ORDER)
        self.left_out: frozenset[int] = frozenset()
        self._left = list(nodes)
        self._vectors: dict[int, NDArray[np.int64]] = {}
        self._joined = 0

    @property
    def stage(self) -> Stage | None:
        return self._stages[0] if self._stages else None

    def requests(self) -> Mapping[int, bytes]:
        return {device: f"{self.stage} {device}".encode() for device in self._left}

    def receive(self, replies: Mapping[int, bytes]) -> None:
        stage = self._stages.pop(0)
        size = 8 * LENGTH if stage is Stage.MASKED else 2
        good = {device: reply for device, reply in replies.items() if len(reply) == size}
        missing = len(self._left) - len(good)
        if len(good) < self.quorum:
            raise RoundFailure(stage, missing, f"{missing} of {len(self._left)} are missing")
        if stage is Stage.JOIN:
            self._joined = len(good)
        if stage is Stage.MASKED:
            self._vectors = {device: np.frombuffer(reply, np.int64) for device, reply in good.items()}
        self._left = list(good)

    @property
    def result(self) -> Result:
        total = np.zeros(LENGTH, np.int64)
        for vector in self._vectors.values():
            total += vector
        return Result(total, self._joined, tuple(self._vectors), {})


@dataclass
class FakeDevice:
    """Answers `masked` with its vector and everything else with two bytes, unless it has a fault there."""

    vector: NDArray[np.int64]
    faults: Mapping[str, Fault] = field(default_factory=dict)

    def handle(self, stage: str, request: bytes) -> bytes:
        if stage in self.faults:
            return self.faults[stage](request)
        return self.vector.tobytes() if stage == "masked" else b"ok"


class FakeClock:
    """A clock that advances only by `sleep`."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class SpoilingGrid(LocalGrid):
    """The local Grid, with one node's replies at one stage passed through `spoil` on their way back."""

    def __init__(self, *args: object, node: int, stage: str, spoil: Callable[[Message], list[Message]]):
        super().__init__(*args)  # type: ignore[arg-type]
        self._node, self._stage, self._spoil = node, f"query.{stage}", spoil

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message in super().pull_messages(message_ids):
            metadata = message.metadata
            if (metadata.src_node_id, metadata.message_type) == (self._node, self._stage):
                yield from self._spoil(message)
            else:
                yield message


def decline(request: bytes) -> bytes:
    raise Declined(Reason.CONSENT)


def crash(request: bytes) -> bytes:
    raise RuntimeError(f"{CANARY} {request!r}")


def silence(request: bytes) -> bytes:
    return b""


def garbage(request: bytes) -> bytes:
    return b"\x00\xffnot a reply"


@dataclass
class Ran:
    """The result of a round and the progress that it reported."""

    result: Result
    invited: int
    seen: list[Progress]


def vectors(devices: int = 6) -> NDArray[np.int64]:
    """Return some devices' vectors, of both signs and far from small."""
    return np.random.default_rng(5).integers(-(2**40), 2**40, (devices, LENGTH))


def run_round(
    devices: Sequence[FakeDevice],
    needed: int = 1,
    grid: Callable[[ClientApp, int], LocalGrid] = partial(LocalGrid, slice_seconds=SLICE),
    clock: FakeClock | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Ran:
    """Run a round over fake devices, one a node, with a deadline of a minute a stage."""
    place = grid(relay(lambda config: {0: devices[config["partition-id"]]}), len(devices))
    return over(place, needed, clock, stopped)


def over(
    place: LocalGrid,
    needed: int = 1,
    clock: FakeClock | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Ran:
    """Run a round over a Grid."""
    seen: list[Progress] = []
    nodes = list(place.get_node_ids())
    pace, watch = Pace(60.0, 0.5), Watch(seen.append, stopped)
    begin = partial(Sum, needed)
    result, invited = conduct(
        place, nodes, lambda _: b"come", RELEASE, begin, pace, clock or FakeClock(), watch
    )
    return Ran(result, invited, seen)


def content(parts: list[bytes], slots: list[int] | None = None) -> RecordDict:
    """Return the content of a node's message, well formed or not."""
    numbers = list(range(len(parts))) if slots is None else slots
    return RecordDict({"letter": ConfigRecord({"slots": numbers, "parts": parts, "everyone": b""})})
