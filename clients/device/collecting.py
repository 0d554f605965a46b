"""A device's part in a collection of two aggregators: it counts, charges itself and uploads once.

The first invitation that a device believes and may answer makes its report. One transaction writes the
charge, the receipt, the report's bytes and the statement that takes it back; only then is anything sent. So
a crash leaves one of two things: nothing charged and nothing sent; or charged, and the same bytes ready for
every later invitation to the same task, until the collection is over.

As in a round, whether a device answers depends on nothing in the event tables: where counting raises, where
rows were deleted since, and where the budget is used up, it shares zeros. The noise is the aggregators'.
"""

from datetime import datetime
from hashlib import sha256

from clients.device import reports
from clients.device.admission import Admission, Asked
from clients.device.counting import measured, read
from clients.device.interface import Declined, Reason
from clients.device.receipt import sources
from clients.device.reports import KeptReport
from clients.device.trust import Believed, believe_offer
from fa_core.collection.report import seal, withdraw
from fa_core.collection.task import Task
from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.plan import Plan, TrainPlan
from fa_core.prio.blocks import nothing, prio
from fa_core.prio.prio3 import Prio3
from fa_core.secagg import DeviceIdentity
from fa_core.values import Layout
from fa_core.wire.invitation import Invitation


class Collecting:
    """The collections of one device.

    Args:
        admission: what decides whether it takes part, over its store.
        identity: its certified key.
    """

    def __init__(self, admission: Admission, identity: DeviceIdentity) -> None:
        self._admission = admission
        self._identity = identity

    def report(self, request: bytes, now: datetime) -> bytes:
        """Return what the device says about the task of an invitation: its report, the same bytes each time,
        or the statement that takes it back. Raises Declined.

        Args:
            request: an encoded `Invitation`, whose `request` is an encoded `Offer`.
            now: the device's clock.
        """
        digest, store = sha256(request).digest(), self._admission.store
        open_now = reports.still_open(store.connection, now)
        if (same := next((each for each in open_now if each.request == digest), None)) is not None:
            return same.reply
        invitation, believed = self._admission.believe(request, now)
        with self._admission.noting(invitation, believed.plan, now):
            asked = Asked(invitation, believed, _layout(believed))
            self._admission.require_paid(asked)
            task = self._task(invitation, believed, asked.layout, now)
            if (known := next((each for each in open_now if each.task == task.id), None)) is not None:
                with self._admission.writing():
                    reports.believed(store.connection, task.id, digest)
                return known.reply
            self._admission.admit(asked, now)
            self._admission.admit_now(asked, now)
            return self._make(asked, task, digest, now)

    def withdrawals(self, now: datetime) -> list[tuple[bytes, bytes]]:
        """Return (task's id, statement) of each report that was taken back while its collection is open."""
        kept = reports.still_open(self._admission.store.connection, now)
        return [(each.task, each.withdrawal) for each in kept if each.report is None]

    def _task(self, invitation: Invitation, believed: Believed, layout: Layout, now: datetime) -> Task:
        pins, population = self._admission.terms.pins, self._admission.population
        return believe_offer(invitation, believed.plan, layout, pins, population, now)

    def _make(self, asked: Asked, task: Task, digest: bytes, now: datetime) -> bytes:
        """Count, and write charge, receipt and report."""
        plan, store, until = asked.plan, self._admission.store, asked.invitation.until
        system, deleted = _system(plan), store.last_deletion()
        found = measured(plan, lambda: read(store, plan, until, now), until)
        with self._admission.writing():
            about = {"task": task.id.hex(), "closes": f"{task.closes:%Y-%m-%d %H:%M UTC}"}
            zeros = self._admission.charge(asked, found.zeros, deleted, now, about)
            report = seal(task, system, nothing(plan) if zeros else found.counts, self._identity)
            kept = KeptReport(
                task=task.id,
                release=task.release,
                family=plan.metadata.name,
                request=digest,
                closes=task.closes,
                purpose=plan.eligibility.consent,
                tables=sources(plan),
                report=report.encode(),
                withdrawal=withdraw(task, report, self._identity),
            )
            reports.keep(store.connection, kept)
        return kept.reply


def _layout(believed: Believed) -> Layout:
    """Return what a plan compiles to. Raises Declined for one that two aggregators may not sum."""
    if believed.plan.privacy.sum != "two_aggregators" or isinstance(believed.plan, TrainPlan):
        raise Declined(Reason.SUM)
    try:
        return compile_plan(believed.plan)
    except (BadInput, ValueError):
        raise Declined(Reason.LIMITS) from None


def _system(plan: Plan) -> Prio3:
    """Return the proof system of a plan's reports. Raises Declined for a plan that has none."""
    try:
        return prio(plan)
    except (BadInput, ValueError):
        raise Declined(Reason.LIMITS) from None
