"""`fa audit`: is the noise really there, and is it charged? The real pipeline on two neighbouring fleets."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import numpy as np
import pyarrow as pa
import typer

from clients.evaluate import Cohort, cohort_of_fleet, device_vectors
from fa_core.audit import FULL, QUICK, Audited
from fa_core.audit import audit as run_audit
from fa_core.audit.pipelines import Fleet, Window
from fa_core.cli import render
from fa_core.cli.audit_round import ask
from fa_core.plan import Plan, TrainPlan
from fa_core.tables import MOMENTS, SOURCES, VECTOR
from fa_core.values import Int64Array, Layout

UNTIL: Final = datetime(2026, 11, 16, tzinfo=UTC)
WEEK: Final = timedelta(days=7)
POPULATION: Final = 400


def audit(
    quick: Annotated[
        bool, typer.Option("--quick", help="The short form, some seconds; the full one takes minutes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Audit the noise: try to distinguish two fleets that differ in one device; broken noise must be caught.

    Then the charge: devices and witness are asked for a round that is not charged, and must refuse it. Ends
    with 1 where a check of the real pipeline fails, or a broken one passes all of them.
    """
    found = run_audit(evaluate, ask, QUICK if quick else FULL)
    good = all(each.good for each in found)
    if as_json:
        pipelines = [asdict(each) | {"caught_by": each.caught_by, "good": each.good} for each in found]
        render.as_json({"good": good, "false_alarm_below": 1e-6, "pipelines": pipelines})
    else:
        _print(found)
    if not good:
        sys.exit(1)


def _print(found: tuple[Audited, ...]) -> None:
    for each in found:
        if not each.broken:
            rows = [
                (check.name, "ok" if check.passed else "FAILS", check.found, check.claim)
                for check in each.checks
            ]
            render.table(each.name, ("check", "", "found", "claim"), rows)
    controls = [
        (each.broken, each.name, ", ".join(each.caught_by) or "NOTHING: IT ESCAPED")
        for each in found
        if each.broken
    ]
    render.table("Broken on purpose", ("what", "in", "caught by"), controls)
    bad = [f"{each.name}{f', {each.broken}' if each.broken else ''}" for each in found if not each.good]
    typer.echo("")
    typer.echo("Chance that an audit of sound noise fails: below 1e-6.")
    typer.echo(f"The audit FAILS: {'; '.join(bad)}" if bad else "The audit passes; every control was caught.")


def evaluate(plan: Plan, layout: Layout, fleet: Fleet, worst: bool, window: Window) -> Int64Array:
    """Return the bounded counts of an in-memory fleet, int64 (devices, cells), as devices count them.

    Of the neighbours, the worst device comes first; without it its tables are empty, and it still joins.
    """
    if isinstance(plan, TrainPlan):
        return device_vectors(plan, layout, _speakers(plan, worst, window), UNTIL + window * WEEK)
    outcomes = _population() if fleet == "population" else _neighbours(worst, window)
    devices = pa.table({"device_id": [f"{number:04}" for number in range(len(outcomes))]})
    until = UNTIL + window * WEEK
    rows = [
        (f"{number:04}", outcome, score)
        for number, (outcomes_of, score) in enumerate(outcomes)
        for outcome in outcomes_of
    ]
    names, kinds, scores = zip(*rows, strict=True)
    table = _events(list(names), list(kinds), list(scores), until - WEEK / 2)
    return device_vectors(plan, layout, cohort_of_fleet(devices, {"wake_events": table}), until)


def _speakers(plan: TrainPlan, worst: bool, window: Window) -> Cohort:
    """Three devices of one moment: the first far from the centre, or with none at all; the others near it."""
    far = [[100.0, -100.0][window]]
    lengths = np.array([*(far if worst else []), 0.01, 0.02])
    features = np.repeat(lengths, VECTOR).astype(np.float32)
    moments = pa.table(
        {
            "time": pa.array([UNTIL + window * WEEK - WEEK / 2] * len(lengths)),
            "wake_word": [plan.base.wake_word] * len(lengths),
            "base": [plan.base.sha256] * len(lengths),
            "features": pa.FixedSizeListArray.from_arrays(pa.array(features), VECTOR),
        }
    ).cast(MOMENTS.arrow_schema())
    first = len(lengths) - 2
    return Cohort(
        ("0", "1", "2"), {}, {"moments": moments}, {"moments": np.array([0, first, first + 1, first + 2])}
    )


Outcomes = list[tuple[list[str], float]]
"""For each device its outcomes, and the score of all of them."""


def _neighbours(worst: bool, window: Window) -> Outcomes:
    """Three devices, the first with twice the events that may count, all alike, or with none."""
    heavy = [["false_reject", "true_accept"][window]] * 8 if worst else []
    return [
        (heavy, [0.1, 0.9][window]),
        (["true_accept"] * 3 + ["false_reject"], 0.9),
        (["true_accept"], 0.2),
    ]


def _population() -> Outcomes:
    """Devices that differ: some have more misses than others, and up to five events each."""
    return [
        (
            [
                "false_reject" if (number + 3 * event) % 7 < number % 5 else "true_accept"
                for event in range(1 + number % 5)
            ],
            0.25 if number % 3 else 0.75,
        )
        for number in range(POPULATION)
    ]


def _events(names: list[str], outcomes: list[str], scores: list[float], at: datetime) -> pa.Table:
    """Return wake events, all of one time, sorted by device."""
    schema, rows = SOURCES["wake_events"].arrow_schema(device_id=True), len(names)
    plain = {
        "device_id": names,
        "time": [at] * rows,
        "outcome": outcomes,
        "score": scores,
        "accepted": [outcome == "true_accept" for outcome in outcomes],
    }
    columns = [
        pa.array(plain.get(field.name, [None] * rows), _value_type(field.type)).cast(field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_dictionary(kind) else kind
