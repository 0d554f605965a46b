"""Cached reads from the store for the pages. Releases never change, so they are cached by their id.

The catalogue is read again every few seconds. Nothing here writes.
"""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from fa_core.errors import BadInput
from fa_core.estimate import estimands
from fa_core.estimate.sentences import about_estimand
from fa_core.plan import Plan, from_canonical
from fa_core.privacy.ledger import Charge
from fa_core.rollout.states import History, histories
from fa_core.store import Annotation, Entry, Failure, Query, Refusal, Store, labels, open_store
from fa_core.values import Estimate, Estimates, Release

FRESH_SECONDS: Final = 3.0
KEPT, GLANCES = 24, 1024
"""Releases cached in memory: whole (some megabytes each at most), and without the cells of their tables."""

TABLES: Final = frozenset({"det", "confusion", "histogram"})
"""Kinds that have many numbers a group."""

SHOWN_FAILURES: Final = 200


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A release with everything that pages read from it.

    Attributes:
        estimates: its numbers; those of a glance are without the cells of tables.
        document: the plan as JSON, for its names; it may hold what this version would refuse.
        plan: the same as a checked plan, None where this version refuses it.
    """

    entry: Entry
    estimates: Estimates
    document: Mapping[str, Any]
    plan: Plan | None

    def results(self, metric: str, grouping: tuple[str, ...]) -> tuple[Estimate, ...]:
        """Return the numbers of one metric in one grouping, in the order of the plan."""
        return tuple(
            result
            for result in self.estimates.results
            if result.metric == metric and grouping_of(result) == grouping
        )

    def groupings(self, metric: str) -> tuple[tuple[str, ...], ...]:
        """Return the groupings in which a metric was reported, in the order of the plan."""
        return tuple(dict.fromkeys(grouping_of(r) for r in self.estimates.results if r.metric == metric))

    def metrics(self, *kinds: str) -> tuple[str, ...]:
        """Return the metrics of these kinds, of all where none is given, in the order of the plan."""
        found = (r.metric for r in self.estimates.results if not kinds or r.kind in kinds)
        return tuple(dict.fromkeys(found))

    def plain_metrics(self) -> tuple[str, ...]:
        """Return the metrics with one number a group, in the order of the plan."""
        return tuple(dict.fromkeys(r.metric for r in self.estimates.results if r.kind not in TABLES))

    def estimand(self, metric: str) -> str:
        """Return what the numbers of a metric are of, "" where this version refuses the plan."""
        return "" if self.plan is None else estimands(self.plan)[metric]

    def about_estimand(self, metric: str) -> str:
        """Return that in a sentence, "" where there is none."""
        return about_estimand(self.estimand(metric))

    def metadata(self, key: str) -> str:
        """Return the value of a key of the plan's metadata as text, empty where it is missing."""
        found = self.document.get("metadata")
        return str(found.get(key, "")) if isinstance(found, Mapping) else ""


def grouping_of(result: Estimate) -> tuple[str, ...]:
    """Return the segments that an estimate is broken down by."""
    return tuple(name for name, _ in result.group)


@lru_cache(maxsize=4)
def open_catalogue(where: str) -> Store:
    """Return the store, opened once. Raises BadInput where there is none."""
    return open_store(where, create=False)


class _Cache:
    """A value that is read again once it is older than FRESH_SECONDS."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[float, Any]] = {}

    def get(self, where: str, what: str, read: Any) -> Any:
        with self._lock:
            at, value = self._kept.get((where, what), (-FRESH_SECONDS, None))
            if time.monotonic() - at >= FRESH_SECONDS:
                value = read(open_catalogue(where))
                self._kept[where, what] = (time.monotonic(), value)
            return value

    def forget(self) -> None:
        with self._lock:
            self._kept.clear()


_cache = _Cache()


def forget() -> None:
    """Clear the cache of the catalogue, after a run has ended."""
    _cache.forget()


def entries(where: str) -> tuple[Entry, ...]:
    """Return every release, newest first."""
    found: tuple[Entry, ...] = _cache.get(where, "entries", lambda store: store.releases(Query(), 10**6))
    return found


def failures(where: str) -> tuple[Failure, ...]:
    """Return the newest failed rounds."""
    found: tuple[Failure, ...] = _cache.get(where, "failures", lambda store: store.failures(SHOWN_FAILURES))
    return found


def charges(where: str, population: str) -> tuple[Charge, ...]:
    """Return every charge of a population, oldest first."""
    found: tuple[Charge, ...] = _cache.get(
        where, f"charges of {population}", lambda store: store.charges(population)
    )
    return found


def rollouts(where: str) -> tuple[History, ...]:
    """Return every rollout, oldest first."""
    found: tuple[History, ...] = _cache.get(
        where, "rollouts", lambda store: tuple(histories(store.rollouts()).values())
    )
    return found


def refusals(where: str) -> tuple[Refusal, ...]:
    """Return the newest requests that were refused."""
    found: tuple[Refusal, ...] = _cache.get(where, "refusals", lambda store: store.refusals(SHOWN_FAILURES))
    return found


def annotations(where: str, plan: str) -> tuple[Annotation, ...]:
    """Return the annotations that hold for a plan, by day."""
    found: tuple[Annotation, ...] = _cache.get(
        where, f"annotations of {plan}", lambda store: store.annotations(plan)
    )
    return found


@lru_cache(maxsize=KEPT)
def body(where: str, entry: Entry) -> Body:
    """Return everything of a release. Raises BadInput where its file is gone or damaged."""
    return Body(entry, open_catalogue(where).read(entry)[1], *_plan(where, entry.plan_hash))


@lru_cache(maxsize=GLANCES)
def glance(where: str, entry: Entry) -> Body:
    """Return a release without the cells of its tables, which is quick. Raises BadInput as `body` does."""
    return Body(entry, open_catalogue(where).glance(entry), *_plan(where, entry.plan_hash))


def release(where: str, entry: Entry) -> Release:
    """Return the noised sums of a release and what is public about them."""
    return open_catalogue(where).read(entry)[0]


@lru_cache(maxsize=GLANCES)
def _plan(where: str, plan_hash: str) -> tuple[Mapping[str, Any], Plan | None]:
    data = open_catalogue(where).plan(plan_hash)
    try:
        return json.loads(data), from_canonical(data)
    except BadInput:
        return json.loads(data), None


def most_confused(where: str, entry: Entry) -> tuple[str, str, dict[str, Any]] | None:
    """Return actual label, predicted label and cell of the confusion with the highest lower bound, over everyone."""
    wanted = (
        (pc.field("kind") == "confusion") & (pc.field("grouping") == "") & pc.field("estimate").is_valid()
    )
    table = open_catalogue(where).results([entry], _CONFUSED, wanted & pc.field("cell").is_valid())
    mixed = [(labels(row["cell"]), row) for row in table.to_pylist()]
    mixed = [(pair, row) for pair, row in mixed if len({label for _, label in pair}) == 2]
    if not mixed:
        return None
    pair, row = max(mixed, key=lambda each: each[1]["simultaneous_low"])
    return pair[0][1], pair[1][1], row


_CONFUSED: Final = (
    "metric",
    "kind",
    "unit",
    "grouping",
    "cell",
    "estimate",
    "low",
    "high",
    "simultaneous_low",
)
_TREND: Final = (
    "metric",
    "grouping",
    "group",
    "cell",
    "estimate",
    "low",
    "high",
    "suppressed",
    "reason",
    "kind",
    "unit",
)


@lru_cache(maxsize=512)
def _numbers(where: str, entry: Entry) -> pa.Table:
    """Return the plain numbers of a release, cells left out, as columns."""
    table = open_catalogue(where).results([entry], _TREND)
    return table.filter(pc.field("cell").is_null()).drop_columns(["cell"])


def kinds(where: str, entry: Entry) -> frozenset[str]:
    """Return the kinds of metrics that a release holds, which its plan says."""
    document, _ = _plan(where, entry.plan_hash)
    metrics = document.get("metrics")
    declared = metrics.values() if isinstance(metrics, Mapping) else ()
    return frozenset(str(each.get("kind")) for each in declared if isinstance(each, Mapping))


def history(where: str, found: Sequence[Entry], metric: str, grouping: Sequence[str]) -> list[dict[str, Any]]:
    """Return one metric in one grouping over releases, one row a number, with the release's entry."""
    wanted = (pc.field("metric") == metric) & (pc.field("grouping") == ",".join(grouping))
    rows = []
    for entry in found:
        rows += [row | {"entry": entry} for row in _numbers(where, entry).filter(wanted).to_pylist()]
    return rows


def plans(where: str) -> dict[str, tuple[Entry, ...]]:
    """Return the releases of each plan, newest first, the plan with the newest release first."""
    found: dict[str, list[Entry]] = {}
    for entry in entries(where):
        found.setdefault(entry.plan, []).append(entry)
    return {name: tuple(each) for name, each in found.items()}


def with_kind(where: str, kind: str) -> dict[str, tuple[Entry, ...]]:
    """Return the plans whose newest release holds a kind of metric, with their releases that do."""
    found = {}
    for name, each in plans(where).items():
        if kind in kinds(where, each[0]):
            same = {entry.plan_hash: kind in kinds(where, entry) for entry in reversed(each)}
            found[name] = tuple(entry for entry in each if same[entry.plan_hash])
    return found


def with_numbers(where: str) -> dict[str, tuple[Entry, ...]]:
    """Return the plans whose newest release holds a metric with one number a group."""
    return {name: each for name, each in plans(where).items() if kinds(where, each[0]) - TABLES}


def preload(where: str) -> None:
    """Read what the first page shows into the caches."""
    for each in plans(where).values():
        for entry in each[:2]:
            glance(where, entry)
