"""A server that chooses the dropouts, and sends devices different views, cannot sum a part of the cohort.

The ring of sixty devices is cut at two places: a few devices on each side of an arc "drop", and those at
its ends are shown that some of the devices beyond never dealt shares. Then no mask links the arc to the
rest; but the devices beyond do not know that, and still hold shares of the arc's seeds. With noise
shares meant for sixty, a sum over twenty-five would carry too little.
"""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from fa_core.secagg import DeviceParty, Parameters, Reason, Refusal, Stage, keys, messages
from fa_core.secagg.graph import ring
from fa_core.secagg.masks import Masker, lower
from tests.secagg import attacks, lab
from tests.secagg.attacks import View
from tests.secagg.lab import TASK, Lab

N, K, T = 60, 20, 13
ARC, GAP = 25, 4
CUT_TASK = replace(TASK, dropout=Fraction(1, 5), corrupt=Fraction(0))


class Forgetful(DeviceParty):
    """Does not remember which dealers it was shown, so the witness's signature does not bind them."""

    __slots__ = ()

    def _confirm(self, request: bytes) -> bytes:
        reply = super()._confirm(request)
        assert self._received is not None
        self._received = replace(self._received, dealt=np.ones(N, dtype=np.bool_))
        return reply


def positions(bench: Lab) -> tuple[list[int], list[int]]:
    """Roster indices of (the arc, the dropped on both its sides)."""
    at = ring(bench.server._hash, N)[0].tolist()
    gap = [at[p % N] for p in (*range(-GAP, 0), *range(ARC, ARC + GAP))]
    return at[:ARC], gap


def cut(bench: Lab) -> NDArray[np.int64] | None:
    """Run the attack. The sum over the arc, if it can be opened."""
    bench.run(until=Stage.CONFIRM)
    arc, gap = positions(bench)
    beyond = set(range(N)) - set(arc) - set(gap)
    vectors: dict[int, bytes] = {}

    def alter(stage: Stage, node: int, request: bytes) -> bytes:
        if stage is not Stage.CONFIRM or node not in arc:
            return request
        dealt, sealed = messages.read_confirm_request(CUT_TASK.session, request, N)
        around = bench.server._neighbours[node].tolist()
        hidden = [i for i in around if i in beyond]
        dealt[hidden] = False
        boxes = [box for i, box in zip(around, sealed, strict=True) if i not in hidden]
        array = np.frombuffer(b"".join(boxes), dtype=np.uint8).reshape(len(boxes), -1)
        return messages.confirm_request(CUT_TASK.session, dealt, array)

    def note(stage: Stage, node: int, reply: bytes) -> bytes:
        if stage is Stage.MASKED:
            vectors[node] = reply[36:]
        return reply

    bench.run({Stage.MASKED: set(gap)}, until=Stage.UNMASK, request=alter, reply=note)
    view = attacks.of_server(bench, vectors)
    for i in np.flatnonzero(bench.server._survivors).tolist():
        try:
            reply = bench.parties[i].unmask(bench.server.requests()[i])
        except Refusal:
            continue
        attacks.take(view, i, reply, bench.server._survivors)
    return open_arc(view, arc, gap)


def open_arc(view: View, arc: list[int], gap: list[int]) -> NDArray[np.int64] | None:
    """The sum over the arc, less the self masks of the arc and its masks with the dropped."""
    if any(view.secret("seed", i) is None for i in arc):
        return None
    total = sum((view.bare(i) for i in arc), start=np.zeros(CUT_TASK.length, dtype=np.uint32))
    masker = Masker(total)
    for lost in gap:
        private = view.secret("key", lost)
        assert private is not None
        own = view.records[lost].device
        for other in set(view.neighbours[lost].tolist()) & set(arc):
            peer = view.records[other]
            secret = keys.agree(X25519PrivateKey.from_private_bytes(private), peer.mask_key)
            key = keys.pair_mask_key(secret, view.task.session, own, peer.device)
            masker.apply(key, subtract=peer.device < own)
    return lower(total)


@pytest.fixture
def sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse graph for few devices, with t > k/2 as for many."""
    parameters = Parameters(N, K, T, N - N // 5)
    for room in ("device", "server"):
        monkeypatch.setattr(f"fa_core.secagg.{room}.choose", lambda *_: parameters)


@pytest.mark.usefixtures("sparse")
def test_an_arc_is_cut_out_where_the_dealers_are_not_bound(tmp_path: Path) -> None:
    bench = lab.make(tmp_path, N, CUT_TASK, party=Forgetful)
    opened = cut(bench)
    assert opened is not None
    assert np.array_equal(opened, bench.vectors[positions(bench)[0]].sum(axis=0))


@pytest.mark.usefixtures("sparse")
def test_ours_cannot_be_cut(tmp_path: Path) -> None:
    bench = lab.make(tmp_path, N, CUT_TASK)
    assert cut(bench) is None
    arc, _ = positions(bench)
    request = bench.server.requests()[arc[-1]]
    with pytest.raises(Refusal) as caught:
        bench.parties[arc[-1]].unmask(request)
    assert caught.value.reason is Reason.UNSIGNED_SURVIVORS
