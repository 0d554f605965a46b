"""One device's counts, the same bounded ones as a fleet's: as a vector with its own share of the noise, or as
what it shares between two aggregators, who add theirs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clients.device.receipt import sources
from clients.device.store import Store
from clients.evaluate import cohort_of_one, device_tallies, device_vectors
from fa_core.layout import require_headroom
from fa_core.plan import Plan
from fa_core.prio.blocks import encode, nothing
from fa_core.privacy.distributed import noise_share, shares_of
from fa_core.values import Layout

Int64Array = NDArray[np.int64]

FAILED = "counting failed"
"""Why zeros are sent where counting raised. The exception's own words go nowhere: they may hold a value."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Bounded counts, int64 (layout.length,) or (elements,), and why they are zeros: "" where they were
    counted."""

    counts: Int64Array
    zeros: str


@dataclass(frozen=True, slots=True)
class Read:
    """What counting reads: tables by source, and the device's facts."""

    tables: Mapping[str, pa.Table]
    facts: Mapping[str, str]


def read(store: Store, plan: Plan, until: datetime, now: datetime) -> Read:
    """Return what a plan reads of a store, for the window that ends at `until`.

    Rows past their retention that are not yet deleted at `now` are not read.
    """
    kept, purpose = store.rules.kept_since, plan.eligibility.consent
    tables = {
        name: store.table(name, purpose, max(until - plan.window, kept(name, now)), until)
        for name in sources(plan)
    }
    return Read(tables, store.facts())


def counted(plan: Plan, layout: Layout, read: Callable[[], Read], until: datetime) -> Counted:
    """Return a device's counts, or zeros where reading or counting raises anything: never an exception.

    A device that dropped out for what its tables hold would reveal that they hold it.
    """
    try:
        found = read()
        return Counted(count(plan, layout, found.tables, found.facts, until), "")
    except Exception:  # noqa: BLE001 - it depends on what the tables hold
        return Counted(np.zeros(layout.length, np.int64), FAILED)


def measured(plan: Plan, read: Callable[[], Read], until: datetime) -> Counted:
    """Return what a device shares between two aggregators, as `counted` does."""
    try:
        found = read()
        return Counted(measure(plan, found.tables, found.facts, until), "")
    except Exception:  # noqa: BLE001 - it depends on what the tables hold
        return Counted(nothing(plan), FAILED)


def count(
    plan: Plan,
    layout: Layout,
    tables: Mapping[str, pa.Table],
    facts: Mapping[str, str],
    until: datetime,
) -> Int64Array:
    """Return this device's bounded counts, int64 (layout.length,), from its tables and facts."""
    vectors = device_vectors(plan, layout, cohort_of_one(facts, tables), until)
    return np.asarray(vectors[0], np.int64)


def measure(
    plan: Plan, tables: Mapping[str, pa.Table], facts: Mapping[str, str], until: datetime
) -> Int64Array:
    """Return what this device shares of its bounded counts, int64 (elements,), from its tables and facts.

    Raises ValueError where two aggregators do not sum the plan.
    """
    tallies = device_tallies(plan, cohort_of_one(facts, tables), until)
    return np.asarray(encode(plan, tallies)[0], np.int64)


def noised(plan: Plan, layout: Layout, counts: Int64Array, joined: int) -> Int64Array:
    """Return what is sent: under distributed noise scaled, with this device's share; else the counts.

    Raises Refused where the sum of so many devices may leave the ring.
    """
    if layout.noise == "central":
        require_headroom(layout, joined)
        return counts
    shares = shares_of(layout, joined, plan.privacy.dropout, plan.privacy.corrupt)
    return noise_share(layout, counts, shares)
