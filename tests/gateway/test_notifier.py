"""Whom the bell wakes: those with news, those who are still looking, and as many as there are free seats."""

import asyncio

from fa_core.gateway.notifier import Bell, Waiter
from fa_core.gateway.queue import Beat


def woken(bell: Bell, beats: list[Beat], waiters: list[Waiter]) -> list[bool]:
    bell.ring(beats)
    return [waiter.event.is_set() for waiter in waiters]


def test_who_sits_in_a_round_hears_its_news_and_nobody_elses() -> None:
    bell = Bell()
    with bell.waiting() as one, bell.waiting() as two:
        one.sits(frozenset({1}))
        two.sits(frozenset({2}))
        assert woken(bell, [Beat(1, "r1", 0, 0), Beat(2, "r2", 0, 0)], [one, two]) == [True, True]
        one.event.clear(), two.event.clear()
        assert woken(bell, [Beat(1, "r1", 0, 0), Beat(2, "r2", 0, 0)], [one, two]) == [False, False]
        assert woken(bell, [Beat(1, "r1", 1, 0), Beat(2, "r2", 0, 0)], [one, two]) == [True, False]


def test_news_while_somebody_looks_are_not_lost() -> None:
    bell = Bell()
    with bell.waiting() as looking:
        assert woken(bell, [Beat(7, "r7", 3, 0)], [looking]) == [True]


def test_free_seats_wake_no_more_than_they_are() -> None:
    bell = Bell()
    with bell.waiting() as one, bell.waiting() as two, bell.waiting() as three:
        for each in (one, two, three):
            each.sits(frozenset())
        assert sum(woken(bell, [Beat(1, "r1", 0, 2)], [one, two, three])) == 2
    assert len(bell) == 0


def test_who_sits_in_a_round_that_was_given_up_is_offered_a_seat_of_another_release() -> None:
    bell = Bell()
    abandoned, joining, full = Beat(1, "old", 3, 0), Beat(2, "new", 0, 1), Beat(3, "new", 0, 0)
    bell.ring([abandoned, joining, full])
    with bell.waiting() as elsewhere, bell.waiting() as seated:
        elsewhere.sits(frozenset({1}))
        seated.sits(frozenset({3}))  # of the same release, behind another node
        assert woken(bell, [abandoned, joining, full], [elsewhere, seated]) == [True, False]


def test_waiting_ends_with_news_or_with_time() -> None:
    async def wait() -> tuple[bool, bool]:
        waiter = Waiter()
        waiter.event.set()
        return await waiter.news(10.0), await waiter.news(0.0)

    assert asyncio.run(wait()) == (True, False)
