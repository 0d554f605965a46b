"""The device: it reads an invitation, decides, counts, charges itself, and replies the same once it replied.

At `masked`, one transaction writes the charge, the receipt and the whole masked reply, and only then is
the reply sent. So a crash leaves one of two things: nothing charged and nothing sent; or charged, and the
very same bytes ready for a repeated request. The vector itself is never written anywhere, and the keys of
a round live in memory only: a device that restarts has dropped out of it.

Whether a device answers, and when, depends on nothing in the event tables. It counts before it joins, and
where that raises anything at all it sends zeros with its share of the noise, charged like any other. Whether
somebody speaks is asked before it joins and never after. Every reply leaves at a fixed delay after its
request (`Policy.reply_after`). What is past its retention is deleted on a timer (`tidy`), not while a request
waits. A device whose budget is used up counts as ever, throws the counts away and sends zeros with its share
of the noise, so that its absence says nothing.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from sqlcipher3 import dbapi2 as sqlcipher

from clients.device import database, receipt
from clients.device.consent import allows
from clients.device.counting import Counted, Read, counted, noised
from clients.device.interface import Declined, Reason, Stage
from clients.device.odometer import Budget, Moment, affords, settled
from clients.device.policy import ConditionReader, Policy, asks_of, refusal, trained_enough, used_up
from clients.device.records import Contribution, Records
from clients.device.store import Store
from clients.device.trust import Believed, Pins, answered, believe
from fa_core.errors import BadInput, Refused
from fa_core.layout import covers
from fa_core.plan import Plan, TrainPlan
from fa_core.secagg import MAX_ATTEMPTS, DeviceIdentity, DeviceParty, Refusal, Task, Trust, plain
from fa_core.values import Layout
from fa_core.wire.agreement import task_of
from fa_core.wire.invitation import Invitation, decode

MAX_ROUNDS = 4
"""Rounds that a device is in at one time; a fifth pushes out the oldest."""

JOINS = 4
"""Rounds that a device joins in a day for each plan that it may answer: most of them end well."""

TOOK = timedelta(minutes=1)
"""What a contribution counts as in the day's running time. Its real time depends on the tables, and may not
decide whether a later plan is declined."""

DAY = timedelta(days=1)

_SESSION = slice(4, 36)
"""Where a message of the protocol names its round (docs/protocol.md)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the owner and the maker decided: the budget, the policy, the trusted keys."""

    budget: Budget
    policy: Policy
    pins: Pins


@dataclass(frozen=True, slots=True)
class Clock:
    """The device's clock (UTC), one that never goes back, in seconds, and what waits for so many seconds."""

    now: Callable[[], datetime]
    running: Callable[[], float]
    sleep: Callable[[float], None] = time.sleep


@dataclass(slots=True)
class _Round:
    """One round that this device joined. Its keys live in `party` and its counts here, in memory only.

    Attributes:
        deleted: number of the journal's last deletion when the device counted.
    """

    invitation: Invitation
    believed: Believed
    layout: Layout
    party: DeviceParty | plain.DeviceParty
    counted: Counted
    deleted: int


class StoredDevice:
    """One device over its encrypted store: the `Device` of a deployment.

    Args:
        store: open; nobody else in this process uses it while a request is handled.
        terms: budget, policy, trusted keys.
        identity: the device's certified key.
        conditions: reads network, power, idleness and speech at the moment it is asked.
        clock: injected. `handle` sleeps with it until a reply is due.
    """

    def __init__(
        self,
        store: Store,
        terms: Terms,
        identity: DeviceIdentity,
        conditions: ConditionReader,
        clock: Clock,
    ) -> None:
        self._store = store
        self._records = Records(store)
        self._terms = terms
        self._identity = identity
        self._conditions = conditions
        self._clock = clock
        self._rounds: dict[bytes, _Round] = {}
        self._declined: set[tuple[str, Reason, date]] = set()
        self._lock = Lock()

    def handle(self, stage: Stage, request: bytes) -> bytes:
        """See `clients.device.interface.Device`."""
        began = self._clock.running()
        reply = self._reply(stage, request)
        self._wait(began)
        return reply

    def _wait(self, began: float) -> None:
        """Wait until the reply to a request that came at `began` is due."""
        delay = self._terms.policy.reply_after.total_seconds()
        if delay:
            self._clock.sleep(delay - (self._clock.running() - began) % delay)

    def _reply(self, stage: Stage, request: bytes) -> bytes:
        with self._lock:
            try:
                digest = sha256(request).digest()
                kept = self._records.reply(stage, digest)
                if kept is not None:
                    return kept
                return self._join(request, digest) if stage == "join" else self._go_on(stage, request, digest)
            except Refusal as refused:
                logger.info("the protocol was not kept: %s", refused.reason)
                raise Declined(Reason.PROTOCOL) from None
            except Refused:
                raise Declined(Reason.LIMITS) from None
            except sqlcipher.IntegrityError:
                raise Declined(Reason.ORDER) from None
            except sqlcipher.Error:
                raise Declined(Reason.STORE) from None

    @property
    def alone(self) -> AbstractContextManager[object]:
        """Held while a request uses the store; whoever else uses its connection holds it as well."""
        return self._lock

    def tidy(self) -> None:
        """Delete what is past its retention or its consent, as `Store.transaction` does; call it hourly."""
        with self._lock, self._store.transaction(self._clock.now()):
            pass

    def _writing(self) -> AbstractContextManager[None]:
        return database.transaction(self._store.connection)

    # join

    def _join(self, request: bytes, digest: bytes) -> bytes:
        try:
            invitation = decode(request)
        except BadInput:
            raise Declined(Reason.MALFORMED) from None
        now = self._clock.now()
        records = self._records
        with self._writing():
            believed = believe(
                invitation,
                self._terms.pins,
                self._identity.population,
                records.seen(),
                records.revision,
                now,
            )
            records.see(believed.seen)
            records.see_revision(believed.plan.metadata.name, believed.plan.metadata.revision)
        try:
            layout, task = task_of(
                believed.plan,
                invitation.release,
                invitation.attempt,
                invitation.until,
                self._identity.population,
                (invitation.checkpoint, invitation.charge),
            )
        except (BadInput, ValueError):
            raise Declined(Reason.LIMITS) from None
        try:
            if not covers(believed.charge, believed.plan, layout):
                raise Declined(Reason.NOT_CHARGED)
            self._admit(invitation, believed, now)
            self._admit_now(believed, layout, now)
        except Declined as declined:
            self._note(invitation, believed.plan, declined.reason, now)
            raise
        return self._enter(invitation, believed, layout, task, digest, now)

    def _enter(
        self,
        invitation: Invitation,
        believed: Believed,
        layout: Layout,
        task: Task,
        digest: bytes,
        now: datetime,
    ) -> bytes:
        """Count, make the round's keys and reply with them. A later attempt closes the earlier ones."""
        others = {
            session: each.invitation.attempt
            for session, each in self._rounds.items()
            if each.invitation.release == invitation.release
        }
        if any(attempt > invitation.attempt for attempt in others.values()):
            raise Declined(Reason.ORDER)
        for session in others:
            del self._rounds[session]
        deleted, counts = self._store.last_deletion(), self._count(invitation, believed.plan, layout, now)
        pins, least = self._terms.pins, believed.plan.privacy.min_cohort
        kind = DeviceParty if believed.plan.privacy.secure_aggregation else plain.DeviceParty
        party: DeviceParty | plain.DeviceParty = kind(
            task,
            self._identity,
            Trust(pins.authority, pins.witness, least),
            lambda joined: self._contribute(task.session, joined),
        )
        reply = party.join(invitation.request)
        with self._writing():
            self._records.join(now, since=now - DAY)
            self._records.forget_replies(keep={each.invitation.release for each in self._rounds.values()})
            self._records.keep_reply(invitation.release, invitation.attempt, "join", digest, reply)
        if len(self._rounds) >= MAX_ROUNDS:
            del self._rounds[next(iter(self._rounds))]
        self._rounds[task.session] = _Round(invitation, believed, layout, party, counts, deleted)
        return reply

    def _count(self, invitation: Invitation, plan: Plan, layout: Layout, now: datetime) -> Counted:
        """Count what the plan asks for. Rows past their retention that are not yet deleted are not read."""
        start, until, kept = invitation.until - plan.window, invitation.until, self._store.rules.kept_since

        def read() -> Read:
            tables = {
                name: self._store.table(name, plan.eligibility.consent, max(start, kept(name, now)), until)
                for name in receipt.sources(plan)
            }
            return Read(tables, self._store.facts())

        return counted(plan, layout, read, until)

    # shares, confirm, dispute, masked, unmask

    def _go_on(self, stage: Stage, request: bytes, digest: bytes) -> bytes:
        entered = self._rounds.get(request[_SESSION])
        if entered is None:
            raise Declined(Reason.ORDER)
        answer: Callable[[bytes], bytes] | None = getattr(entered.party, stage, None)
        if answer is None:
            raise Declined(Reason.ORDER)
        try:
            with self._writing():
                reply = answer(request)
                invitation = entered.invitation
                self._records.keep_reply(invitation.release, invitation.attempt, stage, digest, reply)
        except BaseException:
            # The party may hold an answer whose charge was just undone: it must never be sent.
            if stage == "masked":
                del self._rounds[request[_SESSION]]
            raise
        if stage == "unmask":
            del self._rounds[request[_SESSION]]
        return reply

    def _contribute(self, session: bytes, joined: int) -> NDArray[np.int64]:
        """Return the vector of a round, scaled and noised; charge it in the transaction that is open."""
        entered = self._rounds[session]
        plan, invitation, layout = entered.believed.plan, entered.invitation, entered.layout
        now = self._clock.now()
        self._admit(invitation, entered.believed, now)
        moment = self._moment(entered.believed, now)
        rho, zeros = receipt.cost(layout), entered.counted.zeros
        if self._store.last_deletion() != entered.deleted:
            zeros = "rows were deleted after they were counted"
        training = isinstance(plan, TrainPlan)
        budget = self._terms.budget.of(training=training)
        if not affords(self._records.charges(training=training), rho, moment, budget):
            rho, zeros = Fraction(0), "no budget left"
        counts = entered.counted.counts
        vector = noised(plan, layout, np.zeros_like(counts) if zeros else counts, joined)
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
        self._records.contribute(contribution)
        if training:
            self._records.train(invitation.release, now)
        body = receipt.receipt(invitation, entered.believed, layout, rho, zeros)
        self._store.append(now, "contributed", body)
        return vector

    # The decision.

    def _admit(self, invitation: Invitation, believed: Believed, now: datetime) -> None:
        """Raise Declined unless consent, attempt, age, window and the day's limits allow this round.

        Asked at `join` and, since other rounds may have ended meanwhile, at `masked`: none of it depends on
        the event tables.
        """
        plan, terms, records = believed.plan, self._terms, self._records
        if not allows(self._store.grants(), plan.eligibility.consent, now):
            raise Declined(Reason.CONSENT)
        if invitation.attempt >= MAX_ATTEMPTS:
            raise Declined(Reason.LIMITS)
        if used_up(terms.policy, records.past(), now):
            raise Declined(Reason.DAILY_LIMIT)
        if isinstance(plan, TrainPlan) and trained_enough(terms.policy, records.trainings().values(), now):
            raise Declined(Reason.TRAINING_LIMIT)
        moment, first = self._moment(believed, now), records.seen().first
        if first is None or not settled(first, moment, terms.budget):
            raise Declined(Reason.SETTLING)
        start = invitation.until - plan.window
        if answered(records.contributions(), plan.metadata.name, start, invitation.until):
            raise Declined(Reason.WINDOW)

    def _admit_now(self, believed: Believed, layout: Layout, now: datetime) -> None:
        """Raise Declined unless the policy, the conditions of the moment and today's joins allow joining.

        Asked at `join` alone: a device that left a round when somebody speaks, or picks it up, would show it.
        Each roster draws the ring anew: a server that discards rosters until one suits it must not get many.
        """
        policy, records = self._terms.policy, self._records
        why = refusal(policy, asks_of(believed.plan, layout), self._conditions(now), records.past(), now)
        if why is not None:
            raise Declined(why)
        if sum(now - at < DAY for at in records.joins()) >= policy.plans_a_day * JOINS:
            raise Declined(Reason.DAILY_LIMIT)

    def _moment(self, believed: Believed, now: datetime) -> Moment:
        """Return the instant for the odometer: the device's clock now, the witness's time of the join."""
        latest = self._records.seen().latest or believed.moment.latest
        moment = Moment(now, believed.moment.witnessed, latest, self._terms.pins.skew)
        if not moment.agrees:
            raise Declined(Reason.CLOCK)
        return moment

    def _note(self, invitation: Invitation, plan: Plan, why: Reason, now: datetime) -> None:
        """Write a decision against a believed plan into the journal, once a day for a plan and reason."""
        key = (plan.hash, why, now.date())
        if key in self._declined:
            return
        self._declined.add(key)
        with self._writing():
            body = {"plan": plan.name, "release": invitation.release.hex(), "why": why.value}
            self._store.append(now, "declined", body)
