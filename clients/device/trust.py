"""Why a device believes a plan: pinned keys, a public log, a witness, and what it saw before. Pure.

The order decides only which reason the owner reads; every check must pass. Nothing in an invitation is
parsed as a plan before a pinned key's signature on its bytes holds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clients.device.interface import Declined, Reason
from clients.device.odometer import Moment
from clients.device.records import Contribution, Seen
from fa_core import merkle
from fa_core.collection.checks import verify_offer
from fa_core.collection.task import Offer, Task, Trusted
from fa_core.errors import BadInput
from fa_core.plan import Plan, UnsupportedRho, from_canonical
from fa_core.plan.signing import verify
from fa_core.privacy.ledger import Charge
from fa_core.trust import checkpoint as log
from fa_core.trust.charges import Keys, Round, paid
from fa_core.values import Layout
from fa_core.wire.invitation import Invitation


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """A plan key that this device trusts from `start` to just before `end`. Rotation is an overlap of two."""

    name: str
    key: bytes
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Pins:
    """The public keys (raw Ed25519, 32 bytes) that came with the device, and how far clocks may differ.

    Attributes:
        plan_keys: who may sign plans.
        revoked: plan keys that are no longer accepted, whatever their dates say.
        log, witness, authority: of the transparency log, its witness, and the enrolment authority.
        skew: the most that the device's clock and the witness's time may differ by.
        helper: the one that may form sums with the leader; None: this device takes part in none of theirs.
    """

    plan_keys: tuple[PinnedKey, ...]
    revoked: frozenset[bytes]
    log: bytes
    witness: bytes
    authority: bytes
    skew: timedelta
    helper: bytes | None = None


@dataclass(frozen=True, slots=True)
class Believed:
    """A plan that passed every check, the charge that pays for it, who signed the plan, and what is now known
    of the log and the time."""

    plan: Plan
    charge: Charge
    signer: PinnedKey
    moment: Moment
    seen: Seen


def believe(
    invitation: Invitation,
    pins: Pins,
    population: bytes,
    seen: Seen,
    revision: Callable[[str], int],
    now: datetime,
) -> Believed:
    """Return the plan of an invitation, or raise Declined with the first check that it failed.

    Args:
        population: the one that this device's certificate names, 32 bytes.
        seen: what this device believed of the log before.
        revision: gives the highest revision of a plan family that it saw before, 0 for none.
        now: the device's clock.
    """
    signer = _signer(invitation, pins, now)
    try:
        plan = from_canonical(invitation.plan)
    except UnsupportedRho:
        raise Declined(Reason.COST) from None
    except BadInput:
        raise Declined(Reason.MALFORMED) from None
    checkpoint, witnessed = _logged(invitation, pins)
    charge = _charged(invitation, plan, pins, population)
    _extends(invitation, checkpoint, seen)
    moment = Moment(now, witnessed, max(witnessed, seen.latest or witnessed), pins.skew)
    if not moment.agrees:
        raise Declined(Reason.CLOCK)
    if moment.timestamp.astimezone(UTC).date() > plan.metadata.expires:
        raise Declined(Reason.EXPIRED)
    if plan.metadata.revision < revision(plan.metadata.name):
        raise Declined(Reason.REVISION)
    if invitation.until > now + pins.skew or invitation.until.timestamp() % 3600:
        raise Declined(Reason.WINDOW)
    after = Seen(checkpoint.size, checkpoint.root, moment.latest, seen.first or moment.timestamp)
    return Believed(plan, charge, signer, moment, after)


def believe_offer(
    invitation: Invitation, plan: Plan, layout: Layout, pins: Pins, population: bytes, now: datetime
) -> Task:
    """Return the collection's task in a believed invitation, or raise Declined.

    Args:
        plan, layout: what `believe` returned, and what it compiles to.
        population, now: as in `believe`.
    """
    if pins.helper is None:
        raise Declined(Reason.COLLECTION)
    trusted, row, note = Trusted(pins.helper, pins.witness), invitation.charge, invitation.checkpoint
    try:
        offer = Offer.parse(invitation.request)
        task = verify_offer(offer, plan, layout, invitation.release, row, note, trusted)
    except BadInput:
        raise Declined(Reason.COLLECTION) from None
    # By the device's own clock and not within its skew: a report that is late is never counted.
    if (task.until, task.population) != (invitation.until, population) or not task.opens <= now < task.closes:
        raise Declined(Reason.COLLECTION)
    return task


def answered(contributions: Iterable[Contribution], family: str, start: datetime, end: datetime) -> bool:
    """Return whether something of this family was already sent for a window that overlaps [start, end)."""
    return any(each.family == family and each.start < end and start < each.end for each in contributions)


def _signer(invitation: Invitation, pins: Pins, now: datetime) -> PinnedKey:
    if invitation.key in pins.revoked:
        raise Declined(Reason.REVOKED)
    for pinned in pins.plan_keys:
        if pinned.key == invitation.key and pinned.start <= now < pinned.end:
            if verify(invitation.plan, invitation.signature, pinned.key):
                return pinned
            break
    raise Declined(Reason.SIGNATURE)


def _logged(invitation: Invitation, pins: Pins) -> tuple[log.Checkpoint, datetime]:
    """Return the checkpoint and the witness's time, if the plan is in it and both signatures hold."""
    try:
        checkpoint = log.parse(invitation.checkpoint)
    except BadInput:
        raise Declined(Reason.NOT_LOGGED) from None
    entry = log.plan_entry(invitation.plan, invitation.key, invitation.signature)
    witnessed = log.cosigned_at(checkpoint, Ed25519PublicKey.from_public_bytes(pins.witness))
    if (
        witnessed is None
        or not log.signed_by_log(checkpoint, Ed25519PublicKey.from_public_bytes(pins.log))
        or not merkle.verify_inclusion(
            merkle.leaf_hash(entry), invitation.index, checkpoint.size, invitation.inclusion, checkpoint.root
        )
    ):
        raise Declined(Reason.NOT_LOGGED)
    return checkpoint, witnessed


def _charged(invitation: Invitation, plan: Plan, pins: Pins, population: bytes) -> Charge:
    """Return the charge of this release, population and window, if log, witness and authority confirm it."""
    about = Round(invitation.release, bytes.fromhex(plan.hash), population)
    try:
        charge, _ = paid(invitation.charge_proof, about, Keys(pins.authority, pins.log, pins.witness))
    except BadInput:
        raise Declined(Reason.NOT_CHARGED) from None
    if (charge.window_start, charge.window_end) != (invitation.until - plan.window, invitation.until):
        raise Declined(Reason.NOT_CHARGED)
    return charge


def _extends(invitation: Invitation, checkpoint: log.Checkpoint, seen: Seen) -> None:
    """Refuse a log that does not extend the one seen before; a first log is taken as it is."""
    if not seen.size:
        return
    proof = () if seen.size == checkpoint.size else invitation.consistency.get(seen.size, ())
    if not merkle.verify_consistency(seen.size, checkpoint.size, seen.root, checkpoint.root, proof):
        raise Declined(Reason.LOG_FORKED)
