"""What a device with the default budget and policy would do with a plan, before anybody is asked. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from clients.device.odometer import SKEW, Budget, Charge, Moment, affords
from clients.device.policy import Policy, asks_of, over_limits
from clients.device.receipt import cost
from fa_core.plan import Plan, TrainPlan, window_text
from fa_core.values import Layout


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a default device whose owner consents would do with a plan that is run once in each window.

    Attributes:
        declined: each limit that the plan is over, in words; it is answered only where there is none.
        releases: how many in a row are looked at. With more, what was spent on the first is free again.
        zeros: to how many of them the device would add zeros, because its budget is used up.
    """

    declined: tuple[str, ...]
    releases: int
    zeros: int


def forecast(plan: Plan, layout: Layout, now: datetime) -> Forecast:
    """Return what a default device would do with a plan, run once a window from `now` (UTC) until it expires.

    The device's budget is taken to be unspent at first, and nothing else to draw on it.
    """
    budget, charges, zeros = Budget().of(training=isinstance(plan, TrainPlan)), list[Charge](), 0
    expires = datetime.combine(plan.metadata.expires, time(0), UTC) + timedelta(days=1)
    within = min(budget.window + SKEW, max(expires - now, timedelta(microseconds=1)))
    releases = -(-within // plan.window)
    for at in (now + number * plan.window for number in range(releases)):
        if affords(charges, cost(layout), Moment(at, at, at, SKEW), budget):
            charges.append(Charge(cost(layout), at))
        else:
            zeros += 1
    return Forecast(tuple(over_limits(Policy(), asks_of(plan, layout))), releases, zeros)


def sentences(plan: Plan, found: Forecast) -> Iterator[str]:
    """Yield what a device with the default budget and policy does with the plan, a sentence each."""
    if plan.privacy.sum == "two_aggregators":
        yield "Only devices whose settings pin the helper's key answer it."
    if found.declined:
        yield f"A device with the default policy declines it: {'; '.join(found.declined)}."
    often = f"Run once a window ({window_text(plan.window)})"
    if found.zeros:
        yield (
            f"{often}, it uses up a device's default budget: "
            f"of {found.releases} releases in a row it would add zeros to {found.zeros}."
        )
    elif not found.declined:
        yield f"{often}, a device with the default policy and budget answers every release with its counts."
