"""Numbers are written one way everywhere: unit, digits, and what is at an end of the possible range."""

from dataclasses import replace
from fractions import Fraction

import pytest

from fa_core.cli import render
from fa_core.estimate import estimands
from fa_core.estimate.measure import difference, measure
from fa_core.estimate.sentences import about_estimand
from tests.estimate.test_judge import number
from tests.metrics.samples import SAMPLES, plan_of

EVENTS = "of at most 5 events a device"


def test_units_are_those_of_each_kind_and_axis() -> None:
    assert measure("rate", "").text(0.125, 0.002) == "12.5%"
    assert measure("paired_difference", "b less a").interval(-0.02, 0.01) == "−2.0 to +1.0 points"
    assert measure("det", "", (("axis", "false_accepts_per_hour"),)).text(0.25, 0.04) == "0.25 per hour"
    assert measure("det", "", (("axis", "false_reject_rate"),)).text(0.25, 0.04) == "25%"
    assert measure("count", "events").text(12345.6, 100) == "12,346 events"
    assert measure("ratio", "word_errors per words").text(0.2468, 0.004) == "0.247"
    assert measure("paired_difference", "b less a").axis == "b − a, percentage points"


def test_a_mean_of_counts_is_a_number_and_never_a_percentage() -> None:
    assert measure("mean", "").text(1.7, 0.04) == "1.70"
    assert difference("mean", "").text(0.2, 0.04) == "+0.20"


def test_a_width_is_in_the_unit_of_the_number() -> None:
    assert measure("rate", "").width(0.0182) == "± 1.82 points"
    assert measure("rate", "").width(0.182) == "± 18.2 points"
    assert measure("rate_per_hour", "per hour").width(0.0182) == "± 0.0182 per hour"
    assert measure("paired_difference", "b less a").width(0.0182) == "± 1.82 points"
    assert measure("count", "events").width(1234.5) == "± 1,234 events"


def test_a_limit_has_all_the_digits_that_were_written() -> None:
    assert measure("rate", "").exact(Fraction("0.025")) == "2.5%"
    assert measure("rate_per_hour", "per hour").exact(Fraction("0.05")) == "0.05 per hour"


def test_an_estimate_at_the_end_of_its_interval_is_a_bound() -> None:
    of = measure("rate", "")
    shown = replace(number("a", 0.0, 0.1), estimate=0.0, low=0.0, high=0.04)
    assert of.estimate(shown) == "at most 4%"
    assert of.with_interval(shown) == "at most 4% (0–4%)"
    assert of.estimate(replace(shown, estimate=1.0, low=0.97, high=1.0)) == "at least 97.0%"
    assert of.estimate(replace(shown, estimate=0.01)) == "1%"
    assert of.estimate(replace(shown, estimate=None, low=None, high=None)) == "—"


def test_devices_are_never_negative() -> None:
    assert render.devices(-19.0, 13.0) == "at most 6"
    assert render.devices(-90.0, 13.0) == "at most 0"
    assert render.devices(321.2, 4.5) == "321 ± 4.5"
    assert render.devices(None, None) == ""


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("rate", EVENTS),
        ("rate_per_hour", "of at most 5 hours a device, and at most 2 events in each"),
        ("ratio", f"{EVENTS}, each scaled down as a whole to at most 9 word errors and 7 words"),
        ("mean", f"{EVENTS}, each counted as 100 to 900 ms"),
        ("count", EVENTS),
        ("paired_difference", "of at most 5 events a device that both models scored"),
        ("histogram", f"{EVENTS}; values past the edges are in the first and last bin"),
        ("confusion", EVENTS),
        (
            "det",
            f"{EVENTS}, and of at most 5 hours a device with at most 2 false accepts in each",
        ),
    ],
)  # fmt: skip
def test_every_kind_says_what_its_numbers_are_of(kind: str, words: str) -> None:
    assert estimands(plan_of(kind, max_events=5)) == {"metric": words}


def test_every_kind_is_in_that_list() -> None:
    listed = [mark.args[1] for mark in test_every_kind_says_what_its_numbers_are_of.pytestmark]  # type: ignore[attr-defined]
    assert {kind for kind, _ in listed[0]} == set(SAMPLES)


def test_releases_of_different_caps_are_said_to_differ() -> None:
    few, many = "of at most 1 event a device", "of at most 24 events a device"
    assert about_estimand(many, many) == "Numbers are of at most 24 events a device."
    assert about_estimand(many, few) == f"Numbers are {many} before, {few} after."
    assert about_estimand("") == about_estimand(many, "") == ""
