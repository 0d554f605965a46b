"""The gate of a rollout: after each planned look, expand, hold or roll back. Pure, with no file and no clock.

The mathematics is in `sequential`. What follows from it:

- **Roll back** where some group's miss rate has risen significantly by more than `rollback_above`: Z_k(r) ≥
  b_k, one-sided at α/m over the m groups together. It is for good, whatever later looks say.
- **Expand** once every group has at some look risen significantly by less than `ship_below`, Z_k(g) ≤ −c_k,
  and everyone by less than `overall_below`, one-sided at α. That some group is over its margin is an
  intersection-union hypothesis, so each is tested at plain α (Berger 1982).
- **Hold** otherwise. A group that was not measured holds. Where both hold, it is rolled back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isnan, prod
from statistics import NormalDist
from typing import Final

from fa_core.arrays import BoolArray, np
from fa_core.errors import Refused
from fa_core.rollout.sequential import OVERALL, Progress, Sums, margins_of, progress
from fa_core.rollout.sequential import Cell as Cell
from fa_core.rollout.sequential import Design as Design
from fa_core.rollout.sequential import Look as Look


class Verdict(StrEnum):
    """What a look comes to."""

    EXPAND = "expand"
    HOLD = "hold"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class GroupState:
    """Where one group stands after a look. Rates are differences of miss rates; None where not measured, and
    for the rollback of everyone together, which is not tested.

    Attributes:
        estimate_low, estimate_high: (T − U)/(n + U) and T/n over the looks so far: the truth is between them
            but for noise and sampling.
        interval_low, interval_high: one-sided bounds that hold at all looks together: the lower one at α/m
            (α for everyone), the upper one at α (repeated confidence intervals; Jennison & Turnbull 1989).
        information: I_k of the upper estimate, in 1/rate².
        fraction: t, of which α·t² is spent.
        z_rollback, boundary_rollback: Z_k(r) and b_k, in this look; infinite where nothing could be spent.
        z_ship, boundary_ship: Z_k(g) and −c_k; the same.
        shipped: whether it has been under its margin at some look.
        reason: a sentence.
    """

    group: str
    estimate_low: float | None
    estimate_high: float | None
    interval_low: float | None
    interval_high: float | None
    information: float | None
    fraction: float
    z_rollback: float | None
    boundary_rollback: float | None
    z_ship: float | None
    boundary_ship: float | None
    shipped: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What a look comes to, with all that led to it. `look` counts from 1."""

    verdict: Verdict
    look: int
    groups: tuple[GroupState, ...]
    overall: GroupState
    why: str


def decide(design: Design, looks: Sequence[Look | None]) -> Decision:
    """Return the decision after the last of `looks`.

    Args:
        design: of the signed document.
        looks: all planned looks so far, in order; None for one that did not take place or gave no release.

    Raises ValueError for no look, or for more than were planned.
    """
    if not 1 <= len(looks) <= design.looks:
        raise ValueError(f"expected 1 to {design.looks} looks, found {len(looks)}")
    found = progress(design, Sums.of([_row(design, look) for look in looks]))
    *groups, overall = (_state(design, name, found, at) for at, name in enumerate((*design.groups, OVERALL)))
    back, ships = outcomes(found)
    verdict = Verdict.ROLL_BACK if back[-1] else Verdict.EXPAND if ships[-1] else Verdict.HOLD
    return Decision(verdict, len(looks), tuple(groups), overall, _why(design, verdict, groups, overall))


def _row(design: Design, look: Look | None) -> list[Cell | None]:
    """Return the cells of a look in the order of the design's groups, everyone last."""
    if look is None:
        return [None] * (len(design.groups) + 1)
    return [*(look.groups.get(name) for name in design.groups), look.overall]


def outcomes(found: Progress) -> tuple[BoolArray, BoolArray]:
    """Return whether each look rolls back, and whether it expands, both (looks, …)."""
    back = np.asarray(found.rolled_back.any(axis=-1))
    return back, np.asarray(found.shipped.all(axis=-1) & ~back)


def _state(design: Design, name: str, found: Progress, at: int) -> GroupState:
    """Return where the group at a place stands after the last look."""

    def last(values: object) -> float | None:
        number = float(np.asarray(values)[-1, at])
        return None if isnan(number) or np.isinf(number) else number

    low, high, overall = found.low, found.high, name == OVERALL
    margin = design.overall_below if overall else design.ship_below
    return GroupState(
        group=name,
        estimate_low=last(low.estimate),
        estimate_high=last(high.estimate),
        interval_low=last(found.lower),
        interval_high=last(found.upper),
        information=last(high.information),
        fraction=float(high.fraction[-1, at]),
        z_rollback=None if overall else last(low.z(design.rollback_above)),
        boundary_rollback=None if overall else last(low.boundary),
        z_ship=last(high.z(margin)),
        boundary_ship=last(-high.boundary),
        shipped=bool(found.shipped[-1, at]),
        reason=_reason(design, found, at, margin),
    )


def _reason(design: Design, found: Progress, at: int, margin: float) -> str:
    """Return in a sentence where a group stands."""
    if isnan(found.high.estimate[-1, at]):
        return "not measured in any look"
    lower, upper = float(found.lower[-1, at]), float(found.upper[-1, at])
    if at < len(design.groups) and found.rolled_back[-1, at]:
        return f"significantly more than {points(design.rollback_above)} worse: by {points(lower)} at least"
    if found.shipped[-1, at]:
        return f"significantly less than {points(margin)} worse: by {points(upper)} at most"
    return f"not enough evidence: between {points(lower)} and {points(upper)} worse"


def points(rate: float) -> str:
    """Return a difference of rates in percentage points.

    >>> points(0.0123), points(-0.01), points(float("inf"))
    ('1.2 points', '−1.0 points', 'any number of points')
    """
    return f"{100 * rate:.1f} points".replace("-", "−") if abs(rate) < 1.0 else "any number of points"


def _why(design: Design, verdict: Verdict, groups: Sequence[GroupState], overall: GroupState) -> str:
    """Return in a sentence what decided."""
    if verdict is Verdict.EXPAND:
        return (
            f"every group is significantly less than {points(design.ship_below)} worse, and everyone less "
            f"than {points(design.overall_below)}"
        )
    if verdict is Verdict.ROLL_BACK:
        back = [g for g in groups if g.interval_low is not None and g.interval_low >= design.rollback_above]
        return "; ".join(f"{each.group} is {each.reason}" for each in back)
    waiting = [each for each in (*groups, overall) if not each.shipped]
    return "; ".join(f"{each.group}: {each.reason}" for each in waiting)


@dataclass(frozen=True, slots=True)
class LiveMargins:
    """What a rollout's document says of its live stages, by measure (false wakes an hour, miss rate).

    Attributes:
        alpha: type I error of a stage's one test, for each of its two mistakes.
        below: the rise of the candidate's devices over the baseline's that a measure must be under.
        planned_sd: the standard deviation of that difference which is expected of the stage, noise and
            sampling together. It is public, and says before the stage whether its test has power.
    """

    alpha: float
    below: Mapping[str, float]
    planned_sd: Mapping[str, float]

    def __post_init__(self) -> None:
        """Raise ValueError for margins that cannot be tested."""
        if not 0.0 < self.alpha < 0.5 or not self.below or min(self.below.values()) <= 0.0:
            raise ValueError("expected 0 < alpha < .5 and a margin above 0 for at least one measure")
        if set(self.planned_sd) != set(self.below) or min(self.planned_sd.values()) <= 0.0:
            raise ValueError("expected a planned standard deviation above 0 for each measure")

    @property
    def powerful(self) -> frozenset[str]:
        """The measures whose test an equal candidate would pass with a chance of `POWER` at least."""
        far = _NORMAL.inv_cdf(1.0 - self.alpha) + _NORMAL.inv_cdf(POWER)
        return frozenset(name for name, sd in self.planned_sd.items() if self.below[name] >= far * sd)


@dataclass(frozen=True, slots=True)
class LiveCell:
    """One measure in a live stage: how much higher it is where the candidate acts, and the variance of that,
    noise and sampling together. The two sets of devices have none in common, so their variances add up."""

    difference: float
    variance: float


@dataclass(frozen=True, slots=True)
class MeasureState:
    """Where one measure stands: the difference and its one-sided bounds, the lower at α/m over the m
    measures, the upper at α; None where it was not measured."""

    measure: str
    difference: float | None
    interval_low: float | None
    interval_high: float | None
    margin: float
    reason: str


@dataclass(frozen=True, slots=True)
class LiveDecision:
    """What a live stage comes to; `evidence` is False where no measure's test has power by plan."""

    verdict: Verdict
    measures: tuple[MeasureState, ...]
    evidence: bool
    why: str


def decide_live(margins: LiveMargins, cells: Mapping[str, LiveCell | None]) -> LiveDecision:
    """Return the decision of a live stage's one planned test.

    Rolled back where some measure has risen significantly by more than its margin. Expanded where each whose
    test has power by plan has risen significantly by less, and nothing speaks against the others: of those
    the stage is exposure, not evidence. Held otherwise, and where a measure was not measured.
    """
    near, far = (_NORMAL.inv_cdf(1.0 - margins.alpha / m) for m in (1, len(margins.below)))
    found = [_measure(name, margins.below[name], cells.get(name), near, far) for name in margins.below]
    powerful = margins.powerful
    if any(each.interval_low is not None and each.interval_low >= each.margin for each in found):
        verdict = Verdict.ROLL_BACK
    elif any(
        each.interval_high is None or (each.measure in powerful and each.interval_high > each.margin)
        for each in found
    ):
        verdict = Verdict.HOLD
    else:
        verdict = Verdict.EXPAND
    weak = [each.measure for each in found if each.measure not in powerful]
    of = "" if not powerful else f" of {', '.join(weak)}"
    label = f"exposure, not evidence{of}: so few devices cannot show a rise of this size; " if weak else ""
    why = label + "; ".join(f"{each.measure}: {each.reason}" for each in found)
    return LiveDecision(verdict, tuple(found), bool(powerful), why)


def _measure(name: str, margin: float, cell: LiveCell | None, near: float, far: float) -> MeasureState:
    """Return where a measure stands, with the quantiles of its upper and its lower bound."""
    if cell is None:
        return MeasureState(name, None, None, None, margin, "not measured")
    sd = cell.variance**0.5
    low, high = cell.difference - far * sd, cell.difference + near * sd
    if low >= margin:
        reason = f"significantly more than {margin:g} higher: by {low:.3g} at least"
    elif high <= margin:
        reason = f"significantly less than {margin:g} higher: by {high:.3g} at most"
    else:
        reason = f"not enough evidence: between {low:.3g} and {high:.3g} higher"
    return MeasureState(name, cell.difference, low, high, margin, reason)


POWER: Final = 0.8
"""Chance of passing that a live stage's test must give an equal candidate to count as evidence."""

LIKELY: Final = 0.5
"""Chance of being shipped that a design must give an equal candidate."""

LARGEST_FACTOR: Final = 1024.0
"""How many times the devices or the budget are looked at, where neither is enough."""

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Reach:
    """What a design can see of one group.

    Attributes:
        smallest: by look, the smallest regression that is rolled back by then with the chance asked for.
        ships: the chance that an equal candidate is under the group's margin by the last look.
    """

    smallest: tuple[float, ...]
    ships: float


def smallest_regression(design: Design, expected: Look, chance: float = 0.9) -> dict[str, Reach]:
    """Return what a design can see of each group, and of everyone, where all its looks are as `expected`.

    Chances are of single looks, so they are at most what the looks give together.

    Args:
        expected: the sums that a look of an equal candidate is expected to give; no group may be missing.
        chance: of rolling back a candidate that is so much worse, below 1.

    Raises ValueError where a group has no expected sums.
    """
    row = _row(design, expected)
    if None in row:
        raise ValueError("expected sums for every group of the design, and for everyone")
    found = progress(design, Sums.of([row] * design.looks))
    bias = found.low.estimate  # of an equal candidate, by the moments that only it hears
    power = _NORMAL.inv_cdf(chance)
    with np.errstate(invalid="ignore"):
        seen = design.rollback_above - bias + found.low.reach + power / np.sqrt(found.low.information)
        seen = np.minimum.accumulate(seen, axis=0)
        room = (np.array(margins_of(design)) - found.high.estimate[-1]) * np.sqrt(found.high.information[-1])
    ships = [_NORMAL.cdf(float(each)) for each in room - found.high.boundary[-1]]
    names = (*design.groups, OVERALL)
    return {
        name: Reach(tuple(float(each) for each in seen[:, at]), ships[at]) for at, name in enumerate(names)
    }


def require_reach(design: Design, expected: Look) -> dict[str, Reach]:
    """Return what `smallest_regression` does.

    Raises Refused for a design that would more likely hold than ship an equal candidate: no regression that
    matters could be distinguished from none. The text says what would be enough.
    """
    found = smallest_regression(design, expected)
    if _ships(found) >= LIKELY:
        return found
    smallest = min((name for name in design.groups), key=lambda name: found[name].ships)
    devices, budget = (_factor(design, expected, grow) for grow in (_more_devices, _more_budget))
    enough = " or ".join(
        text.format(factor)
        for text, factor in (
            ("{:.1f} times the devices", devices),
            ("{:.1f} times the rho of a look", budget),
        )
        if factor is not None
    )
    raise Refused(
        f"the gate can see too little: an equal candidate would be shipped with a chance of "
        f"{_ships(found):.0%}, and in {smallest} the smallest regression that is likely rolled back is "
        f"{points(found[smallest].smallest[-1])}; "
        f"it takes {enough or 'fewer or larger groups, or wider margins'}"
    )


def _ships(found: Mapping[str, Reach]) -> float:
    """Return the chance that an equal candidate is shipped, if groups were independent."""
    return prod(each.ships for each in found.values())


def _more_devices(cell: Cell, factor: float) -> Cell:
    return replace(
        cell,
        difference=cell.difference * factor,
        moments=cell.moments * factor,
        unlabelled=cell.unlabelled * factor,
        variance=cell.variance * factor,
        variance_unlabelled=cell.variance_unlabelled * factor,
    )


def _more_budget(cell: Cell, factor: float) -> Cell:
    return replace(
        cell,
        noise_difference=cell.noise_difference / factor,
        noise_moments=cell.noise_moments / factor,
        noise_unlabelled=cell.noise_unlabelled / factor,
        variance_sd=cell.variance_sd / factor**0.5,
    )


def _factor(design: Design, expected: Look, grow: Callable[[Cell, float], Cell]) -> float | None:
    """Return how many times more is enough, to 10% of it; None where `LARGEST_FACTOR` is not."""

    def enough(factor: float) -> bool:
        cells = {name: grow(cell, factor) for name, cell in expected.groups.items() if cell is not None}
        assert expected.overall is not None
        found = smallest_regression(design, Look(grow(expected.overall, factor), cells))
        return _ships(found) >= LIKELY

    high = 2.0
    while not enough(high):
        high *= 2.0
        if high > LARGEST_FACTOR:
            return None
    low = high / 2.0
    while high / low > 1.1:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
