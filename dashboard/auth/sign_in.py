"""Sign-in by password: how many tries are checked for an address and for a name, and how many at the same time.

A try is counted before its password is verified, so that tries that arrive together count as well as tries in turn;
one that succeeds is not counted. Verifying one takes argon2's memory, 64 MiB: AT_ONCE are verified at the same time,
WAITING more wait, and the rest are refused without being counted. So no more tries can be remembered than can be
verified within TRY_SECONDS.
"""

import time
from collections.abc import Callable
from typing import Protocol

import anyio.to_thread
from anyio import CapacityLimiter

from dashboard.auth.users import NAME, User

MOST_TRIES, TRY_SECONDS = 5, 60.0
"""Failed tries of one address, and failed tries under one name, within so many seconds."""

AT_ONCE, WAITING = 2, 20

Key = tuple[str, str]


class TooMany(Exception):
    """A try that is refused unchecked. The text is a sentence for who signs in."""


class Checks(Protocol):
    """What verifies a password."""

    def check(self, name: str, password: str) -> User | None:
        """Return the user, None for a wrong name or password."""


class SignIns:
    """Verifies the passwords of those who sign in, within the limits above. For one event loop."""

    def __init__(self, passwords: Checks, clock: Callable[[], float] = time.monotonic) -> None:
        self._passwords, self._clock = passwords, clock
        self._tries: dict[Key, list[float]] = {}
        self._entered = 0
        self._verifying = CapacityLimiter(AT_ONCE)

    async def check(self, address: str, name: str, password: str) -> User | None:
        """Return the user, None for a wrong name or password. Raises TooMany where a limit is reached.

        Whether a name is in the password file changes nothing. What cannot be a name is counted as one name.
        """
        if self._entered >= AT_ONCE + WAITING:
            raise TooMany("Too many people are signing in. Try again in a few seconds.")
        keys = (("address", address), ("name", name if NAME.fullmatch(name) else ""))
        counted = self._count(keys)
        self._entered += 1
        try:
            user = await anyio.to_thread.run_sync(
                self._passwords.check, name, password, limiter=self._verifying
            )
        finally:
            self._entered -= 1
        if user is not None:
            self._forget(keys, counted)
        return user

    def _count(self, keys: tuple[Key, ...]) -> float:
        """Count a try under each key and return its time. Raises TooMany where one has had MOST_TRIES."""
        now = self._clock()
        recent = {key: [at for at in times if at > now - TRY_SECONDS] for key, times in self._tries.items()}
        self._tries = {key: times for key, times in recent.items() if times}
        if any(len(self._tries.get(key, ())) >= MOST_TRIES for key in keys):
            raise TooMany("Too many failed sign-ins. Wait a minute, then try again.")
        for key in keys:
            self._tries.setdefault(key, []).append(now)
        return now

    def _forget(self, keys: tuple[Key, ...], counted: float) -> None:
        for key in keys:
            times = self._tries.get(key, [])
            if counted in times:
                times.remove(counted)
