"""What the server and every device derive alike from an invitation, so that they agree without asking."""

from hashlib import sha256

from fa_core.layout import compile_plan
from fa_core.plan import Plan
from fa_core.secagg import Task
from fa_core.values import Layout


def task_of(plan: Plan, release: bytes, attempt: int, checkpoint: bytes) -> tuple[Layout, Task]:
    """Return a plan's layout and the secure aggregation's task for one attempt at one release.

    Args:
        release: id of the release, 16 bytes.
        attempt: 0 for the first.
        checkpoint: the transparency log's note under which the plan was shown.
    """
    layout, privacy = compile_plan(plan), plan.privacy
    task = Task(
        plan_hash=bytes.fromhex(layout.plan_hash),
        release=release,
        attempt=attempt,
        length=layout.length,
        bits=layout.modulus_bits,
        dropout=privacy.dropout,
        corrupt=privacy.corrupt,
        min_devices=privacy.min_cohort,
        checkpoint=sha256(checkpoint).digest(),
    )
    return layout, task
