"""Adding a metric kind touches nothing else: this file adds one, and a plan, a fleet and a reader take it.

`longest` is a kind that nobody else has: the share of devices whose longest dictation reaches a length. Each
device answers yes or no, so its bound is 1 and its noise the least there is.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pytest
from pydantic import Field

from clients.evaluate import cohort_of_fleet, fleet_sum, seeded_randomness
from fa_core.estimate import estimate
from fa_core.layout import compile_plan
from fa_core.metrics import (
    KINDS,
    Bounds,
    FieldUse,
    Filter,
    MetricSpec,
    Part,
    PartSum,
    Reading,
    Result,
    Shape,
    View,
    register,
)
from fa_core.metrics.intervals import normal_quantile
from fa_core.metrics.kind import CellOf, FloatArray, Int64Array, Units, tally
from fa_core.metrics.reading import assemble, shown_devices
from fa_core.plan import canonical
from fa_core.privacy.mechanisms import central_noise
from fa_core.tables import DICTATION_EVENTS, ERROR_KINDS
from fa_core.values import Participation, Release
from tests.metrics.samples import UNTIL, plan_with


class Longest(MetricSpec):
    """The share of devices that dictated at least `words` words in one go."""

    sources: ClassVar[tuple[str, ...]] = ("dictation_events",)
    question: ClassVar[str] = "How many people ever dictate at length?"

    kind: Literal["longest"] = "longest"
    words: int = Field(ge=1, description="The length that counts.")

    def fields(self) -> tuple[FieldUse, ...]:
        return (FieldUse("dictation_events", "words", "words", ("integer",)),)

    def parts(self, shape: Shape, bounds: Bounds) -> tuple[Part, ...]:
        touched = min(shape.touch, bounds.max_events)
        return (
            Part("reached", shape.cells, touched, touched, 3),
            Part("devices", shape.cells, touched, touched, 1),
        )

    def units(self, view: View, where: Filter, bounds: Bounds) -> Mapping[str, Units]:
        rows = view.rows("dictation_events")
        candidates = np.flatnonzero(
            rows.mask(where) & rows.mask(self.where) & ~np.isnan(rows.numbers("words"))
        )
        index = candidates[view.sample("events", rows.device[candidates], bounds.max_events)]
        long = (rows.numbers("words")[index] >= self.words).astype(np.int64)
        one = np.ones(len(index), np.int64)
        return {"units": Units(rows, index, rows.device[index], {"long": long, "one": one})}

    def count(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        sampled = units["units"]
        key = sampled.device * shape.cells + cell_of(sampled)
        size = devices * shape.cells
        found = {name: tally(sampled, key, size, name).reshape(devices, -1) for name in ("long", "one")}
        return {
            "reached": (found["long"] > 0).astype(np.int64),
            "devices": (found["one"] > 0).astype(np.int64),
        }

    def estimate(self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds, reading: Reading) -> Result:
        reached, devices = sums["reached"], sums["devices"]
        n = np.maximum(devices.values, 1.0)
        point = reached.values / n
        sd = (
            np.sqrt(reached.variance + point**2 * devices.variance + n * np.clip(point * (1 - point), 0, 1))
            / n
        )
        half = normal_quantile(reading.level) * sd
        numbers = assemble(
            point=point,
            bounds=(point - half, point + half),
            simultaneous=(point - 2 * half, point + 2 * half),
            noise=(point - half, point + half),
            denominator=devices.values,
            noise_sd=sd,
            display=(0.0, 1.0, 0.0, 1.0),
            refusals=(shown_devices(devices.values, devices.variance**0.5, reading.min_cohort),),
        )
        source = np.full(shape.cells, "", dtype=object)
        return Result(numbers, devices.values, devices.variance**0.5, source)

    def expected(self, shape: Shape, bounds: Bounds, devices: float, events: float) -> dict[str, FloatArray]:
        here, _ = shape.spread(devices, events)
        return {"reached": np.full(shape.cells, here / 2), "devices": np.full(shape.cells, here)}


@pytest.fixture
def known() -> Iterator[None]:
    register(Longest)
    yield
    del KINDS["longest"]


@pytest.mark.usefixtures("known")
def test_a_new_kind_goes_all_the_way() -> None:
    plan = plan_with(
        {"long": {"kind": "longest", "words": 30, "group_by": [[], ["accent"]]}},
        "dictation_events",
        epsilon=4,
    )
    layout = compile_plan(plan)
    devices, accents = 3000, ("en-GB", "en-IN", "en-US")
    ids = [f"device-{index:04d}" for index in range(devices)]
    facts = pa.table({"device_id": ids, "accent": [accents[index % 3] for index in range(devices)]})
    events = 2 * devices
    words = [40 if row % 2 == 0 and (row // 2) % 4 == 0 else 10 for row in range(events)]
    table = pa.table(
        {
            "device_id": [ids[row // 2] for row in range(events)],
            "time": [UNTIL.replace(hour=1)] * events,
            "model_version": ["a"] * events,
            "words": words,
            "word_errors": [0] * events,
            "corrected": [False] * events,
            **{name: pa.nulls(events, pa.int64()) for name in ERROR_KINDS},
        }
    ).cast(DICTATION_EVENTS.arrow_schema(device_id=True))
    fleet = cohort_of_fleet(facts, {"dictation_events": table})
    sums = fleet_sum(plan, layout, fleet, UNTIL, seeded_randomness(1))
    release = Release(
        id="0" * 32,
        plan=canonical(plan),
        layout=layout,
        population="tests",
        engine="local",
        simulated=True,
        created=datetime(2026, 11, 22, 4, tzinfo=UTC),
        window_start=UNTIL - plan.window,
        window_end=UNTIL,
        participation=Participation(devices, devices, 0, devices),
        sums=central_noise(layout, sums),
        scales=np.ones(len(layout.blocks), np.int64),
        noise_variance=np.array([float(block.variance) for block in layout.blocks]),
        secure_aggregation=True,
    )
    found = {result.group: result for result in estimate(release).results}
    everyone = found[()]
    assert everyone.kind == "longest"
    assert everyone.estimate is not None
    # A noise of sd 9 devices of 3,000: twenty of them would be a false alarm of under 1e-80.
    assert everyone.estimate == pytest.approx(0.25, abs=0.06)
    assert {group[0][1] for group in found if group} == {"en-GB", "en-IN", "other"}


def test_a_name_cannot_be_taken_twice() -> None:
    class Rate(Longest):
        kind: Literal["rate"] = "rate"  # type: ignore[assignment]

    with pytest.raises(ValueError, match="rate"):
        register(Rate)
