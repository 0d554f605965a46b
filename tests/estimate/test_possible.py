"""Groups that cannot occur are sent like all others, and left out of what is shown (FIELD 14)."""

from datetime import date

import numpy as np
import pytest

from clients.evaluate import cohort_of_one
from fa_core.estimate.possible import is_possible
from fa_core.estimate.read import estimates_of_sums, groups
from fa_core.layout import compile_plan
from fa_core.metrics import PartSum
from fa_core.plan import Plan, parse

TODAY = date(2026, 11, 28)
PLAN = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: possible, revision: 1, owner: tests, question: How many?, expires: 2099-01-01}
source: wake_events
window: 1d
where: {WHERE}
segments:
  s: {SEGMENT}
group_by: [[s]]
metrics: {wakes: {kind: count}}
privacy: {epsilon: 2, max_events: 8}
"""


def plan_of(where: str, segment: str) -> Plan:
    text = PLAN.replace("WHERE", where).replace("SEGMENT", segment)
    return parse(text.encode(), "plan.yaml", today=TODAY)


CLASSES = "device: device_class, values: [phone, speaker]"
EDGES = "event: snr_db, edges: [8, 18], labels: [noisy, moderate, quiet]"
HOURS = "event: hour, edges: [7, 18], labels: [night, day, evening]"


@pytest.mark.parametrize(
    ("where", "segment", "possible"),
    [
        ("", CLASSES, ["phone", "speaker", "other"]),
        ("device_class: speaker", CLASSES, ["speaker"]),
        ("device_class: [speaker, watch]", CLASSES, ["speaker", "other"]),
        ("device_class: {not: speaker}", CLASSES, ["phone", "other"]),
        ("accent: en-US", CLASSES, ["phone", "speaker", "other"]),
        ("", "event: playback, values: [true, false]", ["true", "false"]),
        ("", "event: playback, values: [true]", ["true", "other"]),
        ("playback: true", "event: playback, values: [true, false]", ["true"]),
        ("playback: false", "event: playback, values: [true]", ["other"]),
        ("", "event: outcome, values: [true_accept, false_reject]", ["true_accept", "false_reject", "other"]),
        ("outcome: [false_reject]", "event: outcome, values: [true_accept, false_reject]", ["false_reject"]),
        ("", EDGES, ["noisy", "moderate", "quiet", "other"]),
        ("snr_db: {lt: 8}", EDGES, ["noisy"]),
        ("snr_db: {le: 8}", EDGES, ["noisy", "moderate"]),
        ("snr_db: {ge: 8, lt: 18}", EDGES, ["moderate"]),
        ("snr_db: {gt: 3}", EDGES, ["noisy", "moderate", "quiet"]),
        ("", HOURS, ["night", "day", "evening"]),
        ("hour: {ge: 18}", HOURS, ["evening"]),
        ("hour: [3, 4]", HOURS, ["night"]),
        ("", "event: hour, values: [7, 8]", ["7", "8", "other"]),
        ("hour: {lt: 8}", "event: hour, values: [7, 8]", ["7", "other"]),
        ("wake_word: [a, b]", "event: wake_word, values: [x, z], aliases: {x: [a]}", ["x", "other"]),
    ],
)
def test_filters_and_tables_say_which_groups_can_occur(where: str, segment: str, possible: list[str]) -> None:
    plan = plan_of(where, segment)
    found = [g for g in groups(plan, ("s",)) if is_possible(plan, plan.metrics["wakes"], g)]
    assert [label for ((_, label),) in found] == possible


def test_of_the_groups_of_the_incident_plan_28_cannot_occur() -> None:
    segments = {
        "device_class": "device: device_class, values: [phone, speaker, watch]",
        "hour": "event: hour, edges: [7, 18, 22], labels: [night, day, evening, late]",
        "playback": "event: playback, values: [true, false]",
    }
    text = PLAN.replace("WHERE", "").replace("[[s]]", f"[[{', '.join(segments)}]]")
    listed = "\n".join(f"  {name}: {{{body}}}" for name, body in segments.items())
    plan = parse(text.replace("  s: {SEGMENT}", listed).encode(), "plan.yaml", today=TODAY)
    metric = plan.metrics["wakes"]
    every = groups(plan, plan.group_by[0])
    assert (len(every), sum(not is_possible(plan, metric, each) for each in every)) == (60, 28)


def test_impossible_groups_are_sent_and_not_shown() -> None:
    plan = plan_of("device_class: speaker", CLASSES)
    layout = compile_plan(plan)
    everywhere = compile_plan(plan_of("", CLASSES))
    assert [block.cells for block in layout.blocks] == [block.cells for block in everywhere.blocks]
    sums = {
        (block.metric, block.grouping, block.part): PartSum(
            np.full(block.cells, 500.0), float(block.variance), False
        )
        for block in layout.blocks
    }
    shown = estimates_of_sums(plan, sums, 1000)
    assert [each.group for each in shown] == [(("s", "speaker"),)]
    assert len(cohort_of_one({}, {})) == 1
