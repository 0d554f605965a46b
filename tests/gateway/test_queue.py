"""The desk's promises: a seat, a stamp and an answer are given once, whoever comes at the same time."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import inspect

from fa_core.errors import BadInput
from fa_core.gateway.migrations import LINEAGE
from fa_core.gateway.queue import Desk, Opening, Replayed, Taken
from fa_core.gateway.schema import metadata
from tests.gateway.house import desk_of

RELEASE, INVITATION = "ab" * 16, b"come"
NODE = 2**63 + 5  # Flower numbers nodes with 64 bits and no sign


def name(number: int) -> bytes:
    return number.to_bytes(32, "big")


def opened(desk: Desk, room: int = 3, node: int = NODE, release: str = RELEASE) -> int:
    found = desk.open(Opening(release, node, INVITATION, room, 100.0, 1000.0))
    assert found is not None
    return found


def test_a_device_gets_one_seat_and_one_invitation(desk: Desk) -> None:
    number = opened(desk)
    found = desk.next(name(1), 1, 50.0)
    assert found.asked is not None
    assert (found.asked.stage, found.asked.request, found.rounds) == ("join", INVITATION, {number})
    again = desk.next(name(1), 2, 50.0)
    assert again.asked == found.asked  # until it answers
    assert desk.tally(number, 0).free == 2


def test_a_letter_that_is_passed_over_does_not_hold_back_another(desk: Desk) -> None:
    """Any of two is offered: that one never comes in 60 times has a chance of 2^-59."""
    opened(desk, release=RELEASE)
    opened(desk, node=2, release="02" * 16)
    first = desk.next(name(1), 1, 50.0).asked
    assert first is not None
    reply = desk.answer(name(1), 2, first.letter, b"here")
    assert reply is not None
    second = desk.next(name(1), 3, 50.0).asked
    assert second is not None
    third = opened(desk, node=3, release="03" * 16)
    offered = {desk.next(name(1), stamp, 50.0).asked for stamp in range(4, 64)}
    assert second in offered
    assert third


def test_seats_end_with_the_room_and_with_the_window(desk: Desk) -> None:
    number = opened(desk, room=1)
    assert desk.next(name(1), 1, 99.0).asked is not None
    assert desk.next(name(2), 1, 99.0).asked is None
    opened(desk, node=2)
    assert desk.next(name(2), 2, 100.0).asked is None
    assert desk.collect(number, 0) == {0: b""}
    assert desk.next(name(3), 1, 101.0).asked is None


def test_nobody_sits_twice_for_a_release(desk: Desk) -> None:
    first, second = opened(desk, node=1), opened(desk, node=2)
    asked = desk.next(name(1), 1, 1.0).asked
    assert asked is not None
    assert desk.answer(name(1), 2, asked.letter, b"me") is Taken.NOW
    assert desk.next(name(1), 3, 1.0).asked is None
    assert desk.tally(first, 0).free + desk.tally(second, 0).free == 5
    other = opened(desk, node=1, release="cd" * 16)
    assert desk.next(name(1), 4, 1.0).rounds >= {other}


def test_a_round_of_a_node_begins_once(desk: Desk) -> None:
    number = opened(desk)
    assert desk.open(Opening(RELEASE, NODE, b"another", 9, 100.0, 1000.0)) is None
    assert opened(desk) == number  # who fell in the middle goes on
    desk.ask(number, 1, {}, b"", 1000.0)
    assert desk.open(Opening(RELEASE, NODE, INVITATION, 3, 100.0, 1000.0)) is None


def test_a_stage_is_begun_once_and_ends_as_often_as_it_is_asked(desk: Desk) -> None:
    """Whoever asks may lose the answer with the database, and ask again."""
    number = opened(desk)
    for device in (1, 2):
        asked = desk.next(name(device), 1, 1.0).asked
        assert asked is not None
    desk.answer(name(2), 2, asked.letter, b"here")
    assert desk.collect(number, 0) == desk.collect(number, 0) == {0: b"", 1: b"here"}
    for request in (b"first", b"second"):
        desk.ask(number, 1, {}, request, 1000.0)
    assert desk.tally(number, 1).asked == 2
    assert desk.tally(number, 0).asked == 0  # forgotten
    found = desk.next(name(1), 3, 1.0).asked
    assert found is not None
    assert found.request == b"first"


def test_an_answer_is_taken_once_and_only_from_whom_was_asked(desk: Desk) -> None:
    number = opened(desk)
    asked = desk.next(name(1), 1, 1.0).asked
    other = desk.next(name(2), 1, 1.0).asked
    assert asked is not None
    assert other is not None
    assert desk.answer(name(2), 2, asked.letter, b"stolen") is Taken.UNWANTED
    assert desk.answer(name(1), 2, asked.letter + 99, b"no letter") is Taken.UNWANTED
    assert desk.answer(name(1), 3, asked.letter, b"mine") is Taken.NOW
    assert desk.answer(name(1), 4, asked.letter, b"mine") is Taken.BEFORE
    assert desk.answer(name(1), 5, asked.letter, b"changed") is Taken.UNWANTED
    assert sorted(desk.collect(number, 0).values()) == [b"", b"mine"]
    assert desk.answer(name(1), 6, asked.letter, b"mine") is Taken.BEFORE
    assert desk.answer(name(2), 6, other.letter, b"late") is Taken.UNWANTED  # the stage is over
    desk.ask(number, 1, {}, b"", 1000.0)
    assert desk.answer(name(1), 7, asked.letter, b"mine") is Taken.UNWANTED


def test_a_stamp_is_used_once_and_they_rise(desk: Desk) -> None:
    desk.next(name(1), 5, 1.0)
    for stamp in (5, 4, 0):
        with pytest.raises(Replayed):
            desk.next(name(1), stamp, 1.0)
        with pytest.raises(Replayed):
            desk.answer(name(1), stamp, 1, b"x")
    desk.next(name(2), 1, 1.0)
    desk.next(name(1), 6, 1.0)


def test_later_stages_reach_the_seats_they_name(desk: Desk) -> None:
    number = opened(desk)
    seats = {}
    for device in (1, 2, 3):
        asked = desk.next(name(device), 1, 1.0).asked
        assert asked is not None
        desk.answer(name(device), 2, asked.letter, b"joined %d" % device)
    seats = {reply: slot for slot, reply in desk.collect(number, 0).items()}
    assert desk.find(RELEASE, NODE) == (number, 0)
    assert desk.find(RELEASE, 1) is None
    requests = {seats[b"joined 1"]: b"for one", seats[b"joined 3"]: b"for three", 77: b"nobody"}
    desk.ask(number, 1, requests, b"", 1000.0)
    one, two = desk.next(name(1), 3, 1.0).asked, desk.next(name(2), 3, 1.0).asked
    assert one is not None
    assert (one.stage, one.request, two) == ("shares", b"for one", None)
    assert desk.tally(number, 1).asked == 2
    desk.answer(name(1), 4, one.letter, b"reply")
    assert desk.collect(number, 1) == {seats[b"joined 1"]: b"reply", seats[b"joined 3"]: b""}
    desk.ask(number, 2, {}, b"for all", 1000.0)
    assert desk.tally(number, 2).asked == 3


def test_serials_rise_with_news_and_rounds_are_forgotten(desk: Desk) -> None:
    number = opened(desk)
    before = desk.pulse(1.0)[0]
    assert (before.round, before.free) == (number, 3)
    desk.collect(number, 0)
    desk.ask(number, 1, {}, b"", 1000.0)
    after = desk.pulse(1.0)[0]
    assert (after.serial > before.serial, after.free) == (True, 0)
    assert desk.sweep(999.0) == 0
    assert desk.sweep(1001.0) == 1
    assert desk.pulse(1.0) == []


def test_a_stage_that_begins_renews_the_round_and_one_that_goes_on_does_not(desk: Desk) -> None:
    number = opened(desk)
    desk.ask(number, 1, {}, b"", 5000.0)
    desk.ask(number, 1, {}, b"", 9000.0)
    assert (desk.sweep(4999.0), desk.sweep(5001.0)) == (0, 1)


def test_a_round_that_ended_is_not_kept_longer_however_often_it_ends(desk: Desk) -> None:
    number = opened(desk)
    for expires in (2000.0, 300.0, 600.0):
        desk.end(number, expires)
    assert (desk.sweep(299.0), desk.sweep(301.0)) == (0, 1)


def test_a_closed_round_leaves_nothing(desk: Desk, database: str) -> None:
    number = opened(desk)
    desk.next(name(1), 1, 1.0)
    desk.close(number)
    again, connected = desk_of(database)
    with connected.reading() as connection:
        for table in metadata.sorted_tables:
            if table.name != "gateway_stamps":
                assert connection.execute(table.select()).all() == []
    connected.close()
    assert again.next(name(1), 2, 1.0).rounds == frozenset()


def test_many_at_once_take_each_seat_and_each_answer_once(desk: Desk) -> None:
    """Eight threads, each with devices of its own and one device that all of them play."""
    number, threads = opened(desk, room=20), 8
    taken: list[Taken] = []
    start = threading.Barrier(threads)

    def come(thread: int) -> None:
        start.wait()
        for device in range(4):
            me = name(1 + thread * 10 + device)
            asked = desk.next(me, 1, 1.0).asked
            if asked is not None:
                taken.append(desk.answer(me, 2, asked.letter, me))
        shared = desk.again(name(999), 1.0) if thread % 2 else None
        if shared is not None and shared.asked is not None:
            taken.append(desk.answer(name(999), 100 + thread, shared.asked.letter, b"%d" % thread))

    workers = [threading.Thread(target=_quietly, args=(come, thread)) for thread in range(threads)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    replies = desk.collect(number, 0)
    assert len(replies) == 20
    given = [reply for reply in replies.values() if reply]
    assert len(given) == len(set(given)) == taken.count(Taken.NOW)


def _quietly(work: object, thread: int) -> None:
    """The shared device's stamps collide on purpose; a collision is a refusal, and that is all."""
    try:
        work(thread)  # type: ignore[operator]
    except (Replayed, BadInput):
        return


def test_migrations_build_the_declared_tables_both_ways(database: str) -> None:
    _, connected = desk_of(database)
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
        desk_of(str(tmp_path / "store.db"))
