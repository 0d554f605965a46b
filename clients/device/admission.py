"""Whether a device takes part, and what it is charged: the same for a round of four stages and a collection.

Whether it does depends on the invitation, on what its owner decided and on the conditions of the moment,
never on the event tables.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction

from clients.device import database, receipt
from clients.device.consent import allows
from clients.device.interface import Declined, Reason
from clients.device.journal import Json
from clients.device.odometer import Budget, Moment, affords, settled
from clients.device.policy import ConditionReader, Policy, asks_of, refusal, trained_enough, used_up
from clients.device.records import Contribution, Records
from clients.device.store import Store
from clients.device.trust import Believed, Pins, answered, believe
from fa_core.errors import BadInput
from fa_core.layout import covers
from fa_core.plan import Plan, TrainPlan
from fa_core.secagg import MAX_ATTEMPTS
from fa_core.values import Layout
from fa_core.wire.invitation import Invitation, decode

JOINS = 4
"""Rounds that a device joins in a day for each plan that it may answer: most of them end well."""

TOOK = timedelta(minutes=1)
"""What a contribution counts as in the day's running time. Its real time depends on the tables, and may not
decide whether a later plan is declined."""

DAY = timedelta(days=1)

DELETED = "rows were deleted after they were counted"
SPENT = "no budget left"
"""Why zeros are sent of a device that counted."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the owner and the maker decided: the budget, the policy, the trusted keys."""

    budget: Budget
    policy: Policy
    pins: Pins


@dataclass(frozen=True, slots=True)
class Asked:
    """An invitation that is believed, and what its plan compiles to."""

    invitation: Invitation
    believed: Believed
    layout: Layout

    @property
    def plan(self) -> Plan:
        """The plan that is asked."""
        return self.believed.plan


class Admission:
    """What decides for one device, over its store.

    Args:
        store: open. population: the one that the device's certificate names, 32 bytes.
        conditions: reads network, power, idleness and speech at the moment it is asked.
    """

    def __init__(self, store: Store, terms: Terms, population: bytes, conditions: ConditionReader) -> None:
        self.store = store
        self.records = Records(store)
        self.terms = terms
        self.population = population
        self.conditions = conditions
        self._declined: set[tuple[str, Reason, date]] = set()

    def writing(self) -> AbstractContextManager[None]:
        """Return a transaction of the store's file, without retention: no request waits for that."""
        return database.transaction(self.store.connection)

    def believe(self, request: bytes, now: datetime) -> tuple[Invitation, Believed]:
        """Return an invitation that is believed, and write down what is now known of the log."""
        try:
            invitation = decode(request)
        except BadInput:
            raise Declined(Reason.MALFORMED) from None
        records, pins = self.records, self.terms.pins
        with self.writing():
            believed = believe(invitation, pins, self.population, records.seen(), records.revision, now)
            records.see(believed.seen)
            records.see_revision(believed.plan.metadata.name, believed.plan.metadata.revision)
        return invitation, believed

    @contextmanager
    def noting(self, invitation: Invitation, plan: Plan, now: datetime) -> Iterator[None]:
        """Write a decision against a believed plan into the journal, once a day for a plan and reason."""
        try:
            yield
        except Declined as declined:
            key = (plan.hash, declined.reason, now.date())
            if key not in self._declined:
                self._declined.add(key)
                release, why = invitation.release.hex(), declined.reason.value
                with self.writing():
                    self.store.append(now, "declined", {"plan": plan.name, "release": release, "why": why})
            raise

    def require_paid(self, asked: Asked) -> None:
        """Raise Declined unless the charge in the invitation is for exactly what the plan costs."""
        if not covers(asked.believed.charge, asked.plan, asked.layout):
            raise Declined(Reason.NOT_CHARGED)

    def admit(self, asked: Asked, now: datetime) -> None:
        """Raise Declined unless consent, attempt, age, window and the day's limits allow this contribution.

        Asked before a device counts and, since others may have ended meanwhile, as it is charged.
        """
        plan, terms, records, until = asked.plan, self.terms, self.records, asked.invitation.until
        if not allows(self.store.grants(), plan.eligibility.consent, now):
            raise Declined(Reason.CONSENT)
        if asked.invitation.attempt >= MAX_ATTEMPTS:
            raise Declined(Reason.LIMITS)
        if used_up(terms.policy, records.past(), now):
            raise Declined(Reason.DAILY_LIMIT)
        if isinstance(plan, TrainPlan) and trained_enough(terms.policy, records.trainings().values(), now):
            raise Declined(Reason.TRAINING_LIMIT)
        moment, first = self._moment(asked.believed, now), records.seen().first
        if first is None or not settled(first, moment, terms.budget):
            raise Declined(Reason.SETTLING)
        if answered(records.contributions(), plan.metadata.name, until - plan.window, until):
            raise Declined(Reason.WINDOW)

    def admit_now(self, asked: Asked, now: datetime) -> None:
        """Raise Declined unless the policy, the conditions of the moment and today's joins allow joining.

        Asked before a device counts alone: one that left a round when somebody speaks, or picks it up, would
        show it. Each roster draws the ring anew: a server that discards rosters until one suits it must not
        get many.
        """
        policy, records = self.terms.policy, self.records
        asks = asks_of(asked.plan, asked.layout)
        why = refusal(policy, asks, self.conditions(now), records.past(), now)
        if why is not None:
            raise Declined(why)
        if sum(now - at < DAY for at in records.joins()) >= policy.plans_a_day * JOINS:
            raise Declined(Reason.DAILY_LIMIT)

    def charge(
        self, asked: Asked, zeros: str, deleted: int, now: datetime, more: Mapping[str, Json] | None = None
    ) -> str:
        """Write charge, contribution and receipt, in the transaction that is open; return why zeros must be
        sent, "" if the counts may be.

        Args:
            zeros: why nothing was counted, "" if it was.
            deleted: number of the journal's last deletion when the device counted.
            more: what the receipt says beside.

        Raises Declined as `admit` does.
        """
        self.admit(asked, now)
        invitation, plan = asked.invitation, asked.plan
        moment, rho = self._moment(asked.believed, now), receipt.cost(asked.layout)
        if self.store.last_deletion() != deleted:
            zeros = DELETED
        training = isinstance(plan, TrainPlan)
        budget = self.terms.budget.of(training=training)
        if not affords(self.records.charges(training=training), rho, moment, budget):
            rho, zeros = Fraction(0), SPENT
        contribution = Contribution(
            release=invitation.release,
            attempt=invitation.attempt,
            plan=plan.hash,
            family=plan.metadata.name,
            start=invitation.until - plan.window,
            end=invitation.until,
            rho=rho,
            timestamp=moment.timestamp,
            at=now,
            took=TOOK,
        )
        self.records.contribute(contribution)
        if training:
            self.records.train(invitation.release, now)
        body = receipt.receipt(invitation, asked.believed, asked.layout, rho, zeros)
        self.store.append(now, "contributed", {**body, **(more or {})})
        return zeros

    def _moment(self, believed: Believed, now: datetime) -> Moment:
        """Return the instant for the odometer: the device's clock now, the witness's of the invitation."""
        latest = self.records.seen().latest or believed.moment.latest
        moment = Moment(now, believed.moment.witnessed, latest, self.terms.pins.skew)
        if not moment.agrees:
            raise Declined(Reason.CLOCK)
        return moment
