"""From a device's tables to its vector: the one path, for one device and for a whole fleet.

Rows are filtered and sampled, cut into groups, counted and bounded with numpy. A device's result
depends on its own rows, the plan and its own randomness, never on who else is in the chunk or on
which engine asked.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fa_core.errors import BadInput
from fa_core.layout import bounds_of, groupings, shape_of
from fa_core.metrics import MetricSpec, Rows, Shape, View
from fa_core.metrics.kind import CellOf, Units
from fa_core.plan import Plan
from fa_core.plan.schema import EventSegment, Segment, spellings
from fa_core.privacy.bounding import enforce
from fa_core.values import Block, Layout

Int64Array = NDArray[np.int64]

Tallies = dict[tuple[str, tuple[str, ...]], dict[str, Int64Array]]
"""(metric, grouping) -> named tallies of each device, int64 (devices, groups, …)."""

CHUNK_CELLS = 2_000_000
"""Most cells of (devices, cells) that are held at once for one block, to bound memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """The tables and facts of some devices, in the order of `ids`.

    Attributes:
        ids: device identifiers, D of them.
        facts: fact name to (codes int64 (D,), labels); -1 stands for missing.
        tables: source name to its table, sorted by device in the order of `ids`.
        offsets: source name to int64 (D + 1,): device i has the rows offsets[i] to offsets[i + 1].
    """

    ids: tuple[str, ...]
    facts: Mapping[str, tuple[Int64Array, tuple[str, ...]]]
    tables: Mapping[str, pa.Table]
    offsets: Mapping[str, Int64Array]

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> "Cohort":
        """Return the devices from `start` to `stop` (exclusive) as a cohort of their own."""
        tables, offsets = {}, {}
        for name, table in self.tables.items():
            first, last = int(self.offsets[name][start]), int(self.offsets[name][stop])
            tables[name] = table.slice(first, last - first)
            offsets[name] = self.offsets[name][start : stop + 1] - first
        facts = {name: (codes[start:stop], labels) for name, (codes, labels) in self.facts.items()}
        return Cohort(self.ids[start:stop], facts, tables, offsets)

    def choose(self, numbers: Int64Array) -> "Cohort":
        """Return some of the devices as a cohort of their own. `numbers`: int64, ascending."""
        tables, offsets = {}, {}
        for name, table in self.tables.items():
            sizes = np.diff(self.offsets[name])
            kept = np.zeros(len(self), np.bool_)
            kept[numbers] = True
            tables[name] = table.filter(pa.array(np.repeat(kept, sizes)))
            offsets[name] = np.concatenate(([0], np.cumsum(sizes[numbers])))
        facts = {name: (codes[numbers], labels) for name, (codes, labels) in self.facts.items()}
        return Cohort(tuple(self.ids[number] for number in numbers), facts, tables, offsets)


def cohort_of_one(facts: Mapping[str, str], tables: Mapping[str, pa.Table]) -> Cohort:
    """Return one device as a cohort. `facts` maps fact to value, `tables` source to its rows."""
    return Cohort(
        ids=("",),
        facts={name: (np.zeros(1, np.int64), (value,)) for name, value in facts.items()},
        tables=tables,
        offsets={name: np.array([0, table.num_rows], np.int64) for name, table in tables.items()},
    )


def cohort_of_fleet(devices: pa.Table, tables: Mapping[str, pa.Table]) -> Cohort:
    """Return a fleet as a cohort, in the order of `devices`.

    Args:
        devices: column `device_id` and one column a fact.
        tables: source name to a table with a column `device_id`; rows of unknown devices are an error.

    Raises:
        BadInput: where a row belongs to no device.
    """
    ids = devices.column("device_id").cast(pa.string())
    facts = {}
    for name in devices.column_names:
        if name != "device_id":
            column = devices.column(name).combine_chunks().cast(pa.string()).dictionary_encode()
            codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
            facts[name] = (codes, tuple(column.dictionary.to_pylist()))
    sorted_tables, offsets = {}, {}
    for name, table in tables.items():
        sorted_tables[name], offsets[name] = _by_device(name, table, ids)
    return Cohort(tuple(ids.to_pylist()), facts, sorted_tables, offsets)


def _by_device(name: str, table: pa.Table, ids: pa.ChunkedArray) -> tuple[pa.Table, Int64Array]:
    device = places_in(table.column("device_id"), ids)
    if (device < 0).any():
        raise BadInput(f"{name}: a row belongs to no device in devices.parquet")
    table = table.drop_columns(["device_id"])
    if (np.diff(device) < 0).any():
        order = np.argsort(device, kind="stable")
        table, device = table.take(order), device[order]
    sizes = np.bincount(device, minlength=len(ids))
    return table, np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))


def places_in(column: pa.ChunkedArray, known: pa.ChunkedArray) -> Int64Array:
    """Return the place of each row's text in `known`, int64, and -1 where it is not there or missing.

    Args:
        column: text, plain or as a dictionary, which may hold more than the rows do. known: unique text.
    """
    entries: list[pa.Array] = [pa.array([], pa.string())]
    rows = [np.empty(0, np.int64)]
    before = 0
    for chunk in column.chunks:
        coded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        # Chunks often share one dictionary, as large as the fleet: it is looked up once.
        if not coded.dictionary.equals(entries[-1]):
            before += len(entries[-1])
            entries.append(coded.dictionary)
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        rows.append(np.where(codes < 0, -1, codes + before))
    texts = pa.concat_arrays([each.cast(pa.string()) for each in entries])
    found = pc.index_in(texts, value_set=known.combine_chunks()).fill_null(-1)
    places = np.append(found.to_numpy(zero_copy_only=False).astype(np.int64), -1)
    return np.asarray(places[np.concatenate(rows)])


Randomness = Callable[[Cohort], Callable[[str, Int64Array, Int64Array], NDArray[np.uint64]]]
"""Given the devices, returns (purpose, device, ordinal) -> priorities, each uint64 (M,)."""


def system_randomness(cohort: Cohort) -> Callable[[str, Int64Array, Int64Array], NDArray[np.uint64]]:
    """Priorities from the operating system: what devices use."""

    def priorities(purpose: str, device: Int64Array, ordinal: Int64Array) -> NDArray[np.uint64]:
        return np.frombuffer(secrets.token_bytes(8 * len(device)), dtype=np.uint64)

    return priorities


def seeded_randomness(seed: int) -> Randomness:
    """Priorities that depend on the seed, the device and the row alone: for simulation and tests only."""

    def of(cohort: Cohort) -> Callable[[str, Int64Array, Int64Array], NDArray[np.uint64]]:
        keys = np.array([_hash(f"{seed}/{name}") for name in cohort.ids], dtype=np.uint64)

        def priorities(purpose: str, device: Int64Array, ordinal: Int64Array) -> NDArray[np.uint64]:
            stream = keys[device] ^ np.uint64(_hash(purpose))
            return _splitmix(stream + ordinal.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))

        return priorities

    return of


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _splitmix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014), vectorised."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def device_vectors(
    plan: Plan, layout: Layout, cohort: Cohort, until: datetime, randomness: Randomness = system_randomness
) -> Int64Array:
    """Return each device's bounded counts, without noise, int64 (devices, layout.length).

    Args:
        plan, layout: a plan and what it compiles to.
        cohort: the devices.
        until: end of the window (exclusive), with time zone.
        randomness: what draws the events that count; the operating system's unless simulating.

    Raises:
        BadInput: where the devices lack a table that the plan reads.
    """
    result = np.zeros((len(cohort), layout.length), np.int64)
    for start, block, counts in _counts(plan, layout, cohort, until, randomness):
        result[start : start + len(counts), block.slice] = counts
    return result


def fleet_sum(
    plan: Plan, layout: Layout, cohort: Cohort, until: datetime, randomness: Randomness = system_randomness
) -> Int64Array:
    """Return the sum of `device_vectors` over all devices, int64 (layout.length,), in bounded memory."""
    result = np.zeros(layout.length, np.int64)
    for _, block, counts in _counts(plan, layout, cohort, until, randomness):
        result[block.slice] += counts.sum(axis=0)
    return result


def _counts(
    plan: Plan, layout: Layout, cohort: Cohort, until: datetime, randomness: Randomness
) -> Iterator[tuple[int, Block, Int64Array]]:
    """Yield (first device, block, bounded counts (devices, block.cells)), chunk by chunk."""
    widest = max((block.cells for block in layout.blocks), default=1)
    step = max(1, CHUNK_CELLS // widest)
    for start in range(0, len(cohort), step):
        chunk = cohort.part(start, min(start + step, len(cohort)))
        for block, counts in _counts_of_chunk(plan, layout, chunk, until, randomness):
            yield start, block, enforce(counts, block.l1, block.l2_squared, block.linf)


def device_tallies(
    plan: Plan, cohort: Cohort, until: datetime, randomness: Randomness = system_randomness
) -> Tallies:
    """Return what `device_vectors` are functions of, by metric and grouping: what two aggregators get
    proofs of.

    Raises BadInput as `device_vectors` does, and for a plan that two aggregators do not sum.
    """
    return {
        (each.name, each.grouping): each.metric.tallies(
            each.units, each.cell_of, each.shape, bounds_of(plan), len(cohort)
        )
        for each in _sampled(plan, cohort, until, randomness)
    }


def _counts_of_chunk(
    plan: Plan, layout: Layout, cohort: Cohort, until: datetime, randomness: Randomness
) -> Iterator[tuple[Block, Int64Array]]:
    blocks, bounds = iter(layout.blocks), bounds_of(plan)
    for each in _sampled(plan, cohort, until, randomness):
        counts = each.metric.count(each.units, each.cell_of, each.shape, bounds, len(cohort))
        for part in each.metric.parts(each.shape, bounds):
            yield next(blocks), counts[part.name]


@dataclass(frozen=True, slots=True, eq=False)
class _Sampled:
    """What devices sampled for one metric, and how one grouping breaks it down."""

    name: str
    metric: MetricSpec
    units: Mapping[str, Units]
    grouping: tuple[str, ...]
    shape: Shape
    cell_of: CellOf


def _sampled(plan: Plan, cohort: Cohort, until: datetime, randomness: Randomness) -> Iterator[_Sampled]:
    """Yield every metric in every grouping, in the order of the vector; a metric's units are drawn once."""
    rows = {source: rows_in_window(cohort, source, plan, until) for source in _sources(plan)}
    draw = randomness(cohort)
    for name, metric in plan.metrics.items():

        def priorities(
            purpose: str, device: Int64Array, ordinal: Int64Array, name: str = name
        ) -> NDArray[np.uint64]:
            return draw(f"{name}/{purpose}", device, ordinal)

        units = metric.units(View(len(cohort), rows, priorities), plan.where, bounds_of(plan))
        for grouping in groupings(metric, plan):
            yield _Sampled(
                name, metric, units, grouping, shape_of(plan, grouping), cells_of(plan, grouping, cohort)
            )


def _sources(plan: Plan) -> list[str]:
    """Return every table that the plan's metrics read."""
    found: dict[str, None] = {}
    for metric in plan.metrics.values():
        found.update(dict.fromkeys((_source(metric), *metric.companions)))
    return list(found)


def _source(metric: MetricSpec) -> str:
    assert metric.source is not None, "a parsed plan has every metric's source"
    return metric.source


def rows_in_window(cohort: Cohort, source: str, plan: Plan, until: datetime) -> Rows:
    """Return the rows of a source that lie in the plan's window."""
    if source not in cohort.tables:
        raise BadInput(f"the plan reads {source}, and the fleet has no {source}.parquet")
    table, offsets = cohort.tables[source], cohort.offsets[source]
    device = np.repeat(np.arange(len(cohort), dtype=np.int64), np.diff(offsets))
    time = table.column("time").combine_chunks().cast(pa.int64()).to_numpy(zero_copy_only=False)
    end = int(until.timestamp()) * 1_000_000
    start = end - int(plan.window.total_seconds()) * 1_000_000
    inside = (time >= start) & (time < end)
    if inside.all():
        return Rows(table, device, cohort.facts)
    kept = np.flatnonzero(inside)
    return Rows(table.take(kept), device[kept], cohort.facts)


def cells_of(plan: Plan, grouping: tuple[str, ...], cohort: Cohort) -> CellOf:
    """Return the function that says which group each unit falls into."""
    segments = [plan.segments[name] for name in grouping]

    def cell_of(units: Units) -> Int64Array:
        cell = np.zeros(len(units.index), np.int64)
        for segment in segments:
            cell = cell * len(segment.labels) + _label(segment, cohort, units)
        return cell

    return cell_of


def _label(segment: Segment, cohort: Cohort, units: Units) -> Int64Array:
    """Return the index of each unit's label in the segment, `other` last."""
    labels = segment.labels
    if isinstance(segment, EventSegment) and segment.edges is not None:
        found = units.rows.bins(segment.column, tuple(float(edge) for edge in segment.edges))
        return np.minimum(found, len(labels) - 1)[units.index]
    places = spellings(segment)
    if isinstance(segment, EventSegment):
        place = np.array([*places.values(), len(labels) - 1], np.int64)
        return place[units.rows.codes(segment.column, tuple(places))[units.index]]
    codes, names = cohort.facts.get(segment.column, (np.full(len(cohort), -1, np.int64), ()))
    lookup = np.array([places.get(name, len(labels) - 1) for name in names] + [len(labels) - 1], np.int64)
    return lookup[codes][units.device]
