"""What the devices of a drawn fleet record while a rollout is under way. Simulation only, by seed.

A fleet that `make_fleet` wrote has both models' scores of every moment, and what each device took it for.
Here one model acts, the other is heard beside it or not at all, and people react to the acting one alone:

* in shadow a moment that the acting model marks, or after which somebody tries again, is labelled for both
  models: two rows of `wake_events` with equal times. A moment that only the candidate marks, and that nobody
  reacts to, is a row of `detections`. What neither marks, and nobody repeats, is not recorded;
* live, the candidate acts on some devices, and each device has the rows of its acting model alone.

People try again after a share `reactions` of the acting model's misses; its wakes are all labelled.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clients.evaluate import places_in
from clients.fleet.tables import DEVICES_FILE, METADATA_FILE, Fleet
from fa_core.tables import DETECTIONS, LABEL_SOURCES, LISTENING, OUTCOMES, WAKE_EVENTS

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

TRUE_ACCEPT, FALSE_REJECT, FALSE_ACCEPT, TRUE_REJECT = range(4)
_SOURCES: Final = tuple(LABEL_SOURCES.index(name) for name in ("follow_up", "retry", "cancel", "near_miss"))


@dataclass(frozen=True, slots=True)
class Model:
    """A model in a fleet's rollout.

    Attributes:
        version: what the rows name it.
        scored_by: the version in the drawn fleet whose scores it has.
        threshold: it wakes strictly over it.
        own_wakes: false wakes an hour that it has only where it acts, since it hears its own answers.
    """

    version: str
    scored_by: str
    threshold: float
    own_wakes: float = 0.0


@dataclass(frozen=True, slots=True)
class Staging:
    """A stage: who acts where. `share` of the devices have the candidate acting, 0 in shadow."""

    baseline: Model
    candidate: Model
    share: float
    reactions: float
    seed: int


@dataclass(frozen=True)
class Moments:
    """What was drawn, a row for each moment: its row in the fleet's table, and both models' decisions.

    Attributes:
        row: (M,), of the table's rows in which the moment stands. device: (M,), its device's place.
        meant: whether the device took it for meant. scores, wakes: (2, M), of baseline and candidate.
        retried: whether somebody tries again, should the acting model have missed it.
    """

    row: Ints
    device: Ints
    meant: Bools
    scores: NDArray[np.float64]
    wakes: Bools
    retried: Bools


def stage_fleet(
    fleet: Fleet, staging: Staging, since: datetime | None = None, until: datetime | None = None
) -> Fleet:
    """Return what the devices of `fleet` record in a stage that lasts from `since` to `until`, its tables of
    the wake word alone."""
    end = fleet.until if until is None else until
    drawn = {name: _between(fleet.tables[name], since, end) for name in (WAKE_EVENTS.name, LISTENING.name)}
    during = replace(fleet, tables=drawn, until=end)
    moments = _moments(during, staging)
    acts = candidate_acts(len(fleet.devices), staging)
    staged = _live(during, moments, acts, staging) if staging.share else _shadow(during, moments, staging)
    return replace(during, tables={**staged, LISTENING.name: _listening(during, acts, staging)})


def write_fleet(fleet: Fleet, out: Path) -> None:
    """Write a fleet as a new directory, which `read_fleet` reads."""
    out.mkdir(parents=True)
    pq.write_table(fleet.devices, out / DEVICES_FILE)
    for name, table in fleet.tables.items():
        pq.write_table(table, out / f"{name}.parquet", compression="zstd")
    described = {
        "population": fleet.population,
        "until": fleet.until.isoformat(),
        "synthetic": fleet.synthetic,
    }
    (out / METADATA_FILE).write_text(json.dumps(described, indent=2) + "\n", "utf-8")


def candidate_acts(devices: int, staging: Staging) -> Bools:
    """Return on which devices the candidate acts, (D,): nested, so that a larger share adds devices."""
    return np.random.default_rng([staging.seed, 0]).random(devices) < staging.share


def _moments(fleet: Fleet, staging: Staging) -> Moments:
    table = fleet.tables[WAKE_EVENTS.name]
    version, names = _codes(table["model_version"])
    scores = table["score"].to_numpy()
    places = {name: np.flatnonzero(version == code) for code, name in enumerate(names)}
    row = places[staging.baseline.scored_by]
    outcome, outcomes = _codes(table["outcome"])
    meant = [outcomes.index(OUTCOMES[at]) for at in (TRUE_ACCEPT, FALSE_REJECT) if OUTCOMES[at] in outcomes]
    found = np.stack([scores[places[each.scored_by]] for each in (staging.baseline, staging.candidate)])
    limits = np.array([[staging.baseline.threshold], [staging.candidate.threshold]])
    retried = np.random.default_rng([staging.seed, 1, len(row)]).random(len(row)) < staging.reactions
    return Moments(
        row=row,
        device=places_in(table["device_id"], fleet.devices["device_id"])[row],
        meant=np.isin(outcome[row], meant),
        scores=found,
        wakes=found > limits,
        retried=retried,
    )


def _shadow(fleet: Fleet, moments: Moments, staging: Staging) -> dict[str, pa.Table]:
    acting, candidate = moments.wakes
    labelled = acting | (moments.meant & moments.retried)
    place = np.repeat(np.flatnonzero(labelled), 2)
    model = np.arange(place.size) % 2
    unlabelled = np.flatnonzero(~labelled & candidate)
    return {
        WAKE_EVENTS.name: _events(fleet, moments, staging, place, model),
        DETECTIONS.name: _detections(fleet, moments, staging, unlabelled),
    }


def _live(fleet: Fleet, moments: Moments, acts: Bools, staging: Staging) -> dict[str, pa.Table]:
    model = acts[moments.device].astype(np.int64)
    wakes = moments.wakes[model, np.arange(model.size)]
    kept = np.flatnonzero(wakes | (moments.meant & moments.retried))
    events = _events(fleet, moments, staging, kept, model[kept])
    if staging.candidate.own_wakes:
        events = pa.concat_tables(
            [events, _own_wakes(fleet, acts, staging, events.schema)]
        ).unify_dictionaries()
        order = np.argsort(places_in(events["device_id"], fleet.devices["device_id"]), kind="stable")
        events = events.take(pa.array(order))
    return {WAKE_EVENTS.name: events}


def _own_wakes(fleet: Fleet, acts: Bools, staging: Staging, schema: pa.Schema) -> pa.Table:
    """Return the false wakes that the candidate has only where it acts."""
    hours = _listening(fleet, acts, staging)
    acting = acts[places_in(hours["device_id"], fleet.devices["device_id"])]
    randomness = np.random.default_rng([staging.seed, 2, len(acting)])
    minutes = hours["minutes"].to_numpy()
    count = randomness.poisson(staging.candidate.own_wakes * minutes / 60 * acting)
    row = np.repeat(np.arange(count.size), count)
    moment = (randomness.random(row.size) * minutes[row] * 60_000_000).astype(np.int64)
    time = hours["time"].cast(pa.int64()).to_numpy()[row] + moment
    code = np.zeros(row.size, np.int64)
    columns = {
        "time": pa.array(time).cast(schema.field("time").type),
        "score": pa.array(np.full(row.size, 0.99)),
        "accepted": pa.array(np.ones(row.size, np.bool_)),
        "outcome": _labels(code + FALSE_ACCEPT, OUTCOMES),
        "label_source": _labels(code + _SOURCES[FALSE_ACCEPT], LABEL_SOURCES),
    }
    kept = hours.take(pa.array(row))
    found = {name: columns.get(name) for name in schema.names}
    arrays = [kept[name] if column is None else column for name, column in found.items()]
    return pa.table(arrays, names=schema.names).cast(schema)


def _events(fleet: Fleet, moments: Moments, staging: Staging, place: Ints, model: Ints) -> pa.Table:
    wakes, meant = moments.wakes[model, place], moments.meant[place]
    outcome = np.where(
        meant, np.where(wakes, TRUE_ACCEPT, FALSE_REJECT), np.where(wakes, FALSE_ACCEPT, TRUE_REJECT)
    )
    columns = {
        "model_version": _labels(model, (staging.baseline.version, staging.candidate.version)),
        "score": pa.array(moments.scores[model, place]),
        "accepted": pa.array(wakes),
        "outcome": _labels(outcome, OUTCOMES),
        "label_source": _labels(np.array(_SOURCES)[outcome], LABEL_SOURCES),
    }
    return _replaced(fleet.tables[WAKE_EVENTS.name].take(pa.array(moments.row[place])), columns)


def _detections(fleet: Fleet, moments: Moments, staging: Staging, place: Ints) -> pa.Table:
    kept = fleet.tables[WAKE_EVENTS.name].take(pa.array(moments.row[place]))
    columns = {
        "model_version": _labels(np.zeros(place.size, np.int64), (staging.candidate.version,)),
        "score": pa.array(moments.scores[1, place]),
    }
    schema = DETECTIONS.arrow_schema(device_id=True)
    return _replaced(kept, columns).select(schema.names).cast(schema)


def _listening(fleet: Fleet, acts: Bools, staging: Staging) -> pa.Table:
    table = fleet.tables[LISTENING.name]
    version, _ = _codes(table["model_version"])
    kept = table.take(pa.array(np.flatnonzero(version == version[:1])))
    device = places_in(kept["device_id"], fleet.devices["device_id"])
    model = acts[device].astype(np.int64)
    names = (staging.baseline.version, staging.candidate.version)
    return _replaced(kept, {"model_version": _labels(model, names)})


def _replaced(table: pa.Table, columns: dict[str, Any]) -> pa.Table:
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _between(table: pa.Table, since: datetime | None, until: datetime) -> pa.Table:
    kept = pc.less(table["time"], until)
    return table.filter(kept if since is None else pc.and_(kept, pc.greater_equal(table["time"], since)))


def _codes(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Return a dictionary column's codes and labels."""
    whole = column.combine_chunks()
    return whole.indices.to_numpy().astype(np.int64), whole.dictionary.to_pylist()


def _labels(codes: Ints, names: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string()))
