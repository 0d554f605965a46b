"""The queue under concurrency: a slot is given once, a timestamp used once, a reply accepted once."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import inspect

from fa_core.errors import BadInput
from fa_core.gateway.migrations import LINEAGE
from fa_core.gateway.queue import NewRound, Queue, Replayed, ReplyOutcome
from fa_core.gateway.schema import metadata
from tests.gateway.running_gateway import queue_of

RELEASE, INVITATION = "ab" * 16, b"come"
NODE = 2**63 + 5  # Flower numbers nodes with 64 bits and no sign


def name(number: int) -> bytes:
    return number.to_bytes(32, "big")


def open_round(queue: Queue, room: int = 3, node: int = NODE, release: str = RELEASE) -> int:
    found = queue.open(NewRound(release, node, INVITATION, room, 100.0, 1000.0))
    assert found is not None
    return found


def test_a_device_gets_one_slot_and_one_invitation(queue: Queue) -> None:
    number = open_round(queue)
    found = queue.next(name(1), 1, 50.0)
    assert found.asked is not None
    assert (found.asked.stage, found.asked.request, found.rounds) == ("join", INVITATION, {number})
    again = queue.next(name(1), 2, 50.0)
    assert again.asked == found.asked  # until it answers
    assert queue.tally(number, 0).free == 2


def test_a_declined_message_does_not_hold_back_another(queue: Queue) -> None:
    """Either of two is offered at random: one of them is absent from 60 draws with probability 2^-59."""
    open_round(queue, release=RELEASE)
    open_round(queue, node=2, release="02" * 16)
    first = queue.next(name(1), 1, 50.0).asked
    assert first is not None
    reply = queue.answer(name(1), 2, first.message, b"here")
    assert reply is not None
    second = queue.next(name(1), 3, 50.0).asked
    assert second is not None
    third = open_round(queue, node=3, release="03" * 16)
    offered = {queue.next(name(1), timestamp, 50.0).asked for timestamp in range(4, 64)}
    assert second in offered
    assert third


def test_slots_end_with_the_maximum_and_with_the_window(queue: Queue) -> None:
    number = open_round(queue, room=1)
    assert queue.next(name(1), 1, 99.0).asked is not None
    assert queue.next(name(2), 1, 99.0).asked is None
    open_round(queue, node=2)
    assert queue.next(name(2), 2, 100.0).asked is None
    assert queue.collect(number, 0) == {0: b""}
    assert queue.next(name(3), 1, 101.0).asked is None


def test_a_device_takes_one_slot_for_a_release(queue: Queue) -> None:
    first, second = open_round(queue, node=1), open_round(queue, node=2)
    asked = queue.next(name(1), 1, 1.0).asked
    assert asked is not None
    assert queue.answer(name(1), 2, asked.message, b"me") is ReplyOutcome.ACCEPTED
    assert queue.next(name(1), 3, 1.0).asked is None
    assert queue.tally(first, 0).free + queue.tally(second, 0).free == 5
    other = open_round(queue, node=1, release="cd" * 16)
    assert queue.next(name(1), 4, 1.0).rounds >= {other}


def test_a_round_of_a_node_begins_once(queue: Queue) -> None:
    number = open_round(queue)
    assert queue.open(NewRound(RELEASE, NODE, b"another", 9, 100.0, 1000.0)) is None
    assert open_round(queue) == number  # a relay server that crashed goes on
    queue.ask(number, 1, {}, b"", 1000.0)
    assert queue.open(NewRound(RELEASE, NODE, INVITATION, 3, 100.0, 1000.0)) is None


def test_a_stage_begins_once_and_collecting_it_again_returns_the_same(queue: Queue) -> None:
    """A caller may lose the result with the database, and call again."""
    number = open_round(queue)
    for device in (1, 2):
        asked = queue.next(name(device), 1, 1.0).asked
        assert asked is not None
    queue.answer(name(2), 2, asked.message, b"here")
    assert queue.collect(number, 0) == queue.collect(number, 0) == {0: b"", 1: b"here"}
    for request in (b"first", b"second"):
        queue.ask(number, 1, {}, request, 1000.0)
    assert queue.tally(number, 1).asked == 2
    assert queue.tally(number, 0).asked == 0  # deleted
    found = queue.next(name(1), 3, 1.0).asked
    assert found is not None
    assert found.request == b"first"


def test_a_reply_is_accepted_once_and_only_from_the_device_that_was_asked(queue: Queue) -> None:
    number = open_round(queue)
    asked = queue.next(name(1), 1, 1.0).asked
    other = queue.next(name(2), 1, 1.0).asked
    assert asked is not None
    assert other is not None
    assert queue.answer(name(2), 2, asked.message, b"stolen") is ReplyOutcome.REJECTED
    assert queue.answer(name(1), 2, asked.message + 99, b"no message") is ReplyOutcome.REJECTED
    assert queue.answer(name(1), 3, asked.message, b"mine") is ReplyOutcome.ACCEPTED
    assert queue.answer(name(1), 4, asked.message, b"mine") is ReplyOutcome.DUPLICATE
    assert queue.answer(name(1), 5, asked.message, b"changed") is ReplyOutcome.REJECTED
    assert sorted(queue.collect(number, 0).values()) == [b"", b"mine"]
    assert queue.answer(name(1), 6, asked.message, b"mine") is ReplyOutcome.DUPLICATE
    assert queue.answer(name(2), 6, other.message, b"late") is ReplyOutcome.REJECTED  # the stage is over
    queue.ask(number, 1, {}, b"", 1000.0)
    assert queue.answer(name(1), 7, asked.message, b"mine") is ReplyOutcome.REJECTED


def test_a_timestamp_is_used_once_and_must_rise(queue: Queue) -> None:
    queue.next(name(1), 5, 1.0)
    for timestamp in (5, 4, 0):
        with pytest.raises(Replayed):
            queue.next(name(1), timestamp, 1.0)
        with pytest.raises(Replayed):
            queue.answer(name(1), timestamp, 1, b"x")
    queue.next(name(2), 1, 1.0)
    queue.next(name(1), 6, 1.0)


def test_later_stages_reach_the_slots_that_they_name(queue: Queue) -> None:
    number = open_round(queue)
    for device in (1, 2, 3):
        asked = queue.next(name(device), 1, 1.0).asked
        assert asked is not None
        queue.answer(name(device), 2, asked.message, b"joined %d" % device)
    slots = {reply: slot for slot, reply in queue.collect(number, 0).items()}
    assert queue.find(RELEASE, NODE) == (number, 0)
    assert queue.find(RELEASE, 1) is None
    requests = {slots[b"joined 1"]: b"for one", slots[b"joined 3"]: b"for three", 77: b"nobody"}
    queue.ask(number, 1, requests, b"", 1000.0)
    one, two = queue.next(name(1), 3, 1.0).asked, queue.next(name(2), 3, 1.0).asked
    assert one is not None
    assert (one.stage, one.request, two) == ("shares", b"for one", None)
    assert queue.tally(number, 1).asked == 2
    queue.answer(name(1), 4, one.message, b"reply")
    assert queue.collect(number, 1) == {slots[b"joined 1"]: b"reply", slots[b"joined 3"]: b""}
    queue.ask(number, 2, {}, b"for all", 1000.0)
    assert queue.tally(number, 2).asked == 3


def test_serials_rise_with_changes_and_expired_rounds_are_deleted(queue: Queue) -> None:
    number = open_round(queue)
    before = queue.statuses(1.0)[0]
    assert (before.round, before.free) == (number, 3)
    queue.collect(number, 0)
    queue.ask(number, 1, {}, b"", 1000.0)
    after = queue.statuses(1.0)[0]
    assert (after.serial > before.serial, after.free) == (True, 0)
    assert queue.sweep(999.0) == 0
    assert queue.sweep(1001.0) == 1
    assert queue.statuses(1.0) == []


def test_a_new_stage_extends_the_life_of_a_round_and_a_repeated_one_does_not(queue: Queue) -> None:
    number = open_round(queue)
    queue.ask(number, 1, {}, b"", 5000.0)
    queue.ask(number, 1, {}, b"", 9000.0)
    assert (queue.sweep(4999.0), queue.sweep(5001.0)) == (0, 1)


def test_ending_a_round_again_does_not_keep_it_longer(queue: Queue) -> None:
    number = open_round(queue)
    for expires in (2000.0, 300.0, 600.0):
        queue.end(number, expires)
    assert (queue.sweep(299.0), queue.sweep(301.0)) == (0, 1)


def test_a_closed_round_leaves_nothing(queue: Queue, database: str) -> None:
    number = open_round(queue)
    queue.next(name(1), 1, 1.0)
    queue.close(number)
    again, connected = queue_of(database)
    with connected.reading() as connection:
        for table in metadata.sorted_tables:
            if table.name != "gateway_stamps":
                assert connection.execute(table.select()).all() == []
    connected.close()
    assert again.next(name(1), 2, 1.0).rounds == frozenset()


def test_concurrent_devices_take_each_slot_and_give_each_reply_once(queue: Queue) -> None:
    """Eight threads, each with devices of its own, and one device that all of them simulate."""
    number, threads = open_round(queue, room=20), 8
    outcomes: list[ReplyOutcome] = []
    start = threading.Barrier(threads)

    def come(thread: int) -> None:
        start.wait()
        for device in range(4):
            me = name(1 + thread * 10 + device)
            asked = queue.next(me, 1, 1.0).asked
            if asked is not None:
                outcomes.append(queue.answer(me, 2, asked.message, me))
        shared = queue.again(name(999), 1.0) if thread % 2 else None
        if shared is not None and shared.asked is not None:
            outcomes.append(queue.answer(name(999), 100 + thread, shared.asked.message, b"%d" % thread))

    workers = [threading.Thread(target=_quietly, args=(come, thread)) for thread in range(threads)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    replies = queue.collect(number, 0)
    assert len(replies) == 20
    given = [reply for reply in replies.values() if reply]
    assert len(given) == len(set(given)) == outcomes.count(ReplyOutcome.ACCEPTED)


def _quietly(work: object, thread: int) -> None:
    """The shared device's timestamps collide on purpose: a collision is refused and does nothing else."""
    try:
        work(thread)  # type: ignore[operator]
    except (Replayed, BadInput):
        return


def test_migrations_build_the_declared_tables_both_ways(database: str) -> None:
    _, connected = queue_of(database)
    declared = {
        table.name: sorted((column.name, column.nullable) for column in table.columns)
        for table in metadata.sorted_tables
    }
    with connected.reading() as connection:
        found = inspect(connection)
        built = {
            each: sorted((column["name"], column["nullable"]) for column in found.get_columns(each))
            for each in declared
        }
    assert built == declared
    with connected.writing() as connection:
        LINEAGE.downgrade(connection, "base")
    with connected.reading() as connection:
        assert set(inspect(connection).get_table_names()) <= {"gateway_version"}
    connected.prepare()
    assert connected.revision() == LINEAGE.head
    connected.close()


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    from fa_core.store import open_store

    open_store(tmp_path).close()
    with pytest.raises(BadInput, match="a gateway needs an empty one"):
        queue_of(str(tmp_path / "store.db"))
