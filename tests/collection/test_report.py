"""A report is read by its sizes, believed for its signature, and opened by its helper, for its task alone."""

from dataclasses import fields, replace

import numpy as np
import pytest

from fa_core.collection.messages import Entry
from fa_core.collection.refusal import Refusal, RefusedReport
from fa_core.collection.report import (
    WITHDRAWAL_SIZE,
    Report,
    check_sender,
    open_share,
    read_withdrawal,
    report_size,
    withdraw,
)
from fa_core.collection.sums import Running
from fa_core.collection.task import Task
from fa_core.prio.prio3 import Begun, Finished, Input, Shares
from fa_core.secagg.identity import DeviceIdentity
from tests.collection.setup import AUTHORITY, DEVICES, PROOF_SYSTEM, SEALING, TASK, nothing_of

DEVICE, OTHER = DEVICES[:2]
REPORT = nothing_of(DEVICE)
ELSEWHERE = replace(TASK, release=bytes(16))
PRIVATE = SEALING.private()


def refused(code: Refusal) -> "pytest.RaisesExc[RefusedReport]":
    return pytest.raises(RefusedReport, match=f"^{code.value}$")


def sent_by(report: Report, task: Task = TASK) -> None:
    sender = (report.device, report.certificate, report.signature)
    check_sender(task, AUTHORITY.public_key, *sender, report.body_hash)


def opened(report: Report) -> bytes:
    return open_share(TASK.id, PRIVATE, report.id, report.device, report.public, report.box)


def test_a_report_is_read_as_it_was_written() -> None:
    data = REPORT.encode()
    assert len(data) == report_size(PROOF_SYSTEM)
    assert Report.parse(data, PROOF_SYSTEM) == REPORT
    with refused(Refusal.MALFORMED):
        Report.parse(data[:-1], PROOF_SYSTEM)
    with refused(Refusal.OVERSIZED):
        Report.parse(data + b"\0", PROOF_SYSTEM)


def test_two_reports_of_the_same_counts_have_nothing_in_common() -> None:
    again = nothing_of(DEVICE)
    for name in ("id", "public", "box", "leader", "signature"):
        assert getattr(again, name) != getattr(REPORT, name)


def test_nothing_secret_is_in_the_text_of_an_object() -> None:
    """A traceback or a log that shows one shows sizes and public parts at most."""
    share, number = bytes(range(100, 132)), np.full(3, 123456789, np.uint64)
    objects: list[tuple[object, tuple[str, ...]]] = [
        (Shares(b"", share, share), ("leader", "helper")),
        (Input(b"", b"", share), ("share",)),
        (Begun((), (share,), number, (share,)), ("verifiers", "inputs", "seeds")),
        (Finished(np.ones(1, np.bool_), (), number), ("total",)),
        (Running(number, 0, b""), ("total",)),
        (Entry(b"", b"", b"", b"", b"", b"", b"", share), ("verifier",)),
        (REPORT, ("leader",)),
    ]
    for each, names in objects:
        shown = repr(each)
        assert repr(share)[2:-1] not in shown
        assert "123456789" not in shown
        assert not any(f"{name}=" in shown for name in names)


def test_the_helper_opens_its_share_and_both_find_the_proof_sound() -> None:
    sent_by(REPORT)
    key, rest = bytes(32), (REPORT.id, REPORT.public)
    leader = PROOF_SYSTEM.begin(0, key, TASK.id, [Input(*rest, REPORT.leader)])
    helper = PROOF_SYSTEM.begin(1, key, TASK.id, [Input(*rest, opened(REPORT))])
    assert PROOF_SYSTEM.decide(TASK.id, leader.verifiers, helper.verifiers) != (None,)


@pytest.mark.parametrize("name", [each.name for each in fields(Report)])
def test_a_change_anywhere_is_noticed(name: str) -> None:
    value = bytearray(getattr(REPORT, name))
    value[40 if name == "certificate" else 0] ^= 1
    with pytest.raises(RefusedReport):
        sent_by(replace(REPORT, **{name: bytes(value)}))


def test_a_report_of_another_task_population_or_device_is_refused() -> None:
    with refused(Refusal.FORGED):
        sent_by(REPORT, ELSEWHERE)
    elsewhere = AUTHORITY.enrol("another")
    with refused(Refusal.FOREIGN):
        sent_by(nothing_of(elsewhere))
    uncertified = DeviceIdentity(elsewhere.key, TASK.population + elsewhere.certificate[32:])
    with refused(Refusal.FOREIGN):
        sent_by(nothing_of(uncertified))
    with refused(Refusal.FOREIGN):
        sent_by(replace(REPORT, device=OTHER.device))
    with refused(Refusal.FORGED):
        sent_by(replace(REPORT, device=OTHER.device, certificate=OTHER.certificate))


@pytest.mark.parametrize("name", ["id", "device", "public", "box"])
def test_a_share_that_is_moved_to_another_report_does_not_open(name: str) -> None:
    assert len(opened(REPORT)) == PROOF_SYSTEM.helper_size
    with refused(Refusal.SEALED_OTHERWISE):
        opened(replace(REPORT, **{name: getattr(nothing_of(OTHER), name)}))


def test_a_share_that_is_sealed_for_another_task_does_not_open() -> None:
    with refused(Refusal.SEALED_OTHERWISE):
        opened(nothing_of(DEVICE, ELSEWHERE))


def test_a_report_shows_no_share() -> None:
    assert repr(REPORT.leader) not in repr(REPORT)


def test_a_withdrawal_is_the_devices_own_and_for_one_report() -> None:
    data = withdraw(TASK, REPORT, DEVICE)
    authority = AUTHORITY.public_key
    assert len(data) == WITHDRAWAL_SIZE
    assert read_withdrawal(data, TASK, authority) == (REPORT.id, DEVICE.device)
    with refused(Refusal.UNKNOWN_TASK):
        read_withdrawal(data, ELSEWHERE, authority)
    with refused(Refusal.MALFORMED):
        read_withdrawal(data[:-1], TASK, authority)
    with refused(Refusal.FORGED):
        read_withdrawal(withdraw(TASK, REPORT, OTHER), TASK, authority)
    moved = data[:32] + bytes(16) + data[48:]
    with refused(Refusal.FORGED):
        read_withdrawal(moved, TASK, authority)
    stranger = AUTHORITY.enrol("another")
    with refused(Refusal.FOREIGN):
        read_withdrawal(withdraw(TASK, nothing_of(stranger), stranger), TASK, authority)


def test_each_refusal_has_its_number_and_its_words() -> None:
    numbers = [each.number for each in Refusal]
    assert numbers == list(range(1, len(Refusal) + 1))
    assert [Refusal.of_number(each) for each in numbers] == list(Refusal)
    assert len({each.words for each in Refusal}) == len(Refusal)
    for number in (0, len(Refusal) + 1, -1):
        with pytest.raises(ValueError):
            Refusal.of_number(number)
