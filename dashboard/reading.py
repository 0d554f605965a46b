"""What the pages read from the store, each thing once: releases are frozen, so they are kept by their id.

The catalogue is asked again every few seconds. Nothing here writes.
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
from fa_core.plan import Plan, from_canonical
from fa_core.store import Entry, Failure, Query, Store, open_store
from fa_core.values import Estimate, Estimates, Release

FRESH_SECONDS: Final = 3.0
KEPT: Final = 48
"""Releases held in memory at once; the numbers of one take a few megabytes at most."""

TABLES: Final = frozenset({"det", "confusion", "histogram"})
"""Kinds that have many numbers a group."""

SHOWN_FAILURES: Final = 200


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A release with everything that is read from it.

    Attributes:
        document: the plan as JSON, for its names; it may hold what this version would refuse.
        plan: the same as a checked plan, None where this version refuses it.
    """

    entry: Entry
    release: Release
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

    def told(self, key: str) -> str:
        """Return what the plan's metadata says under a key, as text, empty where it says nothing."""
        metadata = self.document.get("metadata")
        return str(metadata.get(key, "")) if isinstance(metadata, Mapping) else ""


def grouping_of(result: Estimate) -> tuple[str, ...]:
    """Return the segments that a number is cut by."""
    return tuple(name for name, _ in result.group)


@lru_cache(maxsize=4)
def open_catalogue(where: str) -> Store:
    """Return the store, opened once. Raises BadInput where there is none."""
    return open_store(where, create=False)


class _Fresh:
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


_fresh = _Fresh()


def forget() -> None:
    """Read the catalogue again at the next call, after a run has ended."""
    _fresh.forget()


def entries(where: str) -> tuple[Entry, ...]:
    """Return every release, newest first."""
    found: tuple[Entry, ...] = _fresh.get(where, "entries", lambda store: store.releases(Query(), 10**6))
    return found


def failures(where: str) -> tuple[Failure, ...]:
    """Return the newest failed rounds."""
    found: tuple[Failure, ...] = _fresh.get(where, "failures", lambda store: store.failures(SHOWN_FAILURES))
    return found


@lru_cache(maxsize=KEPT)
def body(where: str, entry: Entry) -> Body:
    """Return everything of a release. Raises BadInput where its file is gone or damaged."""
    release, estimates = open_catalogue(where).read(entry)
    document = json.loads(release.plan)
    try:
        plan = from_canonical(release.plan)
    except BadInput:
        plan = None
    return Body(entry, release, estimates, document, plan)


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


@lru_cache(maxsize=4096)
def kinds(where: str, entry: Entry) -> frozenset[str]:
    """Return the kinds of metrics that a release holds."""
    return frozenset(open_catalogue(where).results([entry], ("kind",))["kind"].unique().to_pylist())


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
            found[name] = tuple(
                entry for entry in each if entry.plan_hash == each[0].plan_hash or kind in kinds(where, entry)
            )
    return found


def with_numbers(where: str) -> dict[str, tuple[Entry, ...]]:
    """Return the plans whose newest release holds a metric with one number a group."""
    return {name: each for name, each in plans(where).items() if kinds(where, each[0]) - TABLES}


def warm(where: str) -> None:
    """Read what the first page shows, so that nobody waits for it."""
    for each in plans(where).values():
        for entry in each[:2]:
            body(where, entry)
