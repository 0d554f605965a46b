"""Why a device believes a rollout's manifest: pinned keys, a public log, a witness, what it saw before. Pure.

Whoever holds the log's key can renew a stage, take a candidate back or end a rollout, and nothing else: what
lets a candidate act on a device is granted by the witness, and the shares, the models and the longest lease
are those that a plan key signed. Documents that a plan key once signed stay signed, so another rollout
replaces the one that is held only where it goes on from the model that acts here.

The end of the rollout that is held is believed before the witness cosigned it: a candidate is taken back
while the witness is away. Such an end takes this device to the baseline, and changes nothing else that it
knows: what comes later must extend the log as the witness signed it last, and follow the manifest from then.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from clients.device.trust import Pins
from clients.rollout.terms import Model, Terms
from fa_core.errors import BadInput, Refused
from fa_core.publication.proofs import Publication, Seen, Uncosigned, verified
from fa_core.publication.rollout import ENDED, RolloutManifest
from fa_core.publication.signed import SignedDocument
from fa_core.publication.versions import older
from fa_core.secagg.identity import population_id

NOTHING = Seen()
"""The log before it was read."""


@dataclass(frozen=True, slots=True)
class Held:
    """The manifest that a device holds for a wake word.

    Attributes:
        manifest: the one that it accepted last.
        cosigned: the last one under a checkpoint that the witness cosigned; another than `manifest` only
            where that one ends the rollout.
        signed: the rollout's document; terms: what it says.
        witnessed: the highest time of the witness's that came with one. seen: the log when `cosigned` came.
    """

    manifest: RolloutManifest
    cosigned: RolloutManifest
    signed: SignedDocument
    terms: Terms
    witnessed: datetime
    seen: Seen

    @property
    def stays(self) -> tuple[Model, ...]:
        """The model that acts where no candidate is on trial: the candidate of a rollout that is complete.

        Where the end of one that was complete is not cosigned, it may be either.
        """
        models, states = self.terms.models, {self.manifest.state, self.cosigned.state}
        baseline = (models.baseline,) if states != {"complete"} else ()
        return (*baseline, models.candidate) if "complete" in states else baseline


@dataclass(frozen=True, slots=True)
class Known:
    """What a device saw of rollouts before.

    Attributes:
        held: None before the first manifest for this wake word.
        over: rollouts (SHA-256) that another one followed: they do not come back.
        floors: the oldest versions that may be loaded, one for each name of a model.
        log: the log as this device knows it from invitations; nothing where it never had one.
        shipped: versions of the models for this wake word that came with the device.
    """

    held: Held | None = None
    over: frozenset[bytes] = frozenset()
    floors: frozenset[str] = frozenset()
    log: Seen = NOTHING
    shipped: frozenset[str] = frozenset()

    def after(self, held: Held) -> "Known":
        """Return what is known once `held` is accepted."""
        manifest, before = held.manifest, self.held.manifest if self.held else None
        over = set(self.over)
        if before and before.rollout != manifest.rollout:
            over.add(before.rollout)
        floor = held.terms.models.floor
        floors = {each for each in self.floors if not older(each, floor)} | {floor}
        return Known(held, frozenset(over), frozenset(floors), self.log, self.shipped)


def believe(
    publication: Publication, pins: Pins, population: bytes, wake_word: str, known: Known, now: datetime
) -> Held:
    """Return what a publication says of the rollout for a wake word. Raises Refused with the first check that
    failed, in words without any of the publication's.

    Args:
        population: the one that this device's certificate names, 32 bytes.
        now: the device's clock, UTC.
    """
    before = known.held
    try:
        found = verified(publication, pins.log, pins.witness, before.seen if before else NOTHING)
    except Uncosigned as uncosigned:
        _agrees(publication, pins, known.log, uncosigned.size)
        if before is None or uncosigned.entries[:1] != (before.signed.entry(),):
            raise
        manifest, _, _ = _read(uncosigned.entries, pins, population, wake_word, now)
        if manifest.state not in ENDED:
            raise
        _in_order(manifest, known)
        return replace(before, manifest=manifest)
    _agrees(publication, pins, known.log, found.seen.size)
    manifest, signed, terms = _read(found.entries, pins, population, wake_word, now)
    _in_order(manifest, known)
    latest = max(found.witnessed, before.witnessed) if before else found.witnessed
    if before is None or manifest.rollout != before.manifest.rollout:
        _goes_on(manifest, terms, known, max(now, latest))
    _permitted(manifest, terms, known)
    if found.witnessed > now + pins.skew or manifest.issued > max(now, found.witnessed) + pins.skew:
        raise Refused("the device's clock and the witness's disagree")
    _granted(manifest, known, pins, found.witnessed, max(now, latest))
    return Held(manifest, manifest, signed, terms, latest, found.seen)


def _agrees(publication: Publication, pins: Pins, log: Seen, size: int) -> None:
    """Refuse where a publication's log of this size does not extend the one of invitations."""
    if 0 < log.size <= size:
        with suppress(Uncosigned):  # known to the caller
            verified(publication, pins.log, pins.witness, log)


def _read(
    entries: tuple[bytes, ...], pins: Pins, population: bytes, wake_word: str, now: datetime
) -> tuple[RolloutManifest, SignedDocument, Terms]:
    """Return the manifest, the signed document and its terms, where they are of one rollout and for this
    device."""
    if len(entries) != 2:
        raise Refused("the publication is not a rollout and its manifest")
    try:
        signed = SignedDocument.from_entry("rollout", entries[0])
        _signed(signed, pins, now)
        manifest, terms = RolloutManifest.from_entry(entries[1]), Terms.from_document(signed.document)
    except BadInput:
        raise Refused("the rollout or its manifest is not one that this version understands") from None
    _about(manifest, signed.hash, terms, population, wake_word)
    return manifest, signed, terms


def _signed(signed: SignedDocument, pins: Pins, now: datetime) -> None:
    if signed.key in pins.revoked:
        raise Refused("the rollout is signed by a key that was revoked")
    pinned = any(each.key == signed.key and each.start <= now < each.end for each in pins.plan_keys)
    if not pinned or not signed.holds:
        raise Refused("the rollout is not signed by a key that this device trusts")


def _about(
    manifest: RolloutManifest, document: bytes, terms: Terms, population: bytes, wake_word: str
) -> None:
    """Refuse a manifest that is not of the document, or is for others."""
    models = terms.models
    said = (manifest.rollout, manifest.baseline.hex(), manifest.candidate.hex())
    if said != (document, models.baseline.sha256, models.candidate.sha256):
        raise Refused("the manifest is of another rollout, or of other models than were signed")
    if {population_id(manifest.population), population_id(terms.population)} != {population}:
        raise Refused("the rollout is for another population")
    if {manifest.wake_word, terms.wake_word} != {wake_word}:
        raise Refused("the rollout is for another wake word")


def _in_order(manifest: RolloutManifest, known: Known) -> None:
    """Refuse a manifest that comes from before, or one of a rollout that is over."""
    held = known.held
    before = held.manifest if held else None
    if held is not None and before is not None:
        if manifest.sequence < held.cosigned.sequence:
            raise Refused("a newer manifest was seen before")
        if any(manifest.sequence == e.sequence and manifest != e for e in (held.cosigned, before)):
            raise Refused("another manifest of the same number was seen before")
        if manifest.rollout == before.rollout and before.state in ENDED and manifest.state != before.state:
            raise Refused("the rollout was taken back or stopped, for good")
        back = before.state == "complete" and manifest.state in ("shadow", "live")
        if manifest.rollout == before.rollout and back:
            raise Refused("the rollout is complete: it has no further stage")
    follows = before is not None and manifest.rollout == before.rollout
    if manifest.rollout in known.over and not follows:
        raise Refused("the rollout is over, and another one followed")


def _goes_on(manifest: RolloutManifest, terms: Terms, known: Known, now: datetime) -> None:
    """Refuse another rollout than the held one where it would take this device back to an earlier model.

    Its baseline must be the model that acts here. A device that missed a completion may go on from a newer
    one, under a stage that the witness granted. One that holds nothing goes on from any model that is not
    older than those it came with.
    """
    if manifest.state != "complete" and terms.end <= now:
        raise Refused("the rollout has expired")
    models, before = terms.models, known.held
    if before is None:
        acts = models.candidate if manifest.state == "complete" else models.baseline
        if any(older(acts.version, each) for each in known.shipped):
            raise Refused("the rollout's model is older than the one that this device came with")
        return
    if manifest.state in ENDED:
        raise Refused("another rollout ended than the one that this device follows")
    goes_on = any(models.baseline.sha256 == each.sha256 for each in before.stays)
    newer = any(older(each.version, models.baseline.version) for each in before.stays)
    if not goes_on and not (newer and manifest.state != "shadow"):
        raise Refused("the rollout does not go on from the model that acts on this device")


def _permitted(manifest: RolloutManifest, terms: Terms, known: Known) -> None:
    """Refuse a stage that was not signed, too long a lease, and a version under a floor.

    The end of the rollout that is held is never refused for any of these: its baseline acted here before.
    """
    if manifest.state in ENDED:
        if known.held is not None:
            return
    elif manifest.state != "complete":
        stage = terms.stages[manifest.stage] if manifest.stage < len(terms.stages) else None
        right = stage is not None and (
            stage.shadow is not None if manifest.state == "shadow" else stage.live == manifest.share
        )
        if not right:
            raise Refused("the manifest's stage is not one of those that were signed")
        if manifest.expires - manifest.issued > terms.lease:
            raise Refused("the manifest's lease is longer than was signed")
    models = terms.models
    for version in (models.baseline.version, models.candidate.version):
        if any(older(version, floor) for floor in {models.floor, *known.floors}):
            raise Refused("a model of the rollout is older than this device may load")


def _granted(manifest: RolloutManifest, known: Known, pins: Pins, witnessed: datetime, now: datetime) -> None:
    """Refuse a stage in which the candidate acts without the witness's grant, or out of its time.

    A device enters a live stage while the grant is in force. Completion must have been in the log by then, as
    the witness's cosignature shows; a device may learn of it years later. The stage that is held may be
    renewed with any grant of it, so that a witness that is away ends no stage.

    Args:
        witnessed: when the witness cosigned the checkpoint.
        now: the later of the device's clock and the latest of the witness's times.
    """
    if manifest.state not in ("live", "complete"):
        return
    grant = manifest.granted(pins.witness)
    if grant is None:
        raise Refused("the stage is not granted by the witness")
    if known.held is not None and known.held.manifest.asked == manifest.asked:
        return
    if grant.time is None:
        raise Refused("the witness's grant of the stage does not say until when it holds")
    issued, expires = grant.time
    if issued > now + pins.skew:
        raise Refused("the witness's grant of the stage is of a time to come")
    if (witnessed if manifest.state == "complete" else now) >= expires:
        raise Refused("the witness's grant of the stage has run out")
