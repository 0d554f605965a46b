"""A plan of two aggregators, and a release of it."""

from datetime import UTC, datetime

import numpy as np

from fa_core.privacy.two_aggregators import variance_in_release
from fa_core.values import Layout, Participation, Release

PLAN = """\
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: misses, revision: 1, owner: quality, question: How often?, expires: 2099-03-31}
source: wake_events
window: 7d
segments:
  accent: {device: accent, values: [en-GB, en-IN, en-US]}
group_by: [[], [accent]]
metrics:
  misses: {kind: rate, of: {outcome: false_reject}, over: {outcome: [false_reject, true_accept]}}
privacy:
  {epsilon: 1, PRIVACY}
"""


def plan_text(privacy: str) -> str:
    """Return a plan's YAML with these keys under `privacy`."""
    return PLAN.replace("PRIVACY", privacy)


def released(layout: Layout) -> Release:
    """Return a release of zeros."""
    at = datetime(2026, 11, 22, tzinfo=UTC)
    return Release(
        id="00" * 16,
        plan=b"",
        layout=layout,
        population="small",
        engine="local",
        simulated=True,
        created=at,
        window_start=at,
        window_end=at,
        participation=Participation(100, 100, 0, 100),
        sums=np.zeros(layout.length, np.int64),
        scales=np.ones(len(layout.blocks), np.int64),
        noise_variance=variance_in_release(layout),
        secure_aggregation=True,
    )
