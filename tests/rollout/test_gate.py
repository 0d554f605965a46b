"""The gate's decisions: margins, ties, what is not measured, and what does not go by plan."""

from dataclasses import replace
from itertools import accumulate, pairwise
from math import ceil, inf, log

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from fa_core.errors import Refused
from fa_core.rollout.boundaries import STEP, boundaries
from fa_core.rollout.gate import (
    Cell,
    Design,
    LiveCell,
    LiveMargins,
    Look,
    Verdict,
    decide,
    decide_live,
    require_reach,
    smallest_regression,
)
from fa_core.rollout.sequential import ROLLBACK_POWER

ACCENTS = tuple(f"accent-{index}" for index in range(10))
DESIGN = Design(4, 0.05, 0.01, 0.02, 0.01, ACCENTS)
BIG = Cell(0.0, 20_000.0, 0.0, 3_000.0, 2_000.0, 12_000.0, 0.0, variance_sd=300.0)


NOISE_ONLY = Cell(0.0, 40_000.0, 0.0, 0.0, 6_000.0, 0.0, 0.0)


def worse(cell: Cell, rate: float) -> Cell:
    return replace(cell, difference=rate * cell.moments)


def look(cell: Cell | None = BIG, **accents: Cell | None) -> Look:
    """Return a look in which all groups are `cell`, but for those named `accent_0` and so on."""
    named = {name.replace("_", "-"): each for name, each in accents.items()}
    return Look(cell and replace(cell, moments=10 * cell.moments), {**dict.fromkeys(ACCENTS, cell), **named})


def steps(*information: float) -> tuple[int, ...]:
    rises = [log(b / a) / log(STEP) for a, b in pairwise((information[0], *information))]
    return tuple(accumulate(ceil(each - 1e-9) for each in rises))


@pytest.mark.parametrize(
    "alpha, table", [(0.005, (3.42, 3.09, 2.88, 2.72)), (0.05, (2.73, 2.30, 2.01, 1.77))]
)
def test_the_boundaries_of_the_design(alpha: float, table: tuple[float, ...]) -> None:
    found = boundaries(tuple(alpha * (k / 4) ** 2 for k in (1, 2, 3, 4)), steps(1, 2, 3, 4))
    assert [round(each, 2) for each in found] == list(table)


def test_a_decision_uses_them() -> None:
    """With noise alone information grows as looks do: each of ten accents has a tenth of 5%."""
    found = [decide(DESIGN, [look(NOISE_ONLY)] * k) for k in (1, 2, 3, 4)]
    assert [each.groups[0].fraction for each in found] == [0.25, 0.5, 0.75, 1.0]
    assert [round(each.groups[3].boundary_rollback or 0, 2) for each in found] == [3.13, 2.99, 2.89, 2.81]
    assert [round(each.groups[3].boundary_ship or 0, 2) for each in found] == [-2.73, -2.30, -2.01, -1.77]
    assert found[0].overall.boundary_rollback is None


@pytest.mark.parametrize("information", [(1.0, 4.0), (1.0, 1.1, 1.2), (0.2, 1.0, 5.0)])
@pytest.mark.parametrize("fractions", [(0.1, 0.5, 1.0), (0.5, 0.5, 1.0)])
def test_boundaries_spend_what_they_may(information: tuple[float, ...], fractions: tuple[float, ...]) -> None:
    """Against SciPy's multivariate normal, which integrates in another way."""
    at = steps(*information)
    spent = tuple(0.05 * t * t for t in fractions[-len(at) :])
    found = boundaries(spent, at)
    exact = STEP ** np.array(at)
    covariance = np.sqrt(np.minimum.outer(exact, exact) / np.maximum.outer(exact, exact))
    for k in range(1, len(at) + 1):
        inside = multivariate_normal.cdf(np.minimum(found[:k], 9.0), cov=covariance[:k, :k])
        assert 1.0 - inside == pytest.approx(spent[k - 1], abs=1e-4)
    assert (inf in found) == (len(at) == 3 and fractions[0] == fractions[1])


def test_estimates_and_information_are_those_of_the_formulas() -> None:
    first = Cell(100.0, 10_000.0, 0.0, 900.0, 2_500.0, 40_000.0, 0.0)
    second = Cell(480.0, 12_000.0, 0.0, 1_000.0, 2_500.0, 40_000.0, 0.0)
    state = decide(DESIGN, [look(first), look(second)]).groups[0]
    v = [(2_500 + 0.01**2 * 40_000) / 1e8, (2_500 + 0.04**2 * 40_000) / 1.44e8]
    weight = 1 / v[0] + 1 / v[1]
    theta = (0.01 / v[0] + 0.04 / v[1]) / weight
    information = 1 / ((900 / 1e8 + 1_000 / 1.44e8) / 2 + 1 / weight)
    assert state.estimate_low == state.estimate_high == pytest.approx(theta)
    assert state.information == pytest.approx(information)
    assert state.z_rollback == pytest.approx((theta - 0.01) * information**0.5)
    assert state.z_ship == pytest.approx((theta - 0.02) * information**0.5)


def test_sampling_does_not_average_out() -> None:
    """Four looks of nearly no noise at the same devices say what one does, not four times as much."""
    cell = replace(BIG, noise_difference=1e-3, noise_moments=0.0)
    one, four = (decide(DESIGN, [look(cell)] * k).groups[0].information or 0 for k in (1, 4))
    assert four == pytest.approx(one, rel=1e-4)


def test_an_equal_candidate_is_shipped() -> None:
    found = decide(DESIGN, [look()])
    assert found.verdict is Verdict.EXPAND
    assert found.look == 1
    assert all(each.shipped for each in (*found.groups, found.overall))
    assert "everyone less than 1.0 points" in found.why


def test_one_worse_accent_rolls_back_all() -> None:
    found = decide(DESIGN, [look(accent_7=worse(BIG, 0.05))])
    assert found.verdict is Verdict.ROLL_BACK
    assert found.why.startswith("accent-7 is significantly more than 1.0 points worse")
    again = decide(DESIGN, [look(accent_7=worse(BIG, 0.05)), look(accent_7=worse(BIG, -0.05)), None])
    assert again.verdict is Verdict.ROLL_BACK


def test_between_the_margins_it_holds() -> None:
    found = decide(DESIGN, [look(accent_7=worse(BIG, 0.0165))] * 4)
    assert found.verdict is Verdict.HOLD
    assert found.why.startswith("accent-7: not enough evidence: between 0.9 points and 2.1 points worse")


@pytest.mark.parametrize("missing", ["accent", "everyone", "unnamed"])
def test_what_is_not_measured_holds(missing: str) -> None:
    each = look(accent_2=None) if missing == "accent" else look()
    if missing == "everyone":
        each = Look(None, each.groups)
    if missing == "unnamed":
        each = Look(each.overall, {name: cell for name, cell in each.groups.items() if name != "accent-2"})
    found = decide(DESIGN, [each] * 4)
    assert found.verdict is Verdict.HOLD
    assert found.why == f"{'everyone' if missing == 'everyone' else 'accent-2'}: not measured in any look"


def test_a_rollback_wins_a_tie() -> None:
    """A rise of 1 point is significantly over 0 and significantly under 2."""
    found = decide(replace(DESIGN, rollback_above=0.0, overall_below=0.02), [look(worse(BIG, 0.01))] * 4)
    assert all(each.shipped for each in found.groups)
    assert found.verdict is Verdict.ROLL_BACK


def test_unlabelled_moments_count_for_the_candidate_in_a_rollback_only() -> None:
    """Reactions marked half of what only the candidate heard: it seems worse by 2.5 points, and is equal."""
    seems = worse(BIG, 0.025)
    heard = replace(seems, unlabelled=500.0, noise_unlabelled=2_000.0, variance_unlabelled=500.0)
    assert decide(DESIGN, [look(seems)]).verdict is Verdict.ROLL_BACK  # what T alone says
    found = decide(DESIGN, [look(heard)] * 4)
    assert found.verdict is Verdict.HOLD
    assert found.groups[0].estimate_low == pytest.approx(0.0, abs=1e-9)
    assert found.groups[0].estimate_high == pytest.approx(0.025)
    assert not found.groups[0].shipped


def test_a_skipped_look_spends_nothing() -> None:
    found = [decide(DESIGN, looks) for looks in ([look(NOISE_ONLY)], [look(NOISE_ONLY), None])]
    assert found[0].groups[0].fraction == found[1].groups[0].fraction == 0.25
    assert found[1].groups[0].boundary_rollback is None
    third = decide(DESIGN, [look(NOISE_ONLY), None, look(NOISE_ONLY)]).groups[0]
    assert third.fraction == 0.5  # its information, though three looks of the calendar have passed
    last = decide(DESIGN, [look(NOISE_ONLY), None, look(NOISE_ONLY), look(NOISE_ONLY)]).groups[0]
    spent = tuple(0.005 * t**ROLLBACK_POWER for t in (0.25, 0.5, 1.0))
    assert last.boundary_rollback == pytest.approx(boundaries(spent, steps(1, 2, 3))[-1], abs=2e-3)
    lost = decide(DESIGN, [look(NOISE_ONLY), look(NOISE_ONLY), look(NOISE_ONLY), None]).groups[0]
    assert lost.fraction == 0.75


@pytest.mark.parametrize(
    "times, fractions",
    [(0.5, (0.125, 0.25, 0.375)), (0.63, (7 / 48, 7 / 24, 7 / 16)), (3.0, (0.25, 0.5, 0.75))],
)
def test_information_other_than_planned(times: float, fractions: tuple[float, ...]) -> None:
    """Too little spends less, too much no more than the calendar; the last look spends what is left."""
    by_plan = 4 * 40_000.0**2 / 6_000.0
    design = replace(DESIGN, planned_information=dict.fromkeys(ACCENTS, by_plan / times))
    found = [decide(design, [look(NOISE_ONLY)] * k).groups[0] for k in (1, 2, 3, 4)]
    assert [each.fraction for each in found] == pytest.approx([*fractions, 1.0])
    spent = tuple(0.005 * t**ROLLBACK_POWER for t in (*fractions, 1.0))
    assert found[-1].boundary_rollback == pytest.approx(boundaries(spent, steps(1, 2, 3, 4))[-1], abs=2e-3)


def test_noise_in_the_variance_widens() -> None:
    calm, unsure = (decide(DESIGN, [look(replace(BIG, variance_sd=sd))]).groups[0] for sd in (0.0, 2_000.0))
    assert (unsure.boundary_rollback or 0) > (calm.boundary_rollback or inf) + 0.3
    assert (unsure.interval_high or 0) > (calm.interval_high or inf)


def test_designs_and_sums_that_cannot_be() -> None:
    for change in ({"looks": 0}, {"alpha": 0.6}, {"groups": ()}, {"ship_below": 0.0}, {"groups": ("a", "a")}):
        with pytest.raises(ValueError):
            replace(DESIGN, **change)
    for change in (
        {"moments": 0.0},
        {"difference": float("nan")},
        {"variance": -1.0},
        {"noise_difference": 0.0},
    ):
        with pytest.raises(ValueError):
            replace(BIG, **change)
    for looks in ([], [look()] * 5):
        with pytest.raises(ValueError, match="expected 1 to 4 looks"):
            decide(DESIGN, looks)


LIVE = LiveMargins(0.05, {"false_wakes": 0.5, "misses": 0.01}, {"false_wakes": 0.1, "misses": 0.002})
CALM = {"false_wakes": LiveCell(0.0, 0.01), "misses": LiveCell(0.0, 4e-6)}


def test_a_live_stage() -> None:
    assert decide_live(LIVE, CALM).verdict is Verdict.EXPAND
    assert decide_live(LIVE, {**CALM, "misses": LiveCell(0.009, 4e-6)}).verdict is Verdict.HOLD
    assert decide_live(LIVE, {**CALM, "misses": None}).verdict is Verdict.HOLD
    assert decide_live(LIVE, {}).verdict is Verdict.HOLD
    woken = decide_live(LIVE, {**CALM, "false_wakes": LiveCell(1.0, 0.01)})
    assert woken.verdict is Verdict.ROLL_BACK
    assert "false_wakes: significantly more than 0.5 higher" in woken.why


def test_a_live_stage_without_power_is_exposure_and_not_evidence() -> None:
    """Whether it has power is by plan; what its own noise came to does not make it pass."""
    weak = replace(LIVE, planned_sd={"false_wakes": 0.4, "misses": 0.2})
    wide = {**CALM, "false_wakes": LiveCell(0.2, 0.16)}
    assert not weak.powerful
    assert decide_live(weak, wide).verdict is Verdict.EXPAND
    assert decide_live(weak, wide).why.startswith("exposure, not evidence: ")
    assert decide_live(LIVE, wide).verdict is Verdict.HOLD
    assert decide_live(weak, {**wide, "misses": None}).verdict is Verdict.HOLD
    assert decide_live(weak, {**wide, "false_wakes": LiveCell(2.0, 0.16)}).verdict is Verdict.ROLL_BACK


def test_a_measure_without_power_does_not_switch_off_the_others() -> None:
    one = replace(LIVE, planned_sd={"false_wakes": 0.4, "misses": 0.002})
    wide = {**CALM, "false_wakes": LiveCell(0.2, 0.16)}
    found = decide_live(one, wide)
    assert (found.verdict, found.evidence) == (Verdict.EXPAND, True)
    assert found.why.startswith("exposure, not evidence of false_wakes: ")
    assert decide_live(one, {**wide, "misses": LiveCell(0.009, 4e-6)}).verdict is Verdict.HOLD


SHARES = (0.28, 0.20, 0.13, 0.10, 0.08, 0.07, 0.05, 0.03, 0.03, 0.03)


def expected(devices: int) -> Look:
    """Return the sums of an equal candidate in a look of a rho of .025, with 7 moments a device."""

    def cell(share: float, rho: float) -> Cell:
        n = 7.0 * share * devices
        return Cell(0.0, n, 0.0, 0.08 * n, 37.0 / rho, 254.0 / rho, 0.0, variance_sd=121.0 / rho**0.5)

    return Look(cell(1.0, 0.005), {name: cell(s, 0.02) for name, s in zip(ACCENTS, SHARES, strict=True)})


def test_the_smallest_regression_falls_with_looks_and_size() -> None:
    found = smallest_regression(DESIGN, expected(20_000))
    for each in found.values():
        assert list(each.smallest) == sorted(each.smallest, reverse=True)
        assert each.smallest[-1] > 0.01
    assert found["accent-0"].smallest[-1] < found["accent-6"].smallest[-1] < found["accent-9"].smallest[-1]
    assert found["accent-6"].smallest[-1] < 0.032


def test_a_design_that_sees_too_little_is_refused() -> None:
    require_reach(DESIGN, expected(20_000))
    with pytest.raises(
        Refused, match=r"it takes [0-9.]+ times the devices or [0-9.]+ times the rho of a look$"
    ):
        require_reach(DESIGN, expected(10_000))
    with pytest.raises(Refused, match=r"it takes [0-9.]+ times the devices$"):  # no rho makes up for sampling
        require_reach(DESIGN, expected(2_000))
    with pytest.raises(ValueError, match="for every group"):
        smallest_regression(DESIGN, look(accent_1=None))
