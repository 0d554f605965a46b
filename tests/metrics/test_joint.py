"""Joint counters: the integers that any device computes, the bound by trying everything, and what is read."""

import json
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from scipy import stats

from fa_core.metrics import joint, moments
from fa_core.metrics.intervals import estimated_variance_quantile, normal_quantile
from fa_core.metrics.joint import Domain, mapped, matrix, norms
from fa_core.metrics.kind import Axis, BoolArray, FloatArray
from fa_core.metrics.moments import Moments, Ratio, unmapped
from fa_core.metrics.nested import Cut, consistent
from tests.metrics import joint_reference

VECTORS: dict[str, Any] = json.loads(joint_reference.VECTORS.read_text())
every_case = pytest.mark.parametrize(
    "case", VECTORS["cases"], ids=lambda case: f"{case['table']}-{case['units']}"
)


def domain_of(case: dict[str, Any]) -> Domain:
    return Domain(case["units"], case["size"], case["count"], case["signed"])


class TestTheIntegers:
    def test_the_tables_are_the_published_ones(self) -> None:
        assert {name: [list(row) for row in table] for name, table in joint.TABLES.items()} == VECTORS[
            "tables"
        ]
        assert [list(row) for row in joint.SHARES] == VECTORS["shares"]

    @every_case
    def test_a_plan_has_the_matrix_of_the_vectors(self, case: dict[str, Any]) -> None:
        domain = domain_of(case)
        found = matrix(case["table"], domain)
        assert [list(row) for row in found] == case["matrix"]
        assert case["matrix"] == joint_reference.matrix(
            VECTORS["tables"][case["table"]], domain.size * domain.units, domain.count * domain.units
        )

    @every_case
    def test_a_device_sends_what_the_vectors_say(self, case: dict[str, Any]) -> None:
        n, r = (np.array([pair[name] for pair in case["pairs"]]) for name in "nr")
        sent = mapped(case["table"], domain_of(case), n, r)
        np.testing.assert_array_equal(sent, [pair["y"] for pair in case["pairs"]])
        assert case["pairs"][0]["y"] == joint_reference.mapped(case["matrix"], int(n[0]), int(r[0]))
        assert not mapped(case["table"], domain_of(case), 0 * n, 0 * r).any()

    def test_no_matrix_of_a_plan_that_may_be_sent_is_singular(self) -> None:
        for units, size, count in ((2826, 1, 1), (258, 60, 1), (8, 60, 1000), (1, 60, 1000), (1, 1, 1)):
            for name in ("rate", "paired_event", "rate_per_hour", "rate_per_hour_event"):
                diagonal = np.diag(np.array(matrix(name, Domain(units, size, count, False))))  # type: ignore[arg-type]
                assert (diagonal > 0).all()


class TestTheBound:
    @every_case
    def test_is_the_most_of_all_pairs_and_splits(self, case: dict[str, Any]) -> None:
        for bound in case["bounds"]:
            found = norms(case["table"], domain_of(case), bound["groups"])
            assert (found.l1, found.l2_squared, found.linf) == (
                bound["l1"],
                bound["l2_squared"],
                bound["linf"],
            )

    @pytest.mark.parametrize("name", ["rate", "rate_event", "paired", "paired_event"])
    @pytest.mark.parametrize(
        ("units", "size", "count"), [(1, 1, 1), (2, 1, 1), (4, 1, 1), (2, 3, 2), (3, 2, 1)]
    )
    def test_is_the_reference_s_by_brute_force(self, name: Any, units: int, size: int, count: int) -> None:
        signed = name.startswith("paired")
        a = matrix(name, Domain(units, size, count, signed))
        for groups in (1, 2, 3):
            found = norms(name, Domain(units, size, count, signed), groups)
            expected = joint_reference.bound(a, units, size, count, signed, groups)
            assert expected == {"l1": found.l1, "l2_squared": found.l2_squared, "linf": found.linf}

    def test_of_a_device_level_map_spread_over_groups_would_be_many_times_larger(self) -> None:
        """Why groupings by columns of the events have tables of their own."""
        domain = Domain(24, 1, 1, False)
        assert norms("rate", domain, 5).l2_squared > 4 * norms("rate", domain, 1).l2_squared
        assert norms("rate_event", domain, 5).l2_squared == norms("rate_event", domain, 1).l2_squared

    def test_counts_the_pairs_that_it_tries(self) -> None:
        for units, size, count, signed in (
            (3, 1, 1, False),
            (3, 1, 1, True),
            (2, 5, 3, False),
            (4, 2, 2, True),
        ):
            pairs = list(joint_reference.pairs(units, size, count, signed))
            assert Domain(units, size, count, signed).pairs == len(pairs)
        assert Domain(24, 60, 4, False).pairs == 138_576

    def test_too_many_pairs_are_not_tried(self) -> None:
        with pytest.raises(ValueError, match="too many"):
            norms("rate", Domain(100_000, 1, 1, False), 1)

    def test_does_not_overflow_where_a_sum_of_squares_would(self) -> None:
        """25 groups of a map that is not made for them: past 2^63, and still exact."""
        domain = Domain(128, 60, 1, False)
        assert norms("rate_per_hour", domain, 25).l2_squared > 2**63


AXES = {
    "accent": Axis("accent", 3, "device"),
    "kind": Axis("kind", 2, "device"),
    "noise": Axis("noise", 4, "event"),
}


def dense(cuts: list[Cut], shared: tuple[int, ...]) -> tuple[list[FloatArray], FloatArray]:
    """General least squares with every agreement a constraint of its own, and the covariance of it all."""
    size = cuts[0].values.shape[1]
    starts = np.cumsum([0, *(cut.values.size for cut in cuts)])
    y = np.concatenate([cut.values.ravel() for cut in cuts])
    sigma = np.zeros((len(y), len(y)))
    for cut, start in zip(cuts, starts, strict=False):
        for group in range(len(cut.values)):
            at = slice(start + group * size, start + (group + 1) * size)
            sigma[at, at] = cut.covariance
    rows = []
    for one, cut in enumerate(cuts):
        for two, other in enumerate(cuts):
            if one >= two:
                continue
            common = [axis.name for axis in cut.axes if axis in other.axes]
            alike = cut.events == other.events
            for quantity in range(size) if alike else shared:
                left, right = (
                    margin(each, common, starts[index], len(y), quantity, size)
                    for index, each in ((one, cut), (two, other))
                )
                rows += [a - b for a, b in zip(left, right, strict=True)]
    c = np.array(rows)
    gain = sigma @ c.T @ np.linalg.pinv(c @ sigma @ c.T)
    found = y - gain @ c @ y
    return np.split(found, starts[1:-1]), sigma - gain @ c @ sigma


def margin(
    cut: Cut, common: list[str], start: int, length: int, quantity: int, size: int
) -> list[FloatArray]:
    """The rows that sum one quantity of a grouping over all segments but the common ones."""
    labels = [axis.labels for axis in cut.axes]
    rows: dict[tuple[int, ...], FloatArray] = {}
    for group, place in enumerate(np.ndindex(*labels)):
        key = tuple(place[[axis.name for axis in cut.axes].index(name)] for name in sorted(common))
        rows.setdefault(key, np.zeros(length))[start + group * size + quantity] = 1.0
    return [rows[key] for key in sorted(rows)]


GROUPINGS = {
    "everyone and accents": ((), ("accent",)),
    "a chain of three": ((), ("accent",), ("kind", "accent")),
    "two that no other contains": (("accent",), ("kind",)),
    "columns of the events": ((), ("noise",), ("accent",), ("accent", "noise")),
    "columns of the events alone": (("noise",), ("noise", "kind"), ("accent",)),
}


class TestGroupingsThatContainEachOther:
    @pytest.mark.parametrize("groupings", GROUPINGS.values(), ids=GROUPINGS)
    def test_are_the_general_least_squares(self, groupings: tuple[tuple[str, ...], ...]) -> None:
        """Against one dense system of all the sums: values, and the covariance of every group."""
        random, shared = np.random.default_rng(4), (1, 2)
        base = {True: random.normal(size=(6, 6)), False: random.normal(size=(6, 6))}
        cuts = []
        for index, grouping in enumerate(groupings):
            axes = tuple(AXES[name] for name in grouping)
            events = any(axis.level == "event" for axis in axes)
            covariance = (1 + index) * base[events] @ base[events].T
            groups = int(np.prod([axis.labels for axis in axes]))
            cuts.append(Cut(axes, random.normal(size=(groups, 6)) * 50, covariance))
        found = consistent(cuts, shared)
        expected, covariance = dense(cuts, shared)
        start = 0
        for cut, values in zip(found, expected, strict=True):
            np.testing.assert_allclose(cut.values.ravel(), values, atol=1e-6)
            for group in range(len(cut.values)):
                at = slice(start + group * 6, start + (group + 1) * 6)
                np.testing.assert_allclose(cut.covariance, covariance[at, at], atol=1e-6)
            start += cut.values.size

    def test_agree_with_each_other(self) -> None:
        random = np.random.default_rng(6)
        axes = ((), (AXES["accent"],), (AXES["accent"], AXES["noise"]))
        sizes = (1, 3, 12)
        cuts = [Cut(a, random.normal(size=(k, 6)), np.eye(6)) for a, k in zip(axes, sizes, strict=True)]
        everyone, accents, both = consistent(cuts, (1, 2))
        np.testing.assert_allclose(everyone.values[0], accents.values.sum(axis=0))
        summed = both.values.reshape(3, 4, 6).sum(axis=1)
        np.testing.assert_allclose(summed[:, (1, 2)], accents.values[:, (1, 2)])
        assert np.abs(summed[:, (0, 3)] - accents.values[:, (0, 3)]).max() > 0.1
        assert (np.diag(accents.covariance) < 1).all()

    def test_of_one_grouping_nothing_changes(self) -> None:
        cut = Cut((AXES["accent"],), np.ones((3, 6)), np.eye(6))
        assert consistent([cut], (1, 2)) == [cut]

    def test_have_the_covariance_of_the_design(self) -> None:
        """JOINT: S_g·(1 − 1/(G + c)) of a group, G·c/(G + c)·S_g of everyone, with c = Var₀/Var_g."""
        groups, c = 3, 2.5
        cuts = [Cut((), np.zeros((1, 6)), c * np.eye(6)), Cut((AXES["accent"],), np.zeros((3, 6)), np.eye(6))]
        everyone, accents = consistent(cuts, (1, 2))
        np.testing.assert_allclose(np.diag(accents.covariance), 1 - 1 / (groups + c))
        np.testing.assert_allclose(np.diag(everyone.covariance), groups * c / (groups + c))


def bernoulli(n: FloatArray, p: FloatArray) -> FloatArray:
    return np.maximum(n * p * (1 - p), 0.0)


def holds(moments: Moments, p: float) -> BoolArray:
    """Say where p is inside the 95% interval of a rate, (K,): the condition that `fa_core.metrics.moments`
    states, in vectors and matrices."""
    z, u, cov = normal_quantile(0.95), moments.values, moments.covariance
    linear, squares = np.array([0, -p, 1, 0, 0, 0]), np.array([0, 0, 0, p * p, -2 * p, 1])
    off, spread, floor = u @ linear, u @ squares, bernoulli(u[:, 1], np.array(p))
    noise, along, own = linear @ cov @ linear, squares @ cov @ linear, squares @ cov @ squares
    total = np.maximum(spread, floor) + noise
    sampling = np.maximum(spread - along / total * off, floor)
    sd = np.minimum(np.sqrt(own - along**2 / total), sampling - floor)
    wide = estimated_variance_quantile(np.array(z), sd / (sampling + noise))
    return np.asarray(off**2 <= wide**2 * (sampling + noise))


GROUPS = 20_000


def covered(noise_sd: float, floor: float) -> float:
    """Return the share of 95% intervals that hold p = 1/2, of `GROUPS` groups. A tenth of the variance of
    r − p·n is noise; the rest is measured with noise of that relative sd, at least `floor` of it."""
    random, n, p = np.random.default_rng(6), 1e6, 0.5
    variance = n * p * (1 - p) / floor
    off = random.normal(0.0, (variance / 0.9) ** 0.5, GROUPS)
    measured = variance + noise_sd * variance / 0.9 * random.normal(size=GROUPS)
    nothing = np.zeros(GROUPS)
    values = np.stack([nothing, nothing + n, p * n + off, nothing, nothing, measured], axis=1)
    covariance = np.diag([0.0, 0.0, variance / 9, 0.0, 0.0, (noise_sd * variance / 0.9) ** 2])
    ((low, high, _),) = Ratio(Moments(values, covariance), 0, 1, bernoulli).intervals(0.95)
    return float(((low <= p) & (p <= high)).mean())


class TestTheInterval:
    def test_without_noise_and_with_no_more_variance_than_independent_events_have_it_is_wilson(self) -> None:
        n, hits, z = 5000.0, 400.0, normal_quantile(0.95)
        sums = np.array([[n, n, hits, 0.0, 0.0, 0.0]])
        ((low, high, valid),) = Ratio(Moments(sums, 1e-9 * np.eye(6)), 0, 1, bernoulli).intervals(0.95)
        p = hits / n
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        assert (low[0], high[0]) == pytest.approx((middle - half, middle + half), abs=1e-9)
        assert valid.all()

    def test_is_what_the_condition_holds_for(self) -> None:
        """Brute force over the range, for noisy sums: inside between the ends, refused beyond."""
        domain, random = Domain(24, 1, 1, False), np.random.default_rng(2)
        n = random.integers(1, 25, 3000)
        r = random.binomial(n, random.beta(2, 8, 3000))
        y = mapped("rate", domain, n, r).sum(axis=0) + random.normal(0, 4e5, (40, 6))
        ratio = Ratio(unmapped("rate", domain, y.ravel(), 1.6e11), 0, 1, bernoulli)
        ((low, high, valid),) = ratio.intervals(0.95)
        assert valid.all()
        for p in np.linspace(0, 1, 401):
            inside = holds(ratio.moments, p)
            assert (inside == ((low <= p) & (p <= high)))[
                (abs(low - p) > 1e-9) & (abs(high - p) > 1e-9)
            ].all()

    @pytest.mark.parametrize("noise_sd", [0.4, 0.7, 1.0, 1.5])
    @pytest.mark.parametrize("floor", [0.02, 0.3])
    def test_holds_where_its_variance_is_hardly_measured(self, noise_sd: float, floor: float) -> None:
        """At least 94% where the noise of the variance is as large as the variance; false alarms below 1e-7.

        Without `MEASURED` intervals are too narrow where it is.
        """
        assert covered(noise_sd, floor) >= stats.binom.ppf(1e-8, GROUPS, 0.94) / GROUPS
        if noise_sd >= 0.7:
            with patch.object(moments, "MEASURED", 0.0):
                assert covered(noise_sd, floor) < 0.925

    def test_sums_come_back_from_what_devices_send(self) -> None:
        domain = Domain(24, 60, 4, False)
        n, r = np.array([600, 0, 1440, 17]), np.array([12, 0, 3, 0])
        y = mapped("rate_per_hour", domain, n, r).sum(axis=0).astype(float)
        found = unmapped("rate_per_hour", domain, y, 1.0).values[0]
        u = [(n > 0).sum(), n.sum(), r.sum(), (n * n).sum(), (n * r).sum(), (r * r).sum()]
        np.testing.assert_allclose(found, u, rtol=1e-9, atol=1e-6)

    def test_hides_a_size_that_cannot_be_told_from_nothing(self) -> None:
        noise = np.diag([1.0, 1e6, 1.0, 1.0, 1.0, 1.0])
        sums = np.array([[100.0, n, 10.0, 2e4, 100.0, 10.0] for n in (1900.0, 2000.0)])
        ((_, _, valid),) = Ratio(Moments(sums, noise), 0, 1, bernoulli).intervals(0.95)
        assert valid.tolist() == [False, True]

    def test_hides_a_count_that_noise_does_not_explain_and_keeps_one_that_it_does(self) -> None:
        noise = np.diag([1.0, 100.0, 400.0, 1.0, 1.0, 1.0])
        sums = np.array([[500.0, 5000.0, r, 0.0, 0.0, 0.0] for r in (-119.0, -121.0, 5134.0, 5135.0)])
        ratio = Ratio(Moments(sums, noise), 0, 1, bernoulli)
        assert ratio.possible.tolist() == [True, False, True, False]
        assert ratio.point.tolist() == [0.0, 0.0, 1.0, 1.0]
        (low, high, _), *_ = ratio.intervals(0.95)
        assert low[0] == 0.0
        assert 0 < high[0] < 0.05
        assert (low[2], high[2]) == (pytest.approx(1.0, abs=0.05), 1.0)

    def test_is_wider_for_all_groups_together_and_for_more_noise(self) -> None:
        sums = np.array([[500.0, 5000.0, 500.0, 6e4, 6e3, 1e3]])
        quiet = Moments(sums, np.diag([1.0, 1e4, 1e4, 1e4, 1e4, 1e4]))
        near, wide = Ratio(quiet, 0, 1, bernoulli).intervals(0.95, 0.99)
        loud = replace(quiet, covariance=4 * quiet.covariance)
        (noisy,) = Ratio(loud, 0, 1, bernoulli).intervals(0.95)
        for other in (wide, noisy):
            assert other[0] < near[0] < near[1] < other[1]
