"""The device: it reads an invitation, decides, counts, charges itself, and replies the same once it replied.

At `masked`, one transaction writes the charge, the receipt and the whole masked reply, and only then is
the reply sent. So a crash leaves one of two things: nothing charged and nothing sent; or charged, and the
very same bytes ready for a repeated request. The vector itself is never written anywhere, and the keys of
a round live in memory only: a device that restarts has dropped out of it.

Joining depends on nothing in the event tables, nor does the time that it takes: what is past its retention
is deleted on a timer (`tidy`), not while a request waits. A device whose budget is used up counts as ever,
throws the counts away and sends zeros with its share of the noise, so that its absence says nothing.
"""

import logging
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from threading import Lock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sqlcipher3 import dbapi2 as sqlcipher

from clients.device import database, receipt
from clients.device.consent import allows
from clients.device.counting import count, noised
from clients.device.interface import Declined, Reason, Stage
from clients.device.odometer import Budget, Moment, affords, settled
from clients.device.policy import ConditionReader, Policy, asks_of, refusal
from clients.device.records import Contribution, Records
from clients.device.store import Store
from clients.device.trust import Believed, Pins, answered, believe, covers
from fa_core.errors import BadInput, Refused
from fa_core.plan import Plan
from fa_core.secagg import MAX_ATTEMPTS, DeviceIdentity, DeviceParty, Refusal, Task, Trust, plain
from fa_core.values import Layout
from fa_core.wire.agreement import task_of
from fa_core.wire.invitation import Invitation, decode

MAX_ROUNDS = 4
"""Rounds that a device is in at one time; a fifth pushes out the oldest."""

JOINS = 4
"""Rounds that a device joins in a day for each plan that it may answer: most of them end well."""

LEAST_TOOK = timedelta(minutes=1)
"""What a contribution counts as at least in the day's running time."""

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
    """The device's clock (UTC), and one that never goes back, in seconds, to measure how long things took."""

    now: Callable[[], datetime]
    running: Callable[[], float]


@dataclass(slots=True)
class _Round:
    """One round that this device joined. Its keys live in `party`, in memory only."""

    invitation: Invitation
    believed: Believed
    layout: Layout
    party: DeviceParty | plain.DeviceParty

    @property
    def start(self) -> datetime:
        return self.invitation.until - self.believed.plan.window


class StoredDevice:
    """One device over its encrypted store: the `Device` of a deployment.

    Args:
        store: open; nobody else in this process uses it while a request is handled.
        terms: budget, policy, trusted keys.
        identity: the device's certified key.
        conditions: reads network, power, idleness and speech at the moment it is asked.
        clock: injected.
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
        self._joined: deque[datetime] = deque(maxlen=terms.policy.plans_a_day * JOINS)
        self._lock = Lock()

    def handle(self, stage: Stage, request: bytes) -> bytes:
        """See `clients.device.interface.Device`."""
        with self._lock:
            try:
                digest = sha256(request).digest()
                kept = self._records.reply(stage, digest)
                if kept is not None:
                    return kept
                self._stay_quiet()
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
            self._admit(invitation, believed, layout, now)
            self._check_joins(now)
        except Declined as declined:
            self._note(invitation, believed.plan, declined.reason, now)
            raise
        return self._enter(invitation, believed, layout, task, digest)

    def _enter(
        self, invitation: Invitation, believed: Believed, layout: Layout, task: Task, digest: bytes
    ) -> bytes:
        """Make the round's keys and reply with them."""
        self._joined.append(self._clock.now())
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
            self._records.forget_replies(keep={each.invitation.release for each in self._rounds.values()})
            self._records.keep_reply(invitation.release, invitation.attempt, "join", digest, reply)
        if len(self._rounds) >= MAX_ROUNDS:
            del self._rounds[next(iter(self._rounds))]
        self._rounds[task.session] = _Round(invitation, believed, layout, party)
        return reply

    # shares, masked, unmask

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
        now, began = self._clock.now(), self._clock.running()
        self._admit(invitation, entered.believed, layout, now)
        moment = self._moment(entered.believed, now)
        counts = count(plan, layout, self._tables(entered, now), self._store.facts(), invitation.until)
        self._stay_quiet()
        rho = receipt.cost(layout)
        zeros = "" if affords(self._records.charges(), rho, moment, self._terms.budget) else "no budget left"
        vector = noised(plan, layout, np.zeros_like(counts) if zeros else counts, joined)
        self._stay_quiet()
        contribution = Contribution(
            release=invitation.release,
            attempt=invitation.attempt,
            plan=plan.hash,
            family=plan.metadata.name,
            start=entered.start,
            end=invitation.until,
            rho=Fraction(0) if zeros else rho,
            timestamp=moment.timestamp,
            at=now,
            # Counting takes milliseconds that hang on the tables: a later plan may not be declined for them.
            took=max(LEAST_TOOK, timedelta(seconds=self._clock.running() - began)),
        )
        self._records.contribute(contribution)
        self._store.append(now, "contributed", receipt.receipt(invitation, entered.believed, layout, zeros))
        return vector

    def _tables(self, entered: _Round, now: datetime) -> dict[str, pa.Table]:
        """Return what the plan reads; rows that are past their retention and not yet deleted are not read."""
        plan, until, kept = entered.believed.plan, entered.invitation.until, self._store.rules.kept_since
        return {
            name: self._store.table(
                name, plan.eligibility.consent, max(entered.start, kept(name, now)), until
            )
            for name in receipt.sources(plan)
        }

    # The decision.

    def _admit(self, invitation: Invitation, believed: Believed, layout: Layout, now: datetime) -> None:
        """Raise Declined unless consent, policy, age and window allow this round now."""
        plan, terms, records = believed.plan, self._terms, self._records
        if not allows(self._store.grants(), plan.eligibility.consent, now):
            raise Declined(Reason.CONSENT)
        if invitation.attempt >= MAX_ATTEMPTS:
            raise Declined(Reason.LIMITS)
        why = refusal(terms.policy, asks_of(plan, layout), self._conditions(now), records.past(), now)
        if why is not None:
            raise Declined(why)
        moment, first = self._moment(believed, now), records.seen().first
        if first is None or not settled(first, moment, terms.budget):
            raise Declined(Reason.SETTLING)
        start = invitation.until - plan.window
        if answered(records.contributions(), plan.metadata.name, start, invitation.until):
            raise Declined(Reason.WINDOW)

    def _check_joins(self, now: datetime) -> None:
        """Raise Declined where too many rounds were joined today: each roster draws the ring anew, and a
        server that discards rosters until one suits it must not get many."""
        if len(self._joined) == self._joined.maxlen and now - self._joined[0] < timedelta(days=1):
            raise Declined(Reason.DAILY_LIMIT)

    def _moment(self, believed: Believed, now: datetime) -> Moment:
        """Return the instant for the odometer: the device's clock now, the witness's time of the join."""
        latest = self._records.seen().latest or believed.moment.latest
        moment = Moment(now, believed.moment.witnessed, latest, self._terms.pins.skew)
        if not moment.agrees:
            raise Declined(Reason.CLOCK)
        return moment

    def _stay_quiet(self) -> None:
        """Stop at once when somebody speaks, or when that is not known."""
        if self._conditions(self._clock.now()).speaking is not False:
            raise Declined(Reason.SPEAKING)

    def _note(self, invitation: Invitation, plan: Plan, why: Reason, now: datetime) -> None:
        """Write a decision against a believed plan into the journal, once a day for a plan and reason."""
        key = (plan.hash, why, now.date())
        if key in self._declined:
            return
        self._declined.add(key)
        with self._writing():
            body = {"plan": plan.name, "release": invitation.release.hex(), "why": why.value}
            self._store.append(now, "declined", body)
