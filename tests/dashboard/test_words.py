"""Numbers, sentences, thresholds and the audit trail: the small pure parts."""

from dataclasses import replace
from pathlib import Path

import pytest

from dashboard.auth import audit
from dashboard.data import sentences
from dashboard.data.numbers import count, decimals, difference, group_text, listed, measure
from fa_core.estimate.thresholds import cheapest, curve, keeping
from fa_core.values import Cell, Estimate, Judgement


def number(label: str, value: float | None, half: float = 0.02, wide: float = 0.04) -> Estimate:
    shown = value is not None

    def at(offset: float) -> float | None:
        return value + offset if value is not None else None

    return Estimate(
        "misses", "rate", "", (("accent", label),), value, at(-half), at(half), at(-wide), at(wide), at(-0.01), at(0.01),
        0.95, not shown, "" if shown else "fewer than 100 devices", 1000.0, 0.01, 200.0, 4.0, "group",
    )  # fmt: skip


@pytest.mark.parametrize(
    "half, places",
    [(0.004, 3), (0.9, 1), (1.9, 1), (2.1, 0), (4.0, 0), (0.05, 2), (0.0, 0), (float("inf"), 0), (40, 0)],
)
def test_a_number_has_the_digits_that_its_interval_leaves(half: float, places: int) -> None:
    assert decimals(half) == places


def test_shares_read_as_per_cent_and_differences_as_points() -> None:
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


def test_names_are_listed_as_a_person_says_them() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefgh"), 2) == "a, b and 6 more"
    assert group_text((("accent", "es-en"), ("device_class", "watch"))) == "es-en · watch"


def test_a_difference_is_claimed_only_where_the_intervals_part() -> None:
    apart = sentences.about_groups([number("a", 0.30), number("b", 0.10), number("c", None)])
    assert "a fares worst at 30% (28–32%)" in apart
    assert "at least 12 points" in apart
    assert "Not shown: c." in apart
    near = sentences.about_groups([number("a", 0.11), number("b", 0.10)])
    assert near.startswith("No group is surely worse than another")


def test_groups_are_sorted_by_what_is_sure_and_hidden_ones_come_last() -> None:
    results = [
        number("low", 0.1),
        number("hidden", None),
        number("unsure", 0.5, 0.3, 0.45),
        number("sure", 0.3),
    ]
    assert [group_text(each.group) for each in sentences.by_evidence(results)] == [
        "sure",
        "low",
        "unsure",
        "hidden",
    ]


def test_a_judgement_keeps_its_words_and_gets_units() -> None:
    gap = Judgement("misses", ("accent",), "max gap 0.15", "not_enough_evidence", None, 0.143, 0.399,
                    "the gap between a and b may be anything from 0.143 to 0.399")  # fmt: skip
    assert sentences.about_verdict(gap, [], "rate", "") == (
        "The gap between a and b may be anything from 14 points to 40 points."
    )
    most = Judgement(
        "misses", ("accent", "class"), "max 0.3", "broken", None, None, None, "es-en · watch is above 0.3"
    )
    group = replace(number("es-en", 0.5), group=(("accent", "es-en"), ("class", "watch")))
    assert sentences.about_verdict(most, [group], "rate", "") == "es-en · watch is above 30%."
    assert sentences.about_limit(most, "rate", "") == "misses: at most 30% for every accent and class"


def test_worst_and_best_are_never_the_same_group() -> None:
    narrow, wide, wider = (
        number("narrow", 0.2, wide=0.01),
        number("wide", 0.3, wide=0.25),
        number("wider", 0.1, wide=0.3),
    )
    pair = sentences.worst_and_best([narrow, wide, wider])
    assert pair is not None
    assert [group_text(each.group) for each in pair] == ["wide", "wider"]


def det(label: str, rejects: list[float], doubt: float = 0.02) -> Estimate:
    cells = []
    for axis, scale in (("false_reject_rate", 1.0), ("false_accepts_per_hour", -1.0)):
        for place, value in enumerate(rejects):
            shown = value if scale > 0 else 1.0 - value
            cells.append(Cell((("axis", axis), ("threshold", f"0.{place + 1}")), shown, shown - doubt, shown + doubt,
                              shown - 2 * doubt, shown + 2 * doubt, False, "", 1.0, 0.1))  # fmt: skip
    return replace(number(label, None), kind="det", cells=tuple(cells), suppressed=False)


def test_the_threshold_that_keeps_everybody_is_the_worst_group_s() -> None:
    easy, hard = det("easy", [0.01, 0.05, 0.1, 0.2]), det("hard", [0.05, 0.15, 0.19, 0.5])
    found = keeping([easy, hard], 0.2)
    assert (found.confident, found.likely) == (0.2, 0.3)
    assert found.holding == hard
    assert keeping([easy], 0.99).holding is None
    assert keeping([easy, hard], 0.01).confident is None
    assert keeping([easy, replace(hard, suppressed=True)], 0.2).hidden != ()


def test_a_curve_that_wobbles_is_not_believed_past_its_first_breach() -> None:
    assert keeping([det("wobbles", [0.05, 0.4, 0.1, 0.1])], 0.2).confident == 0.1


def test_the_cheapest_point_moves_with_the_price_of_a_false_wake() -> None:
    points = curve(det("a", [0.01, 0.05, 0.1, 0.5]))
    assert cheapest(points, 0.0).threshold == 0.1
    assert cheapest(points, 5.0).threshold == 0.4
    assert cheapest([], 1.0) is None
    with pytest.raises(ValueError, match="not a DET curve"):
        curve(number("a", 0.1))


def test_the_audit_trail_shows_what_was_changed(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        audit.record(tmp_path, "ada", "export", {"release": name})
    deeds, problems = audit.read(tmp_path)
    assert [deed.details["release"] for deed in deeds] == ["one", "two", "three"]
    assert problems == []
    file = tmp_path / audit.FILE
    whole = file.read_text()
    file.write_text(whole.replace("two", "2wo"))
    assert audit.read(tmp_path)[1] == ["line 3 does not follow from the one before: something was changed"]
    file.write_text("".join(whole.splitlines(keepends=True)[1:]))
    assert audit.read(tmp_path)[1] != []
    file.write_text("rubbish\n")
    assert audit.read(tmp_path)[1] == ["line 1 is not a line of an audit trail"]
