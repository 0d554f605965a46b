"""The device's end of a collection: it uploads once, takes back, comes seldom, and bears every gateway."""

import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from clients.device.interface import Declined, Reason, Stage
from clients.device.remote import Line, NotAdmitted, Unreachable
from clients.device.uploading import EVERY_SECONDS, upload
from fa_core.gateway.counters import Counters
from fa_core.gateway.drain import Drain
from fa_core.trust.enrolment import Authority
from tests.gateway.offered import CLOSES, asked, invited, report_of, task_of, withdrawal_of
from tests.gateway.running_gateway import Gateway, gateway

AUTHORITY = Authority.generate()
TASKS = [task_of(1), task_of(2, CLOSES + 1)]
"""In the order in which a gateway lists them."""


class Uploads:
    """A device with a report for each task, as the owner and the hour allow it."""

    def __init__(self) -> None:
        self.identity = AUTHORITY.enrol("a fleet")
        self.reports = {invited(task): report_of(self.identity.device) for task in TASKS}
        self.errors: list[Exception] = []
        self.taken_back: list[tuple[bytes, bytes]] = []
        self.asked: list[tuple[Stage, bytes]] = []

    def handle(self, stage: Stage, request: bytes) -> bytes:
        self.asked.append((stage, request))
        if self.errors:
            raise self.errors.pop(0)
        return self.reports[request]

    def withdrawals(self) -> list[tuple[bytes, bytes]]:
        return self.taken_back


class Turns(threading.Event):
    """`stopped`, after so many turns of the loop; it does not wait, and keeps how long it was asked to."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.left, self.waits = turns, list[float]()

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        self.left -= 1
        return self.left < 0 or self.is_set()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("uploading") / "gateway", AUTHORITY) as found:
        yield found


@pytest.fixture
def here(running: Gateway) -> Gateway:
    """A gateway with one collection, and nothing in it."""
    running.uploads.sweep(1e12)
    assert ask(running, 0) == {}
    return running


def ask(here: Gateway, number: int, ack: int = 0) -> dict[int, bytes] | None:
    return Drain(here.uploads, 9, Counters()).hand_over(asked(TASKS[number], ack))


def turns(here: Gateway, device: Uploads, number: int) -> Turns:
    stopped = Turns(number)
    upload(device, here.line(device.identity), stopped)
    return stopped


def test_a_device_uploads_once_to_each_collection(here: Gateway) -> None:
    device = Uploads()
    first, second = device.reports
    turns(here, device, 3)
    assert device.asked == [("report", first)]
    assert ask(here, 0) == {1: device.reports[first]}
    ask(here, 1)
    turns(here, device, 2)  # as after a restart
    assert device.asked == [("report", first), ("report", first), ("report", second)]
    assert ask(here, 0) == {1: device.reports[first]}
    assert ask(here, 1) == {1: device.reports[second]}


def test_it_comes_first_at_random_and_then_seldom(here: Gateway) -> None:
    """Of 40 draws from an interval, all fall into one half of it with probability 2^-39."""
    device = Uploads()
    firsts = [turns(here, device, 0).waits[0] for _ in range(40)]
    assert all(0 <= each <= EVERY_SECONDS for each in firsts)
    assert min(firsts) < EVERY_SECONDS / 2 < max(firsts)
    later = turns(here, device, 3).waits[1:]
    assert all(EVERY_SECONDS / 2 <= each <= 1.5 * EVERY_SECONDS for each in later)


@pytest.mark.parametrize("error", [Declined(Reason.CONDITIONS), ValueError("a secret")])
def test_a_device_that_declines_is_asked_again(here: Gateway, error: Exception) -> None:
    device = Uploads()
    device.errors = [error, error]
    ask(here, 1)
    turns(here, device, 1)
    assert (ask(here, 0), ask(here, 1)) == ({}, {})
    turns(here, device, 2)
    assert len(device.asked) == 4  # twice, and not once more in the turn after
    assert [len(ask(here, number) or {}) for number in (0, 1)] == [1, 1]


def test_what_was_taken_back_is_sent_once_and_before_anything_else(
    here: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, posted, post = Uploads(), list[bytes](), Line.upload
    back = withdrawal_of(device.identity.device, TASKS[0])
    lost = withdrawal_of(device.identity.device, TASKS[1])  # of a collection that is over by now
    body = device.reports[invited(TASKS[0])]

    def counted(self: Line, task: bytes, body: bytes) -> bool:
        posted.append(body)
        return post(self, task, body)

    monkeypatch.setattr(Line, "upload", counted)
    turns(here, device, 1)
    device.taken_back = [(TASKS[0].id, back), (TASKS[1].id, lost)]
    turns(here, device, 3)
    assert posted == [body, back, lost, body, lost, lost]
    assert ask(here, 0) == {2: back}


def test_other_bytes_than_before_are_not_sent_again(here: Gateway) -> None:
    """As by a store that was restored: the gateway has its report, and the device comes to rest."""
    device = Uploads()
    turns(here, device, 1)
    kept = ask(here, 0)
    device.reports[invited(TASKS[0])] = report_of(device.identity.device)
    turns(here, device, 3)
    assert len(device.asked) == 2
    assert ask(here, 0) == kept


ANSWERS: list[tuple[int, bytes]] = [
    (404, b""),
    (200, b'{"collections": []}'),
    (500, b""),
    (200, b""),
    (200, b"[" * 100_000),
    (200, b'{"collections": 7}'),
    (200, b'{"collections": [{"task": 7}]}'),
    (200, b'{"collections": [{"task": "00"}]}'),
    (200, b'{"collections": [{"task": "zz"}]}'),
    (200, b'{"collections": ["task"]}'),
]


@pytest.mark.parametrize("status, body", ANSWERS)
def test_an_older_gateway_and_a_broken_one_change_nothing(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    device = Uploads()
    monkeypatch.setattr(Line, "_ask", lambda *_: (status, {}, body))
    line = Line("127.0.0.1:1", ssl.create_default_context(), device.identity)
    upload(device, line, Turns(2))
    assert device.asked == []
    if status == 404 or body == b'{"collections": []}':
        assert line.collections() == []
    else:
        with pytest.raises(Unreachable):
            line.collections()


def test_it_bears_what_fails(here: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Uploads()
    failing: list[Any] = [NotAdmitted(), Unreachable(), ValueError("a defect")]
    collections = Line.collections

    def sometimes(self: Line) -> list[bytes]:
        if failing:
            raise failing.pop(0)
        return collections(self)

    monkeypatch.setattr(Line, "collections", sometimes)
    turns(here, device, 4)
    assert len(ask(here, 0) or {}) == 1


def test_it_stops_between_two_collections(here: Gateway) -> None:
    device, stopped = Uploads(), Turns(5)
    ask(here, 1)
    handle = device.handle

    def stopping(stage: Stage, request: bytes) -> bytes:
        stopped.set()
        return handle(stage, request)

    device.handle = stopping  # type: ignore[method-assign]
    upload(device, here.line(device.identity), stopped)
    assert len(device.asked) == 1
