"""Devices that lie and bytes that are no report: refused by a code, and the others' sum is right."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fa_core.collection import measured as measuring
from fa_core.collection.leader import Tally
from fa_core.collection.refusal import Refusal
from fa_core.collection.report import Report, report_size, seal, seal_all
from fa_core.prio.blocks import prio
from fa_core.secagg.identity import DeviceIdentity
from tests.collection.world import Collection
from tests.rounds.small import POPULATION

DEVICES, GROUP = 60, 500


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collection]:
    monkeypatch.setattr(measuring, "noise_of", lambda layout, role: np.zeros(layout.length, np.int64))
    found = Collection.make(tmp_path, DEVICES)
    yield found
    found.close()
    found.world.store.close()


def signed(made: Collection, task: bytes, report: Report, identity: DeviceIdentity) -> Report:
    signature = identity.key.sign(b"unheard/collection/1 report\x00" + task + report.body_hash)
    return replace(report, signature=signature)


@pytest.mark.parametrize(
    ("fuzzed", "resigned"), [(1_880, 120), pytest.param(98_000, 2_000, marks=pytest.mark.long)]
)
def test_one_of_sixty_lies_and_thousands_of_reports_are_garbage(
    made: Collection, fuzzed: int, resigned: int
) -> None:
    """The liar reports 96 times what it counted, as in the review of the four stages."""
    task = made.open().task
    system, rows = prio(made.plan), made.measurements()
    liar = int(np.argmax(made.vectors().sum(axis=1)))
    rows[liar] *= 96
    reports = seal_all(task, system, list(rows), made.identities)
    chance = np.random.default_rng(18)
    codes = _fuzz_bytes(made, task.id, [each.encode() for each in reports], fuzzed, chance)
    assert codes.total() == fuzzed
    assert set(codes) == {Refusal.MALFORMED, Refusal.OVERSIZED, Refusal.FOREIGN, Refusal.FORGED}
    assert made.leader.tally(task.id) == Tally(0, 0, 0, {})
    for report in reports:
        made.leader.take(task.id, report.encode())
    for number in range(resigned):
        fresh = made.world.authority.enrol(POPULATION)
        made.leader.take(task.id, _tampered(made, task, rows[number % DEVICES], fresh, chance).encode())
    sums = made.leader.close(task.id, made.helper)
    honest = np.delete(made.vectors(), liar, axis=0)
    assert np.array_equal(sums, honest.sum(axis=0))
    found = made.leader.tally(task.id)
    assert (found.counted, found.arrived) == (DEVICES - 1, DEVICES + resigned)
    assert set(found.refused) == {Refusal.INVALID, Refusal.SEALED_OTHERWISE}
    assert sum(found.refused.values()) == resigned + 1


def _fuzz_bytes(made: Collection, task: bytes, good: list[bytes], fuzzed: int, chance: Any) -> Counter[str]:
    """Offer bytes that are nearly a report; return how often each code was answered."""
    codes: Counter[str] = Counter()
    size = report_size(prio(made.plan))
    while codes.total() < fuzzed:
        sent = [_nearly(good, size, chance) for _ in range(min(GROUP, fuzzed - codes.total()))]
        codes.update(each or "accepted" for each in made.leader.take_all(task, sent))
    return codes


def _nearly(good: list[bytes], size: int, chance: Any) -> bytes:
    """Return bytes that are nearly one of these reports."""
    while True:
        one, other = (bytearray(good[each]) for each in chance.integers(0, len(good), 2))
        at, kind = int(chance.integers(0, size)), int(chance.integers(0, 6))
        if kind == 0:
            one[at] ^= 1 << int(chance.integers(0, 8))
        elif kind == 1:
            one = one[:at]
        elif kind == 2:
            one += other[:at] or b"\0"
        elif kind == 3:
            if one == other:
                continue
            one = one[:at] + other[at:] if 48 < at < size - 64 else other[:40] + one[40:]
        elif kind == 4:
            one[at:] = bytes(size - at) if one[at:] != bytes(size - at) else b"\1" * (size - at)
        else:
            one = bytearray(chance.bytes(size))
        return bytes(one)


def _tampered(made: Collection, task: Any, row: Any, identity: DeviceIdentity, chance: Any) -> Report:
    """Return a report that its device changed in one place after the proof was made, and signed."""
    report = seal(task, prio(made.plan), row, identity)
    name = ("id", "public", "box", "leader")[int(chance.integers(0, 4))]
    value = bytearray(getattr(report, name))
    value[int(chance.integers(0, len(value)))] ^= 1 << int(chance.integers(0, 8))
    return signed(made, task.id, replace(report, **{name: bytes(value)}), identity)
