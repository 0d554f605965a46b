"""The notifier of one worker: wakes waiting requests when the database has a message for their device.

A worker reads the list of rounds (a handful of rows) a few times a second. It wakes the devices of a round
whose serial rose, and as many other waiting devices as there are free slots. A device may have joined rounds
of other releases too, and one that was abandoned and not yet deleted.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fa_core.gateway.queue import RoundStatus


class Waiter:
    """One waiting request. `looking` is true while its own query of the database is under way."""

    __slots__ = ("event", "looking", "rounds")

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.looking = True
        self.rounds: frozenset[int] = frozenset()

    def joined(self, rounds: frozenset[int]) -> None:
        """Set the rounds that the device has joined: only changes of these, or free slots, wake it."""
        self.rounds, self.looking = rounds, False

    async def news(self, seconds: float) -> bool:
        """Wait at most `seconds` until something may be new; return whether it may."""
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await self.event.wait()
        except TimeoutError:
            return False
        self.event.clear()
        self.looking = True
        return True


class Notifier:
    """The waiting requests of this worker, and the number of free slots when it last read them (`free`).

    Used in the worker's event loop alone.
    """

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}
        self._serials: dict[int, int] = {}
        self.free = 0

    def __len__(self) -> int:
        return len(self._waiters)

    @contextmanager
    def waiting(self) -> Iterator[Waiter]:
        """Yield a waiter. Make it before the first query, so that no change falls between query and wait."""
        waiter = Waiter()
        self._waiters[waiter] = None
        try:
            yield waiter
        finally:
            del self._waiters[waiter]

    def notify(self, statuses: Iterable[RoundStatus]) -> None:
        """Wake the waiters that a change of the rounds concerns, given every round's status."""
        now = {status.round: status for status in statuses}
        risen = {number for number, status in now.items() if self._serials.get(number) != status.serial}
        self._serials = {number: status.serial for number, status in now.items()}
        releases = _joinable(now.values())
        self.free = sum(each.free for each in releases)
        if not risen and not releases:
            return
        for waiter in self._waiters:
            if waiter.event.is_set():
                continue
            if (waiter.looking and risen) or not risen.isdisjoint(waiter.rounds):
                waiter.event.set()
            elif not waiter.looking:
                _offer(waiter, releases)


class _FreeSlots:
    """The free slots of a release, and its rounds: a device that joined one of these gets no other slot."""

    __slots__ = ("free", "rounds")

    def __init__(self) -> None:
        self.free = 0
        self.rounds: set[int] = set()


def _joinable(statuses: Iterable[RoundStatus]) -> list[_FreeSlots]:
    """Return the releases that devices may join now."""
    found: dict[str, _FreeSlots] = {}
    for status in statuses:
        release = found.setdefault(status.release, _FreeSlots())
        release.free += status.free
        release.rounds.add(status.round)
    return [each for each in found.values() if each.free]


def _offer(waiter: Waiter, releases: Iterable[_FreeSlots]) -> None:
    """Wake a waiter for a free slot that it may take, and count that slot as taken."""
    for release in releases:
        if release.free and release.rounds.isdisjoint(waiter.rounds):
            release.free -= 1
            waiter.event.set()
            return
