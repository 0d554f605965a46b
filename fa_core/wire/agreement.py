"""What the server and every device derive alike from an invitation, so that they agree without asking."""

from datetime import datetime

from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.plan import Plan
from fa_core.secagg import Task
from fa_core.trust.charges import context_of
from fa_core.values import Layout


def task_of(
    plan: Plan, release: bytes, attempt: int, until: datetime, population: bytes, proofs: tuple[bytes, bytes]
) -> tuple[Layout, Task]:
    """Return a plan's layout and the secure aggregation's task for one attempt at one release.

    Everything that decides what a device counts is bound into the task: were `until` not, a server could
    ask one device about this week and all others about a week long gone, and read the one in the sum.

    Args:
        release: id of the release, 16 bytes.
        attempt: 0 for the first.
        until: end of the window, a whole second, with time zone.
        population: the one that is charged, as certificates name it, 32 bytes.
        proofs: the transparency log's note under which plan and charge were shown, and the charge's row.

    Raises BadInput for a plan whose sum two aggregators form.
    """
    layout, privacy = compile_plan(plan), plan.privacy
    if layout.kappa is not None:
        raise BadInput("two aggregators form the sum of this plan, not the devices in four stages")
    task = Task(
        plan_hash=bytes.fromhex(layout.plan_hash),
        release=release,
        attempt=attempt,
        length=layout.length,
        bits=layout.modulus_bits,
        dropout=privacy.dropout,
        corrupt=privacy.corrupt,
        min_devices=privacy.min_cohort,
        context=context_of(until, proofs),
        population=population,
    )
    return layout, task
