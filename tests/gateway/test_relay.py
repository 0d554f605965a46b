"""Between a relay and the queue: a crash of gateway or database costs time, but no message and no reply."""

import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import clients.gateway
from clients.gateway import collect
from fa_core.errors import UnheardError
from fa_core.gateway.counters import Counters
from fa_core.gateway.queue import Queue
from fa_core.gateway.relay import ENDED_SECONDS, Collector
from fa_core.gateway.settings import CohortSection
from fa_core.secagg import IN_ORDER
from fa_core.wire import bundle
from fa_core.wire.bundle import Bundle, Unreadable

RELEASE, NODE = "ab" * 16, 7
DEVICES = [bytes([number]) * 32 for number in (1, 2)]


class Lossy:
    """A queue whose database fails once in each transaction: before it, or after it and before its result."""

    def __init__(self, queue: Queue, after: bool) -> None:
        self._queue, self._after, self._failed = queue, after, set[str]()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            if name in self._failed:
                return getattr(self._queue, name)(*arguments)
            self._failed.add(name)
            if self._after:
                getattr(self._queue, name)(*arguments)
            raise UnheardError("the database is away")

        return call


def asked(stage: str) -> Bundle:
    return Bundle(RELEASE, NODE, stage, 600.0, {}, b"for all: " + stage.encode())


def answering(queue: Queue, said: dict[bytes, int]) -> None:
    """Have each device answer its request, with its number and the stage."""
    for device in DEVICES:
        said[device] = said.get(device, 0) + 1
        found = queue.next(device, said[device], 1.0).asked
        if found is not None:
            said[device] += 1
            queue.answer(device, said[device], found.message, device[:1] + found.request)


@pytest.mark.parametrize("after", [False, True])
def test_a_database_that_fails_in_every_transaction_loses_nothing(queue: Queue, after: bool) -> None:
    said: dict[bytes, int] = {}
    cohort = CohortSection(window_seconds=600, minimum=2, maximum=2)
    for stage in IN_ORDER:
        lossy: Any = Lossy(queue, after)  # a new one for each stage: each transaction fails at each
        collector = Collector(lossy, cohort, Counters(), lambda: 1.0, lambda _: answering(queue, said))
        replies = collector.collect(asked(stage))
        assert replies is not None
        assert sorted(replies.values()) == [device[:1] + asked(stage).everyone for device in DEVICES]
        assert queue.sweep(ENDED_SECONDS + 2.0) == 0
        collector.forget(asked(stage))
    assert queue.sweep(ENDED_SECONDS + 2.0) == 1


def test_a_gateway_that_crashed_resumes_its_stage(queue: Queue) -> None:
    said: dict[bytes, int] = {}
    cohort = CohortSection(window_seconds=600, minimum=2, maximum=2)

    class Crashed(Exception):
        pass

    def crash(_: float) -> None:
        answering(queue, said)
        raise Crashed

    for stage in IN_ORDER:
        with pytest.raises(Crashed):
            Collector(queue, cohort, Counters(), lambda: 1.0, crash).collect(asked(stage))
        for _ in range(2):  # the first relay may be gone, too, before it has the result
            replies = Collector(queue, cohort, Counters(), lambda: 1.0).collect(asked(stage))
            assert replies is not None
            assert sorted(replies.values()) == [device[:1] + asked(stage).everyone for device in DEVICES]


def test_a_round_whose_stages_last_hours_is_kept(queue: Queue) -> None:
    """One device takes a slot and is silent, so that every stage lasts until its deadline."""
    said: dict[bytes, int] = {}
    now = [0.0]

    def sleep(_: float) -> None:
        now[0] += 1800.0
        queue.sweep(now[0])
        answering(queue, said)
        queue.again(bytes(32), 1.0)

    cohort = CohortSection(window_seconds=600, minimum=2, maximum=3)
    collector = Collector(queue, cohort, Counters(), lambda: now[0], sleep)
    for number, stage in enumerate(IN_ORDER):
        replies = collector.collect(replace(asked(stage), seconds=9 * 3600.0))
        assert replies is not None
        assert sorted(map(bool, replies.values())) == [False, True, True]
        assert now[0] == (number + 1) * 9 * 3600.0


def test_a_last_request_sent_twice_gets_the_same_replies_and_is_kept_no_longer(queue: Queue) -> None:
    """The SuperLink reported a failure after taking the first: the server waits for the second's reply."""
    said: dict[bytes, int] = {}
    now = [1.0]
    cohort = CohortSection(window_seconds=600, minimum=2, maximum=2)
    collector = Collector(queue, cohort, Counters(), lambda: now[0], lambda _: answering(queue, said))
    for stage in IN_ORDER:
        first = collector.collect(asked(stage))
        collector.forget(asked(stage))
        now[0] += ENDED_SECONDS - 1.0
        assert queue.sweep(now[0]) == 0
        assert collector.collect(asked(stage)) == first
        collector.forget(asked(stage))
    assert first is not None
    assert all(first.values())
    assert queue.sweep(now[0] + 2.0) == 1


def test_a_stage_out_of_its_order_is_not_asked(queue: Queue) -> None:
    collector = Collector(queue, CohortSection(minimum=1, maximum=1), Counters(), lambda: 1.0)
    for stage in IN_ORDER[1:]:
        assert collector.collect(asked(stage)) is None


def test_an_attempt_that_was_given_up_goes_on_in_the_same_slots(queue: Queue) -> None:
    """One of two devices complains; only the other is asked to join the next attempt, and nobody new may."""
    said: dict[bytes, int] = {}
    cohort = CohortSection(window_seconds=600, minimum=1, maximum=3)
    now = [1.0]

    def sleep(_: float) -> None:
        answering(queue, said)
        now[0] += step[0]

    step = [700.0]  # past the time for joining
    collector = Collector(queue, cohort, Counters(), lambda: now[0], sleep)

    def single(stage: str, slot: int) -> Bundle:
        return replace(asked(stage), parts={slot: b"for one: " + stage.encode()}, everyone=b"")

    for stage in ("join", "shares", "confirm"):
        assert collector.collect(replace(asked(stage), seconds=6000.0)) is not None
    assert set(collector.collect(single("dispute", 0)) or {}) == {0}
    assert collector.collect(asked("masked")) is None
    step[0], began = 1.0, now[0]
    for _ in range(2):  # a relay may ask again
        again = collector.collect(single("join", 1))
        assert again == {1: DEVICES[1][:1] + b"for one: join"}
        assert queue.again(bytes(32), now[0]).asked is None
    assert now[0] == began + step[0]  # nobody is waited for who might yet take a slot
    assert collector.collect(single("shares", 1)) == {1: DEVICES[1][:1] + b"for one: shares"}


class Scripted:
    """A gateway's socket that gives each connection the next of `answers`; None: it closes."""

    def __init__(self, path: Path, answers: list[bytes | None]) -> None:
        self.seconds: list[float] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._listening.accept()
            with connection:
                self.seconds.append(bundle.decode(bundle.receive(connection)).seconds)
                if answer is not None:
                    bundle.send(connection, answer)

    def close(self) -> None:
        self._thread.join()
        self._listening.close()


def test_a_relay_retries_a_crashed_gateway_with_the_remaining_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients.gateway, "RETRY_SECONDS", 0.01)
    path = tmp_path / "gateway.sock"
    there = Scripted(path, [None, None, bundle.encode_parts({0: b"here"})])
    assert collect({"gateway": str(path)}, asked("join")) == {0: b"here"}
    there.close()
    assert there.seconds == sorted(there.seconds, reverse=True)
    assert there.seconds[0] > there.seconds[2]


def test_a_refusal_is_not_retried_and_retrying_an_absent_gateway_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients.gateway, "RETRY_SECONDS", 0.01)
    path = tmp_path / "gateway.sock"
    there = Scripted(path, [bundle.REFUSED])
    with pytest.raises(Unreadable):
        collect({"gateway": str(path)}, asked("join"))
    there.close()
    late = Bundle(RELEASE, NODE, "join", 0.05, {}, b"")
    with pytest.raises(ConnectionRefusedError):
        collect({"gateway": str(path)}, late)
