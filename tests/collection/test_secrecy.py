"""What leader and helper see of reports, attacked; beside each attack a broken variant that it reads."""

from collections.abc import Iterator
from pathlib import Path
from secrets import token_bytes
from typing import Any

import numpy as np
import pytest

from fa_core.collection import measured as measuring
from fa_core.collection import report as reporting
from fa_core.collection.messages import Batch
from fa_core.collection.report import Report
from fa_core.layout import compile_plan
from fa_core.prio.blocks import prio, spread
from fa_core.prio.field import FIELD64, centred
from tests.collection.world import Collection

DEVICES = 6


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collection]:
    found = Collection.make(tmp_path, DEVICES)
    yield found
    found.close()
    found.world.store.close()


class Overheard:
    """The helper, and all that it is asked and answers."""

    def __init__(self, made: Collection) -> None:
        self._made = made
        self.said: list[tuple[str, bytes, bytes]] = []

    def __getattr__(self, name: str) -> Any:
        def ask(request: bytes) -> bytes:
            answer: bytes = getattr(self._made.helper, name)(request)
            self.said.append((name, request, answer))
            return answer

        return ask


def collected(made: Collection) -> tuple[list[Report], Overheard]:
    """Run a collection; return the reports that the leader saw, and what both said."""
    overheard = Overheard(made)
    task = made.open(overheard).task
    reports = made.reports(task)
    for report in reports:
        made.leader.take(task.id, report.encode())
    made.leader.close(task.id, overheard)
    return reports, overheard


def elements(data: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(data[: len(data) - len(data) % 8], "<u8")


def small(data: bytes) -> int:
    """How many elements are below 2^40: counts are, and of uniform ones a part of 2^-24 is."""
    return int((elements(data) < 2**40).sum())


def repeated(parts: list[bytes]) -> bool:
    """Whether an element occurs in two reports."""
    found = [set(elements(part).tolist()) - {0} for part in parts]
    return any(found[one] & found[other] for one in range(len(found)) for other in range(one))


def seen_by_leader(reports: list[Report]) -> list[bytes]:
    """The leader's shares of vector and proof, without the blind."""
    return [report.leader[:-32] for report in reports]


def seen_by_helper(made: Collection, overheard: Overheard) -> list[bytes]:
    (request,) = [request for name, request, _ in overheard.said if name == "verify"]
    return [entry.verifier[:-32] for entry in Batch.decode(request, prio(made.plan)).entries]


def test_no_share_looks_like_counts_or_like_another(made: Collection) -> None:
    """Of 900 uniform elements one is below 2^40 in one of 20,000 runs; two in one of 7 * 10^8."""
    reports, overheard = collected(made)
    leader, helper = seen_by_leader(reports), seen_by_helper(made, overheard)
    assert sum(map(small, leader)) < 2
    assert sum(map(small, helper)) < 2
    assert not repeated(leader)
    assert not repeated(helper)
    assert not any(report.leader in request for report in reports for _, request, _ in overheard.said)


def test_a_device_without_randomness_is_read(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: whoever knows a device's seeds reads its share, and finds equal shares in two reports."""
    monkeypatch.setattr(
        reporting, "token_bytes", lambda size: bytes(size) if size > 16 else token_bytes(size)
    )
    reports, _ = collected(made)
    system = prio(made.plan)
    own = system._helper_inputs(_task(made), [bytes(32)])[0]
    for report, row in zip(reports, made.measurements(), strict=True):
        share = elements(report.leader)[: system.length].astype(np.uint64)
        assert np.array_equal(centred(FIELD64, FIELD64.add(share, own)), row)
    assert repeated(seen_by_leader(reports))


def _task(made: Collection) -> bytes:
    with made.databases["leader"].reading() as connection:
        return bytes(connection.exec_driver_sql("SELECT id FROM leader_tasks").scalar_one())


@pytest.mark.parametrize("noised", [True, False])
def test_the_leader_sees_the_sum_under_the_helpers_noise_alone(
    made: Collection, monkeypatch: pytest.MonkeyPatch, noised: bool
) -> None:
    """The leader knows its own share of the sum exactly. Without the helper's noise it has the exact sum."""
    kept: list[Any] = []

    def seen(self: measuring.Measured, total: Any, role: Any) -> Any:
        if role == "leader":
            kept.append(total)
        return noise(self, total, role)

    noise = measuring.Measured.noised
    monkeypatch.setattr(measuring.Measured, "noised", seen)
    if not noised:
        none = np.zeros(compile_plan(made.plan).length, np.int64)
        monkeypatch.setattr(measuring, "noise_of", lambda layout, role: none)
    _, overheard = collected(made)
    (share,) = {answer for name, _, answer in overheard.said if name == "close"}
    own = spread(made.plan, kept[0])
    found = centred(FIELD64, FIELD64.add(own, elements(share).astype(np.uint64)))
    exact = made.vectors().sum(axis=0)
    assert np.array_equal(found, exact) is not noised
