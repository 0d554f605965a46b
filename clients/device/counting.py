"""One device's vector: the same bounded counts as a fleet's, then its own share of the noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clients.evaluate import cohort_of_one, device_vectors
from fa_core.layout import require_headroom
from fa_core.plan import Plan
from fa_core.privacy.distributed import noise_share, shares_of
from fa_core.values import Layout

Int64Array = NDArray[np.int64]

FAILED = "counting failed"
"""Why zeros are sent where counting raised. The exception's own words go nowhere: they may hold a value."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Bounded counts, int64 (layout.length,), and why they are zeros: "" where they were counted."""

    counts: Int64Array
    zeros: str


@dataclass(frozen=True, slots=True)
class Read:
    """What counting reads: tables by source, and the device's facts."""

    tables: Mapping[str, pa.Table]
    facts: Mapping[str, str]


def counted(plan: Plan, layout: Layout, read: Callable[[], Read], until: datetime) -> Counted:
    """Return a device's counts, or zeros where reading or counting raises anything: never an exception.

    A device that dropped out for what its tables hold would reveal that they hold it.
    """
    try:
        found = read()
        return Counted(count(plan, layout, found.tables, found.facts, until), "")
    except Exception:  # noqa: BLE001 - it depends on what the tables hold
        return Counted(np.zeros(layout.length, np.int64), FAILED)


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


def noised(plan: Plan, layout: Layout, counts: Int64Array, joined: int) -> Int64Array:
    """Return what is sent: under distributed noise scaled, with this device's share; else the counts.

    Raises Refused where the sum of so many devices may leave the ring.
    """
    if layout.noise == "central":
        require_headroom(layout, joined)
        return counts
    shares = shares_of(layout, joined, plan.privacy.dropout, plan.privacy.corrupt)
    return noise_share(layout, counts, shares)
