"""How a run's end is written down: once, also where the store is away for a moment when it comes."""

from collections.abc import Callable
from datetime import datetime

from fa_core.database.connection import Unavailable
from fa_core.errors import BadInput, Refused, RoundFailed, UnheardError
from fa_core.plan import Plan, canonical
from fa_core.rounds.round import Clock
from fa_core.store import Store
from fa_core.values import Estimates, Release

STORE_SECONDS, PAUSE = 60.0, 1.0
"""Seconds for which a store that is away is asked again: it may be restarting, and the round is paid for."""


def write_release(
    store: Store, clock: Clock, release: Release, estimates: Estimates, *, synthetic: bool
) -> None:
    """Write a release. Raises Unavailable where the store stays away, Refused where the run had ended."""
    try:
        _patiently(clock, lambda: store.save(release, estimates, synthetic=synthetic), STORE_SECONDS)
    except Refused:
        if not _released(store, release.id):
            raise


def write_failure(
    store: Store, clock: Clock, release: str, plan: Plan, population: str, error: BaseException, at: datetime
) -> RoundFailed | None:
    """Write that a run ended with `error`; return how that is told (of a defect, its kind alone), or None
    where the store turns out to hold the release: it had gone away as it took it."""
    failure = _failure(error)
    stage = str(getattr(getattr(error, "stage", None), "value", "release"))
    reason, waited = str(failure), isinstance(error, Unavailable)
    try:
        _patiently(
            clock,
            lambda: store.fail(release, canonical(plan), population, stage, reason, at),
            0.0 if waited else STORE_SECONDS,
        )
    except Refused:  # it has ended: a try before this one got through, or an operator has written it off
        try:
            return None if _released(store, release) else failure
        except Unavailable as away:
            return _unknown(release, away)
    except UnheardError as away:
        if waited:
            return _unknown(release, away)
        return RoundFailed(f"{reason}, and the store does not know it yet: {away}")
    return failure


def _unknown(release: str, away: UnheardError) -> RoundFailed:
    return RoundFailed(f"the store went away, and whether it has release {release} is not known: {away}")


def _patiently(clock: Clock, write: Callable[[], object], seconds: float) -> None:
    """Write, again and again for so many seconds where the store is away.

    It may go away with the write done and its answer lost; then the next try is refused, as a run ends once.
    """
    end = clock.now() + seconds
    while True:
        try:
            write()
            return
        except Unavailable:
            if clock.now() >= end:
                raise
        clock.sleep(PAUSE)


def _released(store: Store, release: str) -> bool:
    try:
        return store.find(release).id == release
    except BadInput:
        return False


def _failure(error: BaseException) -> RoundFailed:
    """Return how a round's end is told: in its own words, or for a defect by its kind alone."""
    if isinstance(error, RoundFailed):
        return error
    if isinstance(error, UnheardError):
        return RoundFailed(f"{error}; nothing was released")
    return RoundFailed(f"the run broke off ({type(error).__name__}); nothing was released")
