"""Records the end of a run: exactly once, also if the store is unavailable for a moment. Records refusals."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from fa_core.database.connection import Unavailable
from fa_core.errors import BadInput, Refused, RoundFailed, UnheardError
from fa_core.plan import Plan, canonical
from fa_core.rounds.round import Clock
from fa_core.store import Store
from fa_core.values import Estimates, Release

logger = logging.getLogger(__name__)

STORE_SECONDS, PAUSE = 60.0, 1.0
"""Seconds for which an unavailable store is retried: it may be restarting, and the round is charged."""


def write_release(
    store: Store, clock: Clock, release: Release, estimates: Estimates, *, synthetic: bool
) -> None:
    """Write a release. Raises Unavailable, or Refused where the run had ended without it."""
    try:
        _retry(clock, lambda: store.save(release, estimates, synthetic=synthetic), STORE_SECONDS)
    except Refused:
        if not _released(store, release.id):
            raise


def write_failure(
    store: Store, clock: Clock, release: str, plan: Plan, population: str, error: BaseException, at: datetime
) -> RoundFailed | None:
    """Write that a run ended with `error`; return that as a RoundFailed (of a defect, its type alone).

    None where the store turns out to hold the release: the connection had broken after it was written.
    """
    failure = _failure(error)
    stage = str(getattr(getattr(error, "stage", None), "value", "release"))
    reason, waited = str(failure), isinstance(error, Unavailable)
    try:
        _retry(
            clock,
            lambda: store.fail(release, canonical(plan), population, stage, reason, at),
            0.0 if waited else STORE_SECONDS,
        )
    except Refused:  # it has ended: an earlier try succeeded, or an operator has written it off
        try:
            return None if _released(store, release) else failure
        except Unavailable as away:
            return _unknown(release, away)
    except UnheardError as away:
        if waited:
            return _unknown(release, away)
        return RoundFailed(f"{reason}, and the store has not recorded it yet: {away}")
    return failure


@contextmanager
def refusals_recorded(
    store: Store, release: str, plan: Plan, population: str, today: Callable[[], datetime]
) -> Iterator[None]:
    """Write to the store why a request is refused within this block, for those who review the ledger.

    Nothing was charged and no device asked, so the reason holds the plan's and the ledger's numbers only.
    """
    try:
        yield
    except Refused as refused:
        try:
            store.refuse(release, canonical(plan), population, str(refused), today())
        except UnheardError as error:
            logger.warning("the refusal could not be recorded: %s", error)
        raise


def _unknown(release: str, away: UnheardError) -> RoundFailed:
    return RoundFailed(f"the store is unavailable, and whether it has release {release} is unknown: {away}")


def _retry(clock: Clock, write: Callable[[], object], seconds: float) -> None:
    """Write; retry for `seconds` where the store is unavailable.

    A write may be done and its answer lost; then the next try is refused, as a run ends once.
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
    """Return an error as a RoundFailed: with its own text, or of a defect its type alone."""
    if isinstance(error, RoundFailed):
        return error
    if isinstance(error, UnheardError):
        return RoundFailed(f"{error}; nothing was released")
    return RoundFailed(f"the run broke off ({type(error).__name__}); nothing was released")
