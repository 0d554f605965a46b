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
from datetime import datetime
from hashlib import sha256
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from sqlcipher3 import dbapi2 as sqlcipher

from clients.device.admission import DAY, Admission, Asked, Terms
from clients.device.collecting import Collecting
from clients.device.counting import Counted, counted, noised, read
from clients.device.interface import Declined, Reason, Stage
from clients.device.policy import ConditionReader
from clients.device.records import Records
from clients.device.store import Store
from fa_core.errors import BadInput, Refused
from fa_core.secagg import DeviceIdentity, DeviceParty, Refusal, Task, Trust, plain
from fa_core.wire.agreement import task_of

MAX_ROUNDS = 4
"""Rounds that a device is in at one time; a fifth pushes out the oldest."""

_SESSION = slice(4, 36)
"""Where a message of the protocol names its round (docs/protocol.md)."""

logger = logging.getLogger(__name__)


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

    asked: Asked
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
        self._identity = identity
        self._admission = Admission(store, terms, identity.population, conditions)
        self._collecting = Collecting(self._admission, identity)
        self._clock = clock
        self._rounds: dict[bytes, _Round] = {}
        self._lock = Lock()

    def handle(self, stage: Stage, request: bytes) -> bytes:
        """See `clients.device.interface.Device`."""
        began = self._clock.running()
        reply = self._reply(stage, request)
        self._wait(began)
        return reply

    def _wait(self, began: float) -> None:
        """Wait until the reply to a request that came at `began` is due."""
        delay = self._admission.terms.policy.reply_after.total_seconds()
        if delay:
            self._clock.sleep(delay - (self._clock.running() - began) % delay)

    def _reply(self, stage: Stage, request: bytes) -> bytes:
        with self._lock:
            try:
                if stage == "report":
                    return self._collecting.report(request, self._clock.now())
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

    def withdrawals(self) -> list[tuple[bytes, bytes]]:
        """Return (task's id, statement) of each report that was taken back while its collection is open."""
        with self._lock:
            return self._collecting.withdrawals(self._clock.now())

    # join

    def _join(self, request: bytes, digest: bytes) -> bytes:
        now, admission = self._clock.now(), self._admission
        invitation, believed = admission.believe(request, now)
        with admission.noting(invitation, believed.plan, now):
            if believed.plan.privacy.sum != "four_stages":
                raise Declined(Reason.SUM)
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
            asked = Asked(invitation, believed, layout)
            admission.require_paid(asked)
            admission.admit(asked, now)
            admission.admit_now(asked, now)
        return self._enter(asked, task, digest, now)

    def _enter(self, asked: Asked, task: Task, digest: bytes, now: datetime) -> bytes:
        """Count, make the round's keys and reply with them. A later attempt closes the earlier ones."""
        invitation, plan = asked.invitation, asked.plan
        others = {
            session: each.asked.invitation.attempt
            for session, each in self._rounds.items()
            if each.asked.invitation.release == invitation.release
        }
        if any(attempt > invitation.attempt for attempt in others.values()):
            raise Declined(Reason.ORDER)
        for session in others:
            del self._rounds[session]
        deleted, counts = self._store.last_deletion(), self._count(asked, now)
        pins = self._admission.terms.pins
        kind = DeviceParty if plan.privacy.secure_aggregation else plain.DeviceParty
        party: DeviceParty | plain.DeviceParty = kind(
            task,
            self._identity,
            Trust(pins.authority, pins.witness, plan.privacy.min_cohort),
            lambda joined: self._contribute(task.session, joined),
        )
        reply = party.join(invitation.request)
        with self._admission.writing():
            self._records.join(now, since=now - DAY)
            open_rounds = {each.asked.invitation.release for each in self._rounds.values()}
            self._records.forget_replies(keep=open_rounds)
            self._records.keep_reply(invitation.release, invitation.attempt, "join", digest, reply)
        if len(self._rounds) >= MAX_ROUNDS:
            del self._rounds[next(iter(self._rounds))]
        self._rounds[task.session] = _Round(asked, party, counts, deleted)
        return reply

    def _count(self, asked: Asked, now: datetime) -> Counted:
        """Count what the plan asks for."""
        return counted(
            asked.plan,
            asked.layout,
            lambda: read(self._store, asked.plan, asked.invitation.until, now),
            asked.invitation.until,
        )

    # shares, confirm, dispute, masked, unmask

    def _go_on(self, stage: Stage, request: bytes, digest: bytes) -> bytes:
        entered = self._rounds.get(request[_SESSION])
        if entered is None:
            raise Declined(Reason.ORDER)
        answer: Callable[[bytes], bytes] | None = getattr(entered.party, stage, None)
        if answer is None:
            raise Declined(Reason.ORDER)
        try:
            with self._admission.writing():
                reply = answer(request)
                invitation = entered.asked.invitation
                self._records.keep_reply(invitation.release, invitation.attempt, stage, digest, reply)
        except BaseException as error:
            # The party may hold an answer whose charge was just undone: it must never be sent. A party that
            # refuses a request holds none.
            if stage == "masked" and not isinstance(error, Refusal):
                del self._rounds[request[_SESSION]]
            raise
        if stage == "unmask":
            del self._rounds[request[_SESSION]]
        return reply

    def _contribute(self, session: bytes, joined: int) -> NDArray[np.int64]:
        """Return the vector of a round, scaled and noised; charge it in the transaction that is open."""
        entered = self._rounds[session]
        asked, counts = entered.asked, entered.counted.counts
        zeros = self._admission.charge(asked, entered.counted.zeros, entered.deleted, self._clock.now())
        return noised(asked.plan, asked.layout, np.zeros_like(counts) if zeros else counts, joined)
