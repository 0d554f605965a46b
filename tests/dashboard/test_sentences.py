"""The pure functions: number formatting, sentences, thresholds; and the audit trail."""

from dataclasses import replace
from pathlib import Path

import pytest

from dashboard.auth import audit
from dashboard.data import sentences
from dashboard.data.numbers import count, group_text
from fa_core.estimate.measure import decimals, difference, measure
from fa_core.estimate.sentences import listed
from fa_core.estimate.thresholds import cheapest, curve, highest_thresholds, monotone
from fa_core.values import Cell, Estimate, Judgement


def number(label: str, value: float | None, half: float = 0.02, wide: float = 0.04) -> Estimate:
    shown = value is not None

    def at(offset: float) -> float | None:
        return value + offset if value is not None else None

    return Estimate(
        "false_reject_rate", "rate", "", (("accent", label),), value, at(-half), at(half), at(-wide), at(wide), at(-0.01), at(0.01),
        0.95, not shown, "" if shown else "fewer than 100 devices", 1000.0, 0.01, 200.0, 4.0, "group",
    )  # fmt: skip


@pytest.mark.parametrize(
    "half, places",
    [(0.004, 3), (0.9, 1), (1.9, 1), (2.1, 0), (4.0, 0), (0.05, 2), (0.0, 0), (float("inf"), 0), (40, 0)],
)
def test_a_number_has_the_digits_that_its_interval_supports(half: float, places: int) -> None:
    assert decimals(half) == places


def test_shares_are_in_per_cent_and_differences_in_points() -> None:
    share = measure("rate", "")
    assert share.text(0.1654, 0.009) == "16.5%"
    assert share.interval(0.157, 0.174) == "15.7–17.4%"
    assert difference("rate", "").interval(-0.021, 0.004) == "−2.1 to +0.4 points"
    assert difference("rate", "").text(0.0, 0.01) == "0.0 points"
    assert measure("rate_per_hour", "per hour").text(0.31, 0.04) == "0.31 per hour"
    assert measure("mean", "ms").text(1234.4, 30) == "1,234 ms"
    assert share.text(None) == "—"


def test_noisy_counts_are_rounded_to_their_noise_and_never_negative() -> None:
    assert count(2993.4, 22.0) == "about 2,990"
    assert count(-43.0, 40.0) == "about 0"
    assert count(1234.0) == "1,234"


def test_names_are_listed_as_in_a_sentence() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefgh"), 2) == "a, b and 6 more"
    assert group_text((("accent", "es-en"), ("device_class", "watch"))) == "es-en · watch"


def test_groups_are_significantly_high_only_where_the_corrected_intervals_separate() -> None:
    apart = sentences.about_groups([number("a", 0.30), number("b", 0.10), number("c", None)])
    assert apart == (
        "Significantly high (95%, corrected): a; highest estimate: a at 30% (28–32%), against b at 10% (8–12%). "
        "The widest gap is at least 12 points and at most 24 points. Not shown: c."
    )
    near = sentences.about_groups([number("a", 0.11), number("b", 0.10)])
    assert near.startswith(
        "No group is significantly higher than another (95%, corrected); highest estimate: a"
    )


def test_the_highest_estimate_is_named_beside_the_groups_that_are_significantly_high() -> None:
    """Ranked by lower bound alone, es-en would be said to fare worst at 34% while en-029 stands at 43%."""
    groups = [number("en-US", 0.10), number("en-029", 0.43, 0.2, 0.35), number("es-en", 0.34)]
    text = sentences.about_groups(groups, brief=True)
    assert text == "Significantly high (95%, corrected): es-en; highest estimate: en-029."
    successes = [replace(each, metric="command_success_rate", estimate=1 - each.estimate,
                         simultaneous_low=1 - each.simultaneous_high, simultaneous_high=1 - each.simultaneous_low)
                 for each in groups]  # fmt: skip
    text = sentences.about_groups(successes, brief=True)
    assert text == "Significantly low (95%, corrected): es-en; lowest estimate: en-029."


def test_groups_are_sorted_by_their_corrected_bound_and_hidden_ones_are_last() -> None:
    results = [
        number("low", 0.1),
        number("hidden", None),
        number("uncertain", 0.5, 0.3, 0.45),
        number("certain", 0.3),
    ]
    assert [group_text(each.group) for each in sentences.by_evidence(results)] == [
        "certain",
        "low",
        "uncertain",
        "hidden",
    ]


def test_a_judgement_keeps_its_sentence_and_gets_units() -> None:
    gap = Judgement("false_reject_rate", ("accent",), "max gap 0.15", "not_enough_evidence", None, 0.143, 0.399,
                    "the widest gap may be anything from 0.143 to 0.399 (highest estimate: en-0.143, lowest: b)")  # fmt: skip
    assert sentences.about_verdict(gap, [], "rate", "") == (
        "The widest gap may be anything from 14 points to 40 points (highest estimate: en-0.143, lowest: b)."
    )
    most = Judgement(
        "false_reject_rate",
        ("accent", "class"),
        "max 0.3",
        "broken",
        None,
        None,
        None,
        "es-en · watch is above 0.3",
    )
    group = replace(number("es-en", 0.5), group=(("accent", "es-en"), ("class", "watch")))
    assert sentences.about_verdict(most, [group], "rate", "") == "es-en · watch is above 30%."
    assert (
        sentences.about_limit(most, "rate", "") == "false reject rate: at most 30% for every accent and class"
    )
    fine = replace(most, limit="max 0.025")
    assert sentences.about_limit(fine, "rate", "").startswith("false reject rate: at most 2.5% for")


def det(label: str, rejects: list[float], doubt: float = 0.02) -> Estimate:
    cells = []
    for axis, scale in (("false_reject_rate", 1.0), ("false_accepts_per_hour", -1.0)):
        for place, value in enumerate(rejects):
            shown = value if scale > 0 else 1.0 - value
            cells.append(Cell((("axis", axis), ("threshold", f"0.{place + 1}")), shown, shown - doubt, shown + doubt,
                              shown - 2 * doubt, shown + 2 * doubt, False, "", 1.0, 0.1))  # fmt: skip
    return replace(number(label, None), kind="det", cells=tuple(cells), suppressed=False)


def _at_a_twelfth(cell: Cell) -> Cell:
    """Return a cell of an edge that no decimal is, as twelve bins have it."""
    return replace(cell, labels=(cell.labels[0], ("threshold", "1/12")))


def test_the_highest_threshold_within_a_limit_is_that_of_the_limiting_group() -> None:
    easy, hard = det("easy", [0.01, 0.05, 0.1, 0.2]), det("hard", [0.05, 0.15, 0.19, 0.5])
    found = highest_thresholds([easy, hard], 0.2)
    assert (found.by_band, found.by_estimate) == (0.2, 0.3)
    assert found.limiting == hard
    assert highest_thresholds([easy], 0.99).limiting is None
    assert highest_thresholds([easy, hard], 0.01).by_band is None
    assert highest_thresholds([easy, replace(hard, suppressed=True)], 0.2).hidden != ()


def test_a_non_monotone_curve_counts_only_up_to_its_first_excess() -> None:
    assert highest_thresholds([det("non-monotone", [0.05, 0.4, 0.1, 0.1])], 0.2).by_band == 0.1


def test_a_curve_that_noise_made_run_backwards_is_fitted_monotone() -> None:
    points = curve(det("noisy", [0.05, 0.4, 0.1, 0.3]))
    fit = monotone(points)
    assert [threshold for threshold, *_ in fit] == [point.threshold for point in points]
    assert [round(rejects.value, 9) for _, rejects, _ in fit] == [0.05, 0.25, 0.25, 0.3]
    for _, rejects, accepts in fit:
        assert rejects.low <= rejects.value <= rejects.high
        assert accepts.value == pytest.approx(1 - rejects.value)
    for side in (0, 1):
        for name in ("value", "low", "high"):
            column = [getattr(sides[side], name) for _, *sides in fit]
            assert column == sorted(column, reverse=bool(side)), name
    straight = curve(det("good", [0.05, 0.1, 0.3]))
    assert [rejects.value for _, rejects, _ in monotone(straight)] == [0.05, 0.1, 0.3]
    assert monotone([]) == ()


def test_the_cheapest_point_depends_on_the_cost_of_a_false_accept() -> None:
    points = curve(det("a", [0.01, 0.05, 0.1, 0.5]))
    assert cheapest(points, 0.0).threshold == 0.1
    assert cheapest(points, 5.0).threshold == 0.4
    assert cheapest([], 1.0) is None
    (twelfth,) = curve(
        replace(one := det("a", [0.1]), cells=tuple(_at_a_twelfth(cell) for cell in one.cells))
    )
    assert twelfth.threshold == 1 / 12
    with pytest.raises(ValueError, match="not a DET curve"):
        curve(number("a", 0.1))


def test_the_audit_trail_detects_changed_and_removed_lines(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        audit.record(tmp_path, "ada", "export", {"release": name})
    actions, problems = audit.read(tmp_path)
    assert [action.details["release"] for action in actions] == ["one", "two", "three"]
    assert problems == []
    file = tmp_path / audit.FILE
    whole = file.read_text()
    file.write_text(whole.replace("two", "2wo"))
    assert audit.read(tmp_path)[1] == [
        "line 3 does not match the hash of the previous line: a line was changed or removed"
    ]
    file.write_text("".join(whole.splitlines(keepends=True)[1:]))
    assert audit.read(tmp_path)[1] != []
    file.write_text("rubbish\n")
    assert audit.read(tmp_path)[1] == ["line 1 is not a line of an audit trail"]
