"""The bell of one worker: wakes those requests that wait for news, when the database has some for them.

A worker looks at the list of rounds a few times a second, which is a handful of rows, and wakes who sits in a
round whose serial rose. Of those who could take a free seat it wakes as many as there are: a device may sit
in rounds of other releases, and in one that was given up and not yet forgotten.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fa_core.gateway.queue import Beat


class Waiter:
    """One request that waits. `looking` while its own look at the database is under way."""

    __slots__ = ("event", "looking", "rounds")

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.looking = True
        self.rounds: frozenset[int] = frozenset()

    def sits(self, rounds: frozenset[int]) -> None:
        """Say which rounds the device was found to sit in: only news of these wake it, and free seats."""
        self.rounds, self.looking = rounds, False

    async def news(self, seconds: float) -> bool:
        """Wait until something may be new, for so long; return whether it is."""
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await self.event.wait()
        except TimeoutError:
            return False
        self.event.clear()
        self.looking = True
        return True


class Bell:
    """Everybody who waits at this worker, and the free seats there were at the last look (`free`).

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
        """Yield a waiter, to be made before the first look so that no news falls between look and wait."""
        waiter = Waiter()
        self._waiters[waiter] = None
        try:
            yield waiter
        finally:
            del self._waiters[waiter]

    def ring(self, beats: Iterable[Beat]) -> None:
        """Wake whom the rounds, as they are now, have news for."""
        now = {beat.round: beat for beat in beats}
        risen = {number for number, beat in now.items() if self._serials.get(number) != beat.serial}
        self._serials = {number: beat.serial for number, beat in now.items()}
        openings = _openings(now.values())
        self.free = sum(each.free for each in openings)
        if not risen and not openings:
            return
        for waiter in self._waiters:
            if waiter.event.is_set():
                continue
            if (waiter.looking and risen) or not risen.isdisjoint(waiter.rounds):
                waiter.event.set()
            elif not waiter.looking:
                _offer(waiter, openings)


class _Opening:
    """The free seats of a release, and the rounds of it: who sits in one of these gets no other."""

    __slots__ = ("free", "rounds")

    def __init__(self) -> None:
        self.free = 0
        self.rounds: set[int] = set()


def _openings(beats: Iterable[Beat]) -> list[_Opening]:
    """Return the releases that devices may join now."""
    found: dict[str, _Opening] = {}
    for beat in beats:
        opening = found.setdefault(beat.release, _Opening())
        opening.free += beat.free
        opening.rounds.add(beat.round)
    return [each for each in found.values() if each.free]


def _offer(waiter: Waiter, openings: Iterable[_Opening]) -> None:
    """Wake a waiter for a free seat that it may take, and count the seat as gone."""
    for opening in openings:
        if opening.free and opening.rounds.isdisjoint(waiter.rounds):
            opening.free -= 1
            waiter.event.set()
            return
