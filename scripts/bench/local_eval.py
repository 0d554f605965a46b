"""How quickly tables become bounded counts: one device, and a fleet, beside pandas and DuckDB.

    python -m scripts.bench.local_eval [--devices 1000000] [--events 32] [--peers 20000]

All three count the same: misses, false fires an hour and scores, in four groupings, with what measures how
much devices differ. Where nothing has to be drawn their sums are compared, and must be equal. Times are of
the process's own CPU as well as of the clock, for a machine that is shared.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Final

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from clients.evaluate import Cohort, device_vectors, fleet_sum
from fa_core.estimate.read import estimates_of_sums
from fa_core.layout import bounds_of, compile_plan, shape_of
from fa_core.metrics import PartSum
from fa_core.metrics.joint import matrix
from fa_core.metrics.joint_ratio import JointRatio
from fa_core.metrics.joint_shares import matrix as share_matrix
from fa_core.plan import Plan, parse
from fa_core.privacy.mechanisms import central_noise
from fa_core.values import Layout
from scripts.bench.tables import ACCENTS, CLASSES, UNTIL, cohort

SEGMENTS: Final = {
    "accent": {"device": "accent", "values": ACCENTS[:4]},
    "device_class": {"device": "device_class", "values": CLASSES},
    "environment": {"event": "snr_db", "edges": [8, 18], "labels": ["noisy", "moderate", "quiet"]},
}
GROUPINGS: Final = ((), ("accent",), ("accent", "device_class"), ("environment",))
SCORES: Final = ((), ("accent",))
BINS: Final = 25
HOURS: Final = 16
"""Hours that each device of a fleet listens in."""

OUTCOMES: Final = ("true_accept", "false_reject", "false_accept", "true_reject")

Sums = dict[tuple[str, tuple[str, ...], str], np.ndarray]


def plan_of(cap: int) -> Plan:
    """Return the plan that is timed; `cap` is max_events and the most hours."""
    body = {
        "apiVersion": "fa/v1",
        "kind": "EvalPlan",
        "metadata": {
            "name": "timed",
            "revision": 1,
            "owner": "bench",
            "question": "How quickly is it counted?",
            "expires": "2027-03-31",
        },
        "source": "wake_events",
        "window": "7d",
        "where": {"wake_word": "okay_nabu", "model_version": ["micro-1"]},
        "segments": SEGMENTS,
        "group_by": GROUPINGS,
        "metrics": {
            "misses": {
                "kind": "rate",
                "of": {"outcome": "false_reject"},
                "over": {"outcome": ["false_reject", "true_accept"]},
                "expect": "1/20",
            },
            "fires": {
                "kind": "rate_per_hour",
                "of": {"outcome": "false_accept"},
                "expect": "1/2",
                "max_hours": min(cap, 168),
                "max_per_hour": 2,
            },
            "score": {
                "kind": "histogram",
                "field": "score",
                "edges": {"from": 0, "to": 1, "bins": BINS},
                "by": "outcome",
                "group_by": SCORES,
            },
        },
        "privacy": {"epsilon": 1, "delta": 1e-8, "noise": "central", "max_events": cap, "min_cohort": 100},
    }
    return parse(json.dumps(body).encode(), "timed", today=date(2026, 11, 22), policy=None)


def ours(plan: Plan, layout: Layout, fleet: Cohort) -> Sums:
    """Return the fleet's sums by (metric, grouping, part)."""
    total = fleet_sum(plan, layout, fleet, UNTIL)
    return {(b.metric, b.grouping, b.part): total[b.slice] for b in layout.blocks}


def _cells(grouping: tuple[str, ...]) -> list[int]:
    return [len(SEGMENTS[name].get("values", SEGMENTS[name].get("labels"))) + 1 for name in grouping]  # type: ignore[arg-type,attr-defined,unused-ignore]


def _pairs(
    frame: pd.DataFrame, grouping: tuple[str, ...], count: str, size: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the sums of a ratio by pandas groupby, by device and group and then by group: devices, sizes,
    counts, and their products."""
    own = frame.groupby(["device", *grouping], observed=True, sort=False)[[count, size]].sum()
    own = own.rename(columns={count: "r", size: "n"})
    own["devices"] = (own["n"] > 0).astype(np.int64)
    for name, (one, other) in {"nn": ("n", "n"), "nr": ("n", "r"), "rr": ("r", "r")}.items():
        own[name] = own[one] * own[other]
    yield from _by_group(own[["devices", "n", "r", "nn", "nr", "rr"]], grouping)


def _joint(plan: Plan, name: str, grouping: tuple[str, ...], sums: Sequence[np.ndarray]) -> np.ndarray:
    """Return the joint counters that six sums by group come to: the map is linear."""
    metric = plan.metrics[name]
    assert isinstance(metric, JointRatio)
    table, domain = metric.table(shape_of(plan, grouping)), metric.domain(bounds_of(plan))
    return np.asarray((np.stack(sums, axis=-1) @ np.array(matrix(table, domain)).T).ravel())


def _shares(cap: int, sums: Sequence[np.ndarray]) -> np.ndarray:
    """Return the joint counters of a table of shares that three sums by cell come to."""
    return np.asarray((np.stack(sums, axis=-1) @ np.array(share_matrix(cap)).T).ravel())


def _by_group(own: pd.DataFrame, grouping: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    shape = _cells(grouping)
    cells = int(np.prod(shape, dtype=int))
    if not grouping:
        for name in own.columns:
            yield name, np.array([own[name].sum()], dtype=np.int64)
        return
    summed = own.groupby(level=list(grouping), observed=False).sum()
    codes = [summed.index.get_level_values(name).to_numpy() for name in grouping]
    place = np.ravel_multi_index(tuple(np.asarray(code, dtype=int) for code in codes), shape)
    for name in own.columns:
        result = np.zeros(cells, np.int64)
        result[place] = summed[name].to_numpy()
        yield name, result


class Frames:
    """The same tables as pandas frames, with segments already labelled where they are facts of a device."""

    def __init__(self, fleet: Cohort) -> None:
        self.events = self._frame(fleet, "wake_events")
        self.hours = self._frame(fleet, "listening")

    @staticmethod
    def _frame(fleet: Cohort, source: str) -> pd.DataFrame:
        table, offsets = fleet.tables[source], fleet.offsets[source]
        device = np.repeat(np.arange(len(fleet)), np.diff(offsets))
        frame: pd.DataFrame = table.to_pandas()
        frame["device"] = device
        for name, most in (("accent", 4), ("device_class", 3)):
            frame[name] = np.minimum(fleet.facts[name][0], most)[device]
        return frame


def by_pandas(plan: Plan, frames: Frames) -> Sums:
    """Return the same sums by pandas: filter, cap by a random sample, cut, group."""
    cap, hours_cap = plan.privacy.max_events, plan.metrics["fires"].max_hours  # type: ignore[attr-defined]
    sums: Sums = {}
    events, hours = frames.events, frames.hours
    events = events[(events["wake_word"] == "okay_nabu") & events["model_version"].isin(["micro-1"])]
    over = _capped(events[events["outcome"].isin(["false_reject", "true_accept"])], cap)
    over = over.assign(
        count=(over["outcome"] == "false_reject").astype(np.int64), size=1, environment=_environment(over)
    )
    for grouping in GROUPINGS:
        found = [cells for _, cells in _pairs(over, grouping, "count", "size")]
        sums["misses", grouping, "joint"] = _joint(plan, "misses", grouping, found)
    hours = hours[(hours["wake_word"] == "okay_nabu") & hours["model_version"].isin(["micro-1"])]
    hours = _capped(hours, hours_cap)
    fired = events[events["outcome"] == "false_accept"]
    fired = (
        fired.assign(hour=fired["time"].dt.floor("h"))
        .groupby(["device", "hour", "playback"], observed=True)
        .size()
        .rename("fires")
        .reset_index()
    )
    joined = hours.merge(
        fired, how="left", left_on=["device", "time", "playback"], right_on=["device", "hour", "playback"]
    )
    capped = joined["fires"].fillna(0).clip(upper=2).astype(np.int64)
    joined = joined.assign(count=capped, environment=_environment(joined))
    for grouping in GROUPINGS:
        found = [cells for _, cells in _pairs(joined, grouping, "count", "minutes")]
        sums["fires", grouping, "joint"] = _joint(plan, "fires", grouping, found)
    sums.update(_scores(events, cap))
    return sums


def _scores(events: pd.DataFrame, cap: int) -> Iterator[tuple[tuple[str, tuple[str, ...], str], np.ndarray]]:
    scored = _capped(events, cap)
    row = pd.Categorical(scored["outcome"], categories=list(OUTCOMES)).codes.astype(np.int64)
    column = np.clip((scored["score"].to_numpy() * BINS).astype(np.int64), 0, BINS - 1)
    scored = scored.assign(row=row, cell=row * BINS + column)
    for grouping in SCORES:
        sizes = scored.groupby(["device", *grouping, "row", "cell"], observed=True, sort=False).size()
        own = sizes.rename("n").reset_index()
        total = own.groupby(["device", *grouping, "row"], observed=True)["n"].transform("sum")
        found = [
            _dense(own, grouping, "cell", 4 * BINS, each)
            for each in (own["n"], own["n"] * total, own["n"] ** 2)
        ]
        yield ("score", grouping, "joint"), _shares(cap, found)
        seen = own.groupby(["device", *grouping], sort=False).size().reset_index()
        ones = pd.Series(np.ones(len(seen), np.int64), seen.index)
        yield ("score", grouping, "devices"), _dense(seen.assign(one=0), grouping, "one", 1, ones)


def _dense(
    frame: pd.DataFrame, grouping: tuple[str, ...], last: str, width: int, values: pd.Series
) -> np.ndarray:
    shape = [*_cells(grouping), width]
    keys = [frame[name] for name in (*grouping, last)]
    summed = values.groupby(keys).sum()
    place = np.ravel_multi_index(
        tuple(np.asarray(summed.index.get_level_values(level), dtype=int) for level in range(len(keys))),
        shape,
    )
    result = np.zeros(int(np.prod(shape)), np.int64)
    result[place] = summed.to_numpy()
    return result


def _environment(frame: pd.DataFrame) -> np.ndarray:
    cut = pd.cut(frame["snr_db"], [-np.inf, 8, 18, np.inf], right=False, labels=False)
    return cut.fillna(3).to_numpy().astype(np.int64)


def _capped(frame: pd.DataFrame, cap: int) -> pd.DataFrame:
    """Return at most `cap` rows of each device, drawn at random."""
    if frame.groupby("device", sort=False).size().max() <= cap:
        return frame
    shuffled = frame.sample(frac=1.0)
    return shuffled[shuffled.groupby("device", sort=False).cumcount() < cap]


DUCK_EVENTS: Final = """
create or replace temp table kept as
select device, accent, device_class, outcome, least(greatest(floor(score * 25), 0), 24)::int as bin,
       case when snr_db < 8 then 0 when snr_db < 18 then 1 when snr_db >= 18 then 2 else 3 end as environment,
       date_trunc('hour', time) as hour, playback,
       row_number() over (partition by device order by luck) as place_all,
       case when outcome in ('false_reject', 'true_accept') then
         row_number() over (partition by device, outcome in ('false_reject', 'true_accept') order by luck)
       end as place_over
from (select *, random() as luck from events) where wake_word = 'okay_nabu' and model_version = 'micro-1'
"""
DUCK_HOURS: Final = """
create or replace temp table heard as
with drawn as (
  select *, row_number() over (partition by device order by luck) as place
  from (select *, random() as luck from hours)
  where wake_word = 'okay_nabu' and model_version = 'micro-1'
), fired as (
  select device, hour, playback, count(*) as fires from kept where outcome = 'false_accept' group by all
)
select drawn.device, accent, device_class, minutes, least(coalesce(fires, 0), 2) as fires,
       case when snr_db < 8 then 0 when snr_db < 18 then 1 when snr_db >= 18 then 2 else 3 end as environment
from drawn left join fired
  on drawn.device = fired.device and drawn.time = fired.hour and drawn.playback = fired.playback
where place <= {cap}
"""
DUCK_PAIRS: Final = """
with own as (select device, {keys} sum({count}) as r, sum({size}) as n from {table} group by all)
select {keys} count(*) filter (n > 0), sum(n), sum(r), sum(n * n), sum(n * r), sum(r * r) from own {group}
"""


def by_duckdb(plan: Plan, frames: Frames) -> Sums:
    """Return the same sums by SQL in DuckDB, over the same frames, on all cores."""
    cap, hours_cap = plan.privacy.max_events, plan.metrics["fires"].max_hours  # type: ignore[attr-defined]
    base = duckdb.connect()
    base.register("events", frames.events)
    base.register("hours", frames.hours)
    base.execute(DUCK_EVENTS)
    base.execute(DUCK_HOURS.format(cap=hours_cap))
    sums: Sums = {}
    misses = f"(select * from kept where place_over <= {cap})"
    hit = "case when outcome = 'false_reject' then 1 else 0 end"
    for grouping in GROUPINGS:
        for metric, table, count, size in (
            ("misses", misses, hit, "1"),
            ("fires", "heard", "fires", "minutes"),
        ):
            text = DUCK_PAIRS.format(
                keys="".join(f"{name}, " for name in grouping),
                group=f"group by {', '.join(grouping)}" if grouping else "",
                table=table,
                count=count,
                size=size,
            )
            rows = np.array(base.execute(text).fetchall(), dtype=np.float64)
            found = [_placed(rows, grouping, index, []) for index in range(6)]
            sums[metric, grouping, "joint"] = _joint(plan, metric, grouping, found)
    for grouping in SCORES:
        keys = "".join(f"{name}, " for name in grouping)
        order = " ".join(f"when '{outcome}' then {place}" for place, outcome in enumerate(OUTCOMES))
        base.execute(
            f"create or replace temp table own as select device, {keys} (case outcome {order} end) as line, "
            f"bin, count(*) as n from kept where place_all <= {cap} group by all"
        )
        text = (
            f"select {keys} line, bin, sum(n), sum(n * total), sum(n * n) from (select *, sum(n) over "
            f"(partition by device, {keys} line) as total from own) group by all"
        )
        rows = _rows(base, text)
        found = [_placed(rows, grouping, index, [4, BINS]) for index in range(3)]
        sums["score", grouping, "joint"] = _shares(cap, found)
        group = f"group by {', '.join(grouping)}" if grouping else ""
        text = f"select {keys} count(distinct device) from own {group}"
        sums["score", grouping, "devices"] = _placed(_rows(base, text), grouping, 0, [])
    return sums


def _rows(base: duckdb.DuckDBPyConnection, text: str) -> np.ndarray:
    return np.array(base.execute(text).fetchall(), dtype=np.float64)


def _placed(rows: np.ndarray, grouping: tuple[str, ...], index: int, inner: list[int]) -> np.ndarray:
    shape = [*_cells(grouping), *inner]
    result = np.zeros(int(np.prod(shape, dtype=int)), np.int64)
    keys = len(shape)
    place = np.ravel_multi_index(tuple(rows[:, :keys].T.astype(int)), shape) if keys else np.zeros(1, int)
    result[place] = rows[:, keys + index]
    return result


def timed(work: Callable[[], object], repeats: int = 1) -> tuple[float, float]:
    """Return the least (CPU, clock) seconds of some repeats."""
    best = []
    for _ in range(repeats):
        cpu, clock = time.process_time(), time.perf_counter()
        work()
        best.append((time.process_time() - cpu, time.perf_counter() - clock))
    return min(best)[0], min(each[1] for each in best)


def same(one: Sums, other: Sums) -> None:
    """Raise where two ways of counting differ."""
    for key, cells in one.items():
        if not np.array_equal(cells, other[key]):
            raise SystemExit(f"{key}: {cells} here, {other[key]} there")


def show(what: str, found: Mapping[str, tuple[float, float]]) -> None:
    """Print times, and ratios of CPU and of clock to ours."""
    print(what)
    mine = found["unheard"]
    for name, (cpu, clock) in found.items():
        print(
            f"  {name:<8} {cpu * 1e3:10.1f} ms CPU {clock * 1e3:10.1f} ms clock"
            f"   {cpu / mine[0]:6.1f} x CPU {clock / mine[1]:6.1f} x clock"
        )


def one_device(events: int) -> None:
    """Time one device with many events, drawn down to 64 and 24 hours."""
    plan, device = plan_of(64), cohort(1, events, 168)
    layout, frames = compile_plan(plan), Frames(device)
    few, whole = cohort(1, 2000, 168), plan_of(2000)  # so few that none is left out by chance
    same(ours(whole, compile_plan(whole), few), by_pandas(whole, Frames(few)))
    device_vectors(plan, layout, device, UNTIL)
    show(
        f"one device, {events:,} events to its vector of {layout.length:,} cells",
        {
            "unheard": timed(lambda: device_vectors(plan, layout, device, UNTIL), 30),
            "pandas": timed(lambda: by_pandas(plan, frames), 10),
            "duckdb": timed(lambda: by_duckdb(plan, frames), 10),
        },
    )


def peers(devices: int, events: int) -> None:
    """Time a fleet that all three can hold, and compare their sums."""
    plan, fleet = plan_of(64), cohort(devices, events, HOURS)
    layout, frames = compile_plan(plan), Frames(fleet)
    mine = ours(plan, layout, fleet)
    same(mine, by_pandas(plan, frames))
    same(mine, by_duckdb(plan, frames))
    print("the sums of all three are equal, cell by cell")
    show(
        f"{devices:,} devices x {events} events",
        {
            "unheard": timed(lambda: ours(plan, layout, fleet), 3),
            "pandas": timed(lambda: by_pandas(plan, frames)),
            "duckdb": timed(lambda: by_duckdb(plan, frames)),
        },
    )


def fleet(devices: int, events: int) -> None:
    """Time a large fleet from tables to intervals, and say what memory it took."""
    plan = plan_of(64)
    layout, whole = compile_plan(plan), _joined(devices, events)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    cpu, clock = time.process_time(), time.perf_counter()
    sums = fleet_sum(plan, layout, whole, UNTIL)
    counted = time.perf_counter() - clock
    noised = central_noise(layout, sums).astype(np.float64)
    parts = {
        (b.metric, b.grouping, b.part): PartSum(noised[b.slice], float(b.variance), False)
        for b in layout.blocks
    }
    results = estimates_of_sums(plan, parts, devices)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    shown = sum(not result.suppressed for result in results)
    print(
        f"{devices:,} devices x {events} events ({devices * events:,} events, {devices * HOURS:,} hours), "
        f"bounded, summed, noised, with {len(results)} results ({shown} shown):\n"
        f"  {clock:.1f} s by the clock ({counted:.1f} s counting), {cpu:.1f} s CPU, one process; "
        f"{peak:.2f} GiB at most, tables included ({before:.2f} GiB to make them)"
    )


def _joined(devices: int, events: int, step: int = 50_000) -> Cohort:
    """Return a large cohort, made piece by piece so that making it takes no more room than having it."""
    pieces = [
        cohort(min(step, devices - start), events, HOURS, seed=start) for start in range(0, devices, step)
    ]
    facts = {
        name: (np.concatenate([piece.facts[name][0] for piece in pieces]), labels)
        for name, (_, labels) in pieces[0].facts.items()
    }
    tables = {name: pa.concat_tables([piece.tables[name] for piece in pieces]) for name in pieces[0].tables}
    offsets = {
        name: np.arange(devices + 1, dtype=np.int64) * width
        for name, width in (("wake_events", events), ("listening", HOURS))
    }
    return Cohort(tuple(map(str, range(devices))), facts, tables, offsets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--devices", type=int, default=100_000, help="the large fleet (1,000,000 in the record)"
    )
    parser.add_argument("--events", type=int, default=32, help="wake events of each of its devices")
    parser.add_argument("--peers", type=int, default=20_000, help="devices that pandas and DuckDB count, too")
    options = parser.parse_args()
    fleet(options.devices, options.events)
    one_device(10_000)
    peers(options.peers, options.events)


if __name__ == "__main__":
    main()
