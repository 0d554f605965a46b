"""Which requests the notifier wakes: of changed rounds, those still looking, and one for each free slot."""

import asyncio

from fa_core.gateway.notifier import Notifier, Waiter
from fa_core.gateway.queue import RoundStatus


def woken(notifier: Notifier, statuses: list[RoundStatus], waiters: list[Waiter]) -> list[bool]:
    notifier.notify(statuses)
    return [waiter.event.is_set() for waiter in waiters]


def test_a_change_of_a_round_wakes_its_devices_and_no_others() -> None:
    notifier = Notifier()
    with notifier.waiting() as one, notifier.waiting() as two:
        one.joined(frozenset({1}))
        two.joined(frozenset({2}))
        assert woken(notifier, [RoundStatus(1, "r1", 0, 0), RoundStatus(2, "r2", 0, 0)], [one, two]) == [
            True,
            True,
        ]
        one.event.clear(), two.event.clear()
        assert woken(notifier, [RoundStatus(1, "r1", 0, 0), RoundStatus(2, "r2", 0, 0)], [one, two]) == [
            False,
            False,
        ]
        assert woken(notifier, [RoundStatus(1, "r1", 1, 0), RoundStatus(2, "r2", 0, 0)], [one, two]) == [
            True,
            False,
        ]


def test_a_change_during_a_query_is_not_lost() -> None:
    notifier = Notifier()
    with notifier.waiting() as looking:
        assert woken(notifier, [RoundStatus(7, "r7", 3, 0)], [looking]) == [True]


def test_free_slots_wake_no_more_requests_than_there_are_slots() -> None:
    notifier = Notifier()
    with notifier.waiting() as one, notifier.waiting() as two, notifier.waiting() as three:
        for each in (one, two, three):
            each.joined(frozenset())
        assert sum(woken(notifier, [RoundStatus(1, "r1", 0, 2)], [one, two, three])) == 2
    assert len(notifier) == 0


def test_a_device_of_an_abandoned_round_is_offered_a_slot_of_another_release() -> None:
    notifier = Notifier()
    abandoned, joining, full = (
        RoundStatus(1, "old", 3, 0),
        RoundStatus(2, "new", 0, 1),
        RoundStatus(3, "new", 0, 0),
    )
    notifier.notify([abandoned, joining, full])
    with notifier.waiting() as elsewhere, notifier.waiting() as member:
        elsewhere.joined(frozenset({1}))
        member.joined(frozenset({3}))  # of the same release, behind another node
        assert woken(notifier, [abandoned, joining, full], [elsewhere, member]) == [True, False]


def test_waiting_ends_with_a_change_or_with_the_time() -> None:
    async def wait() -> tuple[bool, bool]:
        waiter = Waiter()
        waiter.event.set()
        return await waiter.news(10.0), await waiter.news(0.0)

    assert asyncio.run(wait()) == (True, False)
