"""Whether a task is what a charged plan asks for: checked by the leader, and by each device with its offer.

Apart from `fa_core.collection.task`, so that who passes a task on, a gateway, reads it without knowing plans.
"""

from hashlib import sha256

from fa_core import merkle
from fa_core.collection.task import Offer, Task, Trusted
from fa_core.errors import BadInput
from fa_core.layout import layout_hash
from fa_core.plan import Plan
from fa_core.trust import checkpoint
from fa_core.values import Layout


def verify_task(task: Task, plan: Plan, layout: Layout, release: bytes, row: bytes) -> None:
    """Raise BadInput unless the task is of this plan, layout and release, and paid for by this row.

    Args:
        release: its id, 16 bytes. row: the ledger's row, as the log repeats it.
    """
    privacy, expected = plan.privacy, (bytes.fromhex(plan.hash), layout_hash(layout), release)
    if (task.plan, task.layout, task.release) != expected:
        raise BadInput("the task is of another plan, layout or release")
    if privacy.kappa is None or (task.kappa, task.least) != (privacy.kappa, privacy.min_cohort):
        raise BadInput("the task has another noise or another least batch than its plan")
    if task.until - task.start != plan.window:
        raise BadInput("the task has another window than its plan")
    if task.charge != sha256(row).digest():
        raise BadInput("the task is paid for by another charge")


def verify_offer(
    offer: Offer, plan: Plan, layout: Layout, release: bytes, row: bytes, note: bytes, trusted: Trusted
) -> Task:
    """Return the task, if it is what a believed invitation asks for. Raises BadInput.

    Args:
        plan, layout, release, row: the plan, what it compiles to, the id and the ledger's row of the
            invitation, which `clients.device.trust.believe` has checked.
        note: its checkpoint. trusted: the keys that the device pins.
    """
    task = offer.signed.task
    verify_task(task, plan, layout, release, row)
    if task.helper != trusted.helper:
        raise BadInput("the task's helper is not the one that this device trusts")
    offer.signed.verify(trusted.witness)
    found = checkpoint.parse(note)
    leaf = merkle.leaf_hash(offer.signed.entry())
    if not merkle.verify_inclusion(leaf, offer.index, found.size, offer.inclusion, found.root):
        raise BadInput("the task is not in the log")
    return task
