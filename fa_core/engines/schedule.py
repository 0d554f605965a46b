"""Which plans are due: once in each day, week or month (UTC), by what the store says was asked already.

A plan is due once in each period, whenever in it the timer fires, so a release never drifts to a later day. A
round that failed counts as asked, and so does a collection that is open: its charge stands, and asking again
could use up the budget in a night.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from fa_core.errors import BadInput
from fa_core.plan import Plan, load
from fa_core.store import Query, Store

State = Literal["due", "asked", "expired", "wrong"]
MOST_FAILURES = 1000


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A plan with a schedule, or one that cannot be read.

    Attributes:
        plan: name and revision, "" where it cannot be read.
        last: when it was last asked, whatever came of it; None for never.
        next: the beginning of the next period, None where it is not asked again.
        problem: why it cannot be read; "" where it can.
    """

    file: Path
    plan: str
    schedule: str
    state: State
    last: datetime | None
    next: datetime | None
    problem: str = ""


def scheduled(files: Iterable[Path], store: Store | None, now: datetime) -> list[Scheduled]:
    """Return the plans that have a schedule, or are wrong. `store` is None before the first run."""
    asked = _last_asked(store)
    return [found for file in files if (found := _scheduled(file, store, asked, now)) is not None]


def _scheduled(
    file: Path, store: Store | None, charged: dict[str, datetime], now: datetime
) -> Scheduled | None:
    try:
        plan = load(file, today=now.date().min)
    except BadInput as error:
        return Scheduled(file, "", "", "wrong", None, None, str(error))
    if plan.metadata.schedule is None:
        return None
    name, schedule = plan.metadata.name, plan.metadata.schedule
    moments = [charged[name]] if name in charged else []
    if store is not None:
        moments += [entry.created for entry in store.releases(Query(plan=name), limit=1)]
    last = max(moments, default=None)
    if plan.metadata.expires < now.date():
        return Scheduled(file, plan.name, schedule, "expired", last, None)
    start = period_start(schedule, now)
    state: State = "due" if last is None or last < start else "asked"
    return Scheduled(file, plan.name, schedule, state, last, _next(plan, start))


def _next(plan: Plan, start: datetime) -> datetime | None:
    """Return when the period after that from `start` begins, None where the plan has expired then."""
    schedule = plan.metadata.schedule
    assert schedule is not None
    after = period_start(
        schedule, start + {"daily": 1, "weekly": 7, "monthly": 31}[schedule] * timedelta(days=1)
    )
    return after if after.date() <= plan.metadata.expires else None


def period_start(schedule: str, at: datetime) -> datetime:
    """Return the beginning of the day, of the week (Monday) or of the month that a moment is in.

    >>> from datetime import UTC
    >>> period_start("weekly", datetime(2026, 11, 28, 18, tzinfo=UTC)).date().isoformat()
    '2026-11-23'
    """
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if schedule == "daily":
        return day
    return day - timedelta(days=day.weekday() if schedule == "weekly" else day.day - 1)


def _last_asked(store: Store | None) -> dict[str, datetime]:
    """Return when each plan was last charged, or its round failed."""
    if store is None:
        return {}
    found = [(each.plan, each.at) for each in store.failures(MOST_FAILURES)]
    found += [(each.family, each.at) for name in store.populations() for each in store.charges(name)]
    return {name: max(at for each, at in found if each == name) for name, _ in found}
