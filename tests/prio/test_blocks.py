"""The circuit of a plan: complete for whatever honest devices count, and each constraint kind needed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clients.evaluate import Cohort, device_tallies, device_vectors, seeded_randomness
from fa_core.layout import compile_plan
from fa_core.plan import Plan, load
from fa_core.prio.blocks import circuit, encode, nothing
from fa_core.prio.mapping import shared
from tests.metrics.samples import SAMPLES, TODAY, UNTIL, cohort, plan_of
from tests.prio.gates import gates_of

FOLDER = Path(__file__).parents[2] / "eval_plans"
TRAINING = ("hear-every-accent", "moment-norms")
PLANS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in TRAINING)


NAMES = {"wake_word": ("okay_nabu",) * 3, "model_version": ("micro-1", "embed-1", "personal")}


def named(fleet: Cohort) -> Cohort:
    """The hostile fleet with the labels that the shipped plans ask for, and a fact more."""
    tables = {}
    for source, table in fleet.tables.items():
        for column in set(NAMES) & set(table.column_names):
            other = dict(zip("abc", NAMES[column], strict=True))
            labels = [other.get(label) for label in table[column].to_pylist()]
            kind = table.schema.field(column).type
            table = table.set_column(
                table.column_names.index(column), column, pa.array(labels, pa.string()).cast(kind)
            )
        tables[source] = table
    classes = np.arange(len(fleet)) % 4 - 1, ("phone", "speaker", "watch")
    return Cohort(fleet.ids, {**fleet.facts, "device_class": classes}, tables, fleet.offsets)


def agree(plan: Plan, fleet: Cohort) -> None:
    """What devices share satisfies every gate, and comes to the vectors that four stages would send."""
    draws = seeded_randomness(3)
    elements = encode(plan, device_tallies(plan, fleet, UNTIL, draws))
    vectors = device_vectors(plan, compile_plan(plan), fleet, UNTIL, draws)
    np.testing.assert_array_equal(shared(plan).system.outputs.values(elements), vectors)
    assert vectors.any()
    gates = gates_of(circuit(plan).system)
    for row in [*elements[:3].tolist(), nothing(plan).tolist()]:
        assert not gates.violated(row)


@pytest.mark.parametrize("counters", ["joint", "blocks"])
@pytest.mark.parametrize("kind", SAMPLES)
def test_the_elements_of_every_kind_come_to_its_vector(kind: str, counters: str) -> None:
    agree(plan_of(kind, counters=counters), cohort(5, 8, 100))


@pytest.mark.parametrize("name", PLANS)
def test_the_elements_of_every_shipped_plan_come_to_its_vector(name: str) -> None:
    agree(load(FOLDER / f"{name}.yaml", today=TODAY, fleet=2_000), named(cohort(5, 8, 100)))
