"""A pair of releases isolates exactly the rows that one of them counts and the other does not."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa_core.privacy import differencing as d
from fa_core.privacy.differencing import Question, Region, overlaps, questions, region, sentence

START = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)
SHARES = {("accent", "es-en"): 0.02, ("accent", "en-IN"): 0.1, ("accent", "en-US"): 0.6}


def plan(
    accents: list[str], where: dict[str, Any] | None = None, group_by: Any = ((), ("accent",))
) -> dict[str, Any]:
    """Canonical JSON of a plan over accents."""
    return {
        "metadata": {"name": "weekly"},
        "where": where or {},
        "segments": {
            "accent": {"device": "accent", "values": accents},
            "noise": {"event": "snr_db", "values": None, "edges": ["8", "18"]},
        },
        "metrics": {"frr": {"source": "wake_events", "group_by": group_by, "where": {}}},
    }


def ask(document: dict[str, Any], release: str = "", start: datetime = START) -> Question:
    (question,) = questions(document, release, start, start + WEEK)
    return question


def test_an_accent_more_isolates_that_accent() -> None:
    old = ask(plan(["en-US", "en-GB"]), "old")
    new = ask(plan(["en-US", "en-GB", "es-en"]))
    (found,) = overlaps(new, [old], 10_000, SHARES)
    assert found.isolated is not None
    assert found.isolated.regions == (Region(frozenset(["es-en"])),)
    assert found.isolated.devices == 200
    assert sentence(found) == (
        "counts some of the same rows as release old of weekly; subtracting the two isolates accent es-en "
        "(about 200 devices at most)"
    )


def test_a_filter_that_leaves_one_value_out_isolates_it_within_every_group() -> None:
    old = ask(plan(["en-US"]), "old")
    new = ask(plan(["en-US"], {"accent": {"not_any_of": ["es-en"]}}))
    (found,) = overlaps(new, [old], 10_000, SHARES)
    assert found.isolated is not None
    assert found.isolated.regions == (Region(frozenset(["es-en"])),)


def test_a_window_moved_by_an_hour_isolates_two_hours() -> None:
    old, new = ask(plan(["en-US"]), "old"), ask(plan(["en-US"]), start=START + HOUR)
    (found,) = overlaps(new, [old])
    assert found.isolated is not None
    assert found.isolated.spans == ((START, START + HOUR), (START + WEEK, START + WEEK + HOUR))
    assert found.isolated.length == 2 * HOUR


def test_a_bound_moved_isolates_what_lies_between() -> None:
    old = ask(plan([], {"snr_db": {"ge": "10"}}, [()]), "old")
    new = ask(plan([], {"snr_db": {"gt": "9.5", "lt": None}}, [()]))
    (found,) = overlaps(new, [old])
    assert found.isolated is not None
    (piece,) = found.isolated.regions
    assert [Fraction(x, 10) in piece for x in (95, 96, 99)] == [False, True, True]
    assert 10 not in piece
    assert "snr_db above 19/2 below 10" in sentence(found)


@pytest.mark.parametrize(
    "other",
    [
        ask(plan(["en-US"]), start=START + WEEK),
        Question("", "x", "command_events", START, START + WEEK, ({},)),
        ask(plan(["en-US"], {"wake_word": {"any_of": ["alexa"]}})),
    ],
)
def test_releases_about_other_rows_are_not_named(other: Question) -> None:
    assert overlaps(other, [ask(plan(["en-US"], {"wake_word": {"any_of": ["nabu"]}}), "old")]) == ()


def test_the_same_question_again_overlaps_and_isolates_nobody() -> None:
    (found,) = overlaps(ask(plan(["en-US"], group_by=[()])), [ask(plan(["en-US"], group_by=[()]), "old")])
    assert found.isolated is None
    assert "no single subtraction" in sentence(found)


def test_the_smallest_group_comes_first() -> None:
    small = ask(plan(["en-US", "en-IN"]), "small")
    none = ask(plan(["en-US", "en-IN", "es-en"], group_by=[("accent",)]), "none")
    large = ask(plan(["es-en", "en-IN"]), "large")
    new = ask(plan(["en-US", "en-IN", "es-en"]))
    found = overlaps(new, [large, none, small], 1000, SHARES)
    assert [each.release for each in found][:2] == ["small", "large"]


VALUES: list[Any] = [Fraction(n, 2) for n in range(-2, 14)]
CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "any_of": st.lists(st.integers(0, 5), min_size=1, max_size=4),
        "not_any_of": st.lists(st.integers(0, 5), min_size=1, max_size=3),
        "lt": st.integers(0, 6).map(str),
        "le": st.integers(0, 6).map(str),
        "gt": st.integers(0, 6).map(str),
        "ge": st.integers(0, 6).map(str),
    },
)


def satisfies(value: Any, condition: dict[str, Any]) -> bool:
    """A condition, read the plain way."""
    return (
        ("any_of" not in condition or value in condition["any_of"])
        and value not in condition.get("not_any_of", ())
        and ("lt" not in condition or value < Fraction(condition["lt"]))
        and ("le" not in condition or value <= Fraction(condition["le"]))
        and ("gt" not in condition or value > Fraction(condition["gt"]))
        and ("ge" not in condition or value >= Fraction(condition["ge"]))
    )


@given(CONDITIONS, CONDITIONS)
@settings(deadline=None)
def test_regions_hold_what_conditions_say_and_subtract_exactly(a: dict[str, Any], b: dict[str, Any]) -> None:
    mine, theirs = region(a), region(b)
    pieces = d._without(mine, theirs)
    for value in VALUES:
        assert (value in mine) == satisfies(value, a)
        assert sum(value in piece for piece in pieces) == (satisfies(value, a) and not satisfies(value, b))
        assert (value in d._both(mine, theirs)) == (satisfies(value, a) and satisfies(value, b))


@given(CONDITIONS, CONDITIONS, st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_an_isolated_group_is_the_rows_counted_once(a: dict[str, Any], b: dict[str, Any], shift: int) -> None:
    """Over a small world of rows (value, accent, hour), by listing them. Filters or windows differ."""
    b = a if shift else b
    old = ask(plan([], {"x": a, "accent": {"any_of": ["p", "q"]}}, [()]), "old")
    new = ask(plan([], {"x": b, "accent": {"any_of": ["p", "q"]}}, [()]), start=START + shift * HOUR)
    found = overlaps(new, [old])
    isolated = found[0].isolated if found else None
    if isolated is None:
        return
    for value, accent, hour in product(VALUES, "pqr", [*range(6), *range(164, 174)]):
        moment = START + hour * HOUR
        times = old.start <= moment < old.end, new.start <= moment < new.end
        counted = [
            inside and satisfies(value, condition) and accent in "pq"
            for inside, condition in zip(times, (a, b), strict=True)
        ]
        row = {"x": value, "accent": accent}
        found = (
            all(row[name] in allowed for name, allowed in isolated.group.items())
            and any(start <= moment < end for start, end in isolated.spans)
            and (isolated.column == "time" or any(row[isolated.column] in each for each in isolated.regions))
        )
        assert found == (sum(counted) == 1)
