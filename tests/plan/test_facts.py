"""Facts of the device as conditions: evaluated on the device, and nothing else changes (FIELD 14)."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from clients.device.receipt import columns, facts
from clients.evaluate import Cohort, cohort_of_fleet, cohort_of_one, device_vectors
from fa_core.layout import compile_plan
from fa_core.plan import Plan, canonical, from_canonical
from fa_core.plan.prose import describe
from fa_core.tables import WAKE_EVENTS
from tests.plan.samples import GOOD, broken, complaints, good

UNTIL = datetime(2026, 11, 22, tzinfo=UTC)
FILTERED = broken("where: {wake_word: okay_nabu", "where: {device_class: speaker, wake_word: okay_nabu")
SMALL = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: small, revision: 1, owner: tests, question: How many?, expires: 2099-01-01}
source: wake_events
window: 1d
where: {PLAN}
metrics: {wakes: {kind: count, where: {METRIC}}}
privacy: {epsilon: 2, max_events: 8}
"""


def small(plan: str = "", metric: str = "") -> Plan:
    return good(SMALL.replace("PLAN", plan).replace("METRIC", metric))


def events(devices: list[str]) -> pa.Table:
    """Return one wake event of each device named."""
    count = len(devices)
    columns = {
        "time": [datetime(2026, 11, 21, 12, tzinfo=UTC)] * count,
        "wake_word": ["okay_nabu"] * count,
        "model_version": ["2.1"] * count,
        "score": [0.9] * count,
        "accepted": [True] * count,
        "outcome": ["true_accept"] * count,
        "label_source": ["retry"] * count,
        "snr_db": [10.0] * count,
        "playback": [False] * count,
    }
    table = pa.table(columns).cast(WAKE_EVENTS.arrow_schema())
    return table.add_column(0, "device_id", pa.array(devices))


@pytest.fixture
def fleet() -> Cohort:
    devices = pa.table(
        {
            "device_id": ["a", "b", "c"],
            "device_class": ["speaker", "phone", None],
            "accent": ["en-US", "en-US", "en-GB"],
            "power_source": ["mains", "battery", None],
        }
    )
    return cohort_of_fleet(devices, {"wake_events": events(["a", "a", "b", "c"])})


def counted(plan: Plan, cohort: Cohort) -> list[int]:
    """Return the events that each device counts."""
    layout = compile_plan(plan)
    (block,) = [block for block in layout.blocks if block.part == "events"]
    return device_vectors(plan, layout, cohort, UNTIL)[:, block.start].tolist()


@pytest.mark.parametrize("where", ["plan", "metric"])
@pytest.mark.parametrize(
    ("condition", "counts"),
    [
        ("", [2, 1, 1]),
        ("device_class: speaker", [2, 0, 0]),
        ("device_class: [speaker, phone]", [2, 1, 0]),
        ("device_class: {not: speaker}", [0, 1, 0]),
        ("device_class: speaker, accent: en-GB", [0, 0, 0]),
        ("app_version: '1'", [0, 0, 0]),
        ("power_source: battery", [0, 1, 0]),
    ],
)
def test_a_device_counts_only_where_its_facts_meet_the_condition(
    fleet: Cohort, where: str, condition: str, counts: list[int]
) -> None:
    """A fact that is not known meets no condition, not even `not`, as a column that is empty."""
    assert counted(small(**{where: condition}), fleet) == counts


def test_a_power_source_is_mains_or_battery() -> None:
    """The one fact whose values are closed: a plan that asks for another is answered with those there are."""
    (line,) = complaints(SMALL.replace("PLAN", "power_source: solar").replace("METRIC", ""))
    assert "`solar`" in line
    assert "`mains`" in line


def test_one_device_decides_as_the_fleet_does() -> None:
    table = events(["a"]).drop_columns(["device_id"])
    plan = small("device_class: speaker")
    assert counted(plan, cohort_of_one({"device_class": "speaker"}, {"wake_events": table})) == [1]
    assert counted(plan, cohort_of_one({"device_class": "phone"}, {"wake_events": table})) == [0]
    assert counted(plan, cohort_of_one({}, {"wake_events": table})) == [0]


def test_a_condition_on_a_fact_changes_no_layout() -> None:
    plain, filtered = compile_plan(good()), compile_plan(good(FILTERED))
    assert plain.blocks == filtered.blocks
    assert from_canonical(canonical(good(FILTERED))) == good(FILTERED)
    assert b'"device_class":{"any_of":["speaker"]' in canonical(good(FILTERED))


def test_the_receipt_names_the_facts_that_are_used() -> None:
    plan = small("device_class: speaker")
    assert facts(plan) == ("device_class",)
    assert "device_class" not in columns(plan)
    assert "device_class is speaker" in describe(plan)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("device_class: {gt: 3}", "`device_class` has no order to compare by"),
        ("device_class: 3", "`device_class` holds text, and `3` without quotes is not"),
        ("device_clas: speaker", "which `wakes` reads; did you mean `device_class`?"),
        ("device_class: ' speaker'", "; "),
    ],
)
def test_a_wrong_condition_on_a_fact_is_named(condition: str, message: str) -> None:
    found = complaints(SMALL.replace("PLAN", condition).replace("METRIC", ""))
    assert any(message in line for line in found), found
    assert complaints(GOOD) == []
