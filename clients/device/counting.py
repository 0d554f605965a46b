"""One device's vector: the same bounded counts as a fleet's, then its own share of the noise."""

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clients.evaluate import cohort_of_one, device_vectors
from fa_core.plan import Plan
from fa_core.privacy.distributed import noise_share, shares_of
from fa_core.values import Layout

Int64Array = NDArray[np.int64]


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
    """Return what is sent: under distributed noise scaled, with this device's share; else the counts."""
    if layout.noise == "central":
        return counts
    shares = shares_of(layout, joined, plan.privacy.dropout, plan.privacy.corrupt)
    return noise_share(layout, counts, shares)
