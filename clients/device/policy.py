"""May a plan run on this device now? Declared rules, an injected clock, and a reader of conditions.

What is not known counts as false: a device that does not know whether it is charging is not charging
(docs/device.md; the same rule as federated-compute's eligibility decider).
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, time, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Literal, Protocol
from zoneinfo import ZoneInfo

from clients.device.interface import Reason
from fa_core.plan import Plan, TrainPlan
from fa_core.privacy.ledger import show
from fa_core.values import Layout

Requirement = Literal["unmetered_network", "charging", "idle"]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the device knows of itself; None is unknown."""

    unmetered_network: bool | None = None
    charging: bool | None = None
    idle: bool | None = None
    speaking: bool | None = None


class ConditionReader(Protocol):
    """Reads the conditions of the moment. A reader that cannot find out says None, and does not raise."""

    def __call__(self, now: datetime) -> Conditions:
        """Return the conditions at `now` (UTC)."""
        ...


@dataclass(frozen=True, slots=True)
class FileReader:
    """Reads conditions from a JSON file that the device's system service keeps up to date.

    The file is an object with `at` (ISO 8601, UTC) and any of the conditions as true or false. A file
    that is missing, malformed, older than `max_age` or from the future says nothing.
    """

    path: Path
    max_age: timedelta = timedelta(minutes=2)

    def __call__(self, now: datetime) -> Conditions:
        """Return what the file says at `now`, unknown where it says nothing."""
        try:
            said = json.loads(self.path.read_bytes())
            at = datetime.fromisoformat(said["at"])
            fresh = timedelta(0) <= now - at <= self.max_age
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return Conditions()
        if not fresh:
            return Conditions()
        known = {each.name: said.get(each.name) for each in fields(Conditions)}
        return Conditions(**{name: value for name, value in known.items() if isinstance(value, bool)})


def nothing_known(now: datetime) -> Conditions:
    """The reader of a device that has no way to find out: everything is unknown, so no plan runs."""
    return Conditions()


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A daily interval of local time in which nothing runs; it may cross midnight. Equal ends: never."""

    start: time
    end: time
    zone: str = "UTC"

    def covers(self, now: datetime) -> bool:
        """Return whether `now` falls into the quiet hours."""
        at = now.astimezone(ZoneInfo(self.zone)).time()
        if self.start <= self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end


@dataclass(frozen=True, slots=True)
class Policy:
    """The owner's rules for when plans may run, and how much they may ask.

    Attributes:
        require: conditions that every plan needs, beside those that it asks for itself.
        quiet: hours in which nothing runs.
        plans_a_day, time_a_day: at most so many contributions, and so much running time, in 24 hours.
        max_epsilon, max_delta, max_cells: the most that one plan may ask.
        min_cohort: the smallest cohort that a plan may release.
        central_noise: whether the device trusts a server to add the noise to the sum. Two plans over one
            window that differ in one device would give its exact counts to that server.
        single_vectors: whether a plan without secure aggregation may run; the server then sees this
            device's counts.
        min_corrupt, max_dropout: the smallest share of dishonest devices that a plan must tolerate, and the
            largest share of missing ones that it may: both decide how much noise is certain.
            Neither is asked of plans that two aggregators sum.
        min_kappa: of those, the least variance of the leader's noise as a share of the helper's: the helper,
            who knows its own noise, faces rho/kappa.
        training_epsilon, training_rounds_a_week: the most that a training plan may ask, and how many of them
            the device answers in seven days. Consent to personalisation allows one; 0 allows none.
        reply_after: a reply leaves this long after its request, or a whole multiple where it takes longer, so
            that how long the device worked does not show. 0 in simulations and labs alone.
    """

    require: frozenset[Requirement] = frozenset()
    quiet: QuietHours = field(default=QuietHours(time(0), time(0)))
    plans_a_day: int = 4
    time_a_day: timedelta = timedelta(minutes=10)
    max_epsilon: Fraction = Fraction(2)
    max_delta: Fraction = Fraction(1, 10**6)
    max_cells: int = 50_000
    min_cohort: int = 50
    central_noise: bool = False
    single_vectors: bool = False
    min_corrupt: Fraction = Fraction(1, 20)
    max_dropout: Fraction = Fraction(1, 2)
    min_kappa: Fraction = Fraction(1, 4)
    reply_after: timedelta = timedelta(seconds=2)
    training_epsilon: Fraction = Fraction(4)
    training_rounds_a_week: int = 1


@dataclass(frozen=True, slots=True)
class Asks:
    """What a plan asks of a device, in the policy's terms. `kappa` is None where devices form the sum."""

    require: frozenset[str]
    epsilon: Fraction
    delta: Fraction
    cells: int
    min_cohort: int
    central_noise: bool
    single_vectors: bool
    corrupt: Fraction
    dropout: Fraction
    kappa: Fraction | None = None
    training: bool = False


def asks_of(plan: Plan, layout: Layout) -> Asks:
    """Return what a plan asks of a device."""
    privacy = plan.privacy
    return Asks(
        require=frozenset(plan.eligibility.require),
        epsilon=layout.epsilon,
        delta=layout.delta,
        cells=layout.length,
        min_cohort=privacy.min_cohort,
        central_noise=layout.noise == "central",
        single_vectors=not privacy.secure_aggregation,
        corrupt=privacy.corrupt,
        dropout=privacy.dropout,
        kappa=privacy.kappa,
        training=isinstance(plan, TrainPlan),
    )


@dataclass(frozen=True, slots=True)
class Past:
    """When this device contributed before, and for how long each took."""

    at: datetime
    took: timedelta


def refusal(
    policy: Policy, asks: Asks, conditions: Conditions, past: Iterable[Past], now: datetime
) -> Reason | None:
    """Return why the plan may not run now, or None if it may."""
    if any(over_limits(policy, asks)):
        return Reason.LIMITS
    if policy.quiet.covers(now):
        return Reason.QUIET_HOURS
    if conditions.speaking is not False:
        return Reason.SPEAKING
    if not all(getattr(conditions, name, None) is True for name in policy.require | asks.require):
        return Reason.CONDITIONS
    return Reason.DAILY_LIMIT if used_up(policy, past, now) else None


def used_up(policy: Policy, past: Iterable[Past], now: datetime) -> bool:
    """Return whether the plans or the running time of the last 24 hours leave no room for another plan."""
    today = [run for run in past if run.at > now - timedelta(days=1)]
    return (
        len(today) >= policy.plans_a_day
        or sum((run.took for run in today), timedelta(0)) >= policy.time_a_day
    )


def trained_enough(policy: Policy, trainings: Iterable[datetime], now: datetime) -> bool:
    """Return whether the training plans that the device answered in the last seven days are all it may."""
    return sum(at > now - timedelta(days=7) for at in trainings) >= policy.training_rounds_a_week


def over_limits(policy: Policy, asks: Asks) -> Iterator[str]:
    """Yield what a plan asks for beyond what the policy grants any plan, in words."""
    most = policy.training_epsilon if asks.training else policy.max_epsilon
    if asks.epsilon > most:
        yield f"epsilon {show(asks.epsilon)} is over {show(most)}"
    if asks.training and not policy.training_rounds_a_week:
        yield "this device takes no part in training"
    if asks.delta > policy.max_delta:
        yield f"delta {show(asks.delta)} is over {show(policy.max_delta)}"
    if asks.cells > policy.max_cells:
        yield f"{asks.cells:,} cells are over {policy.max_cells:,}"
    if asks.min_cohort < policy.min_cohort:
        yield f"min_cohort {asks.min_cohort} is under {policy.min_cohort}"
    if asks.central_noise and not policy.central_noise:
        yield "with central noise the server sees the exact sum"
    if asks.single_vectors and not policy.single_vectors:
        yield "without secure aggregation the server sees the device's own counts"
    if asks.kappa is not None and asks.kappa < policy.min_kappa:
        yield f"kappa {show(asks.kappa)} is under {show(policy.min_kappa)}"
    # Of aggregators' noise, nobody who drops out or works with one of them takes anything away.
    if asks.kappa is None and asks.corrupt < policy.min_corrupt:
        yield f"corrupt {show(asks.corrupt)} is under {show(policy.min_corrupt)}"
    if asks.kappa is None and asks.dropout > policy.max_dropout:
        yield f"dropout {show(asks.dropout)} is over {show(policy.max_dropout)}"


def utc_now() -> datetime:
    """Return the device's clock, UTC: the one place that reads it."""
    return datetime.now(UTC)
