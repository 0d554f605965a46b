"""Which model acts on a device now, and which one scores beside it. Pure.

A device's *bucket* is a number in [0, 1) from a secret that never leaves it, so nobody can compute who is in
which share. Each rollout has buckets of its own, and its shares are nested: who is in a tenth is in a half.
Where anything is missing or has run out, the baseline acts, which every device keeps.
"""

import hmac
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from clients.device.trust import Pins
from clients.rollout.belief import Held


@dataclass(frozen=True, slots=True)
class Choice:
    """Which model acts, which one scores in shadow, and why, as a sentence for the owner.

    `acting` and `shadow` are SHA-256 of artefacts, 32 bytes, or name what this device learned. `acting` is
    None for the model that the device came with, `shadow` where nothing scores beside the acting model.

    Attributes:
        compares: whether a rollout compares two models now, so that both are to act as they were published.
        personal: whether what this device learned, or may learn, has a part in it (`clients.personal`).
    """

    acting: bytes | None
    shadow: bytes | None
    why: str
    compares: bool = False
    personal: bool = False

    @property
    def runs(self) -> tuple[bytes | None, bytes | None, bool]:
        """What is heard: where it changes, the detectors begin anew."""
        return self.acting, self.shadow, self.personal


@dataclass(frozen=True, slots=True)
class Here:
    """What a device knows of itself and the time.

    Attributes:
        secret: 32 bytes. models: artefacts (SHA-256) that are here and verified.
        charging: None where that is unknown, which counts as no. A device on mains power says it is charging.
        now: the device's clock. witnessed: the highest time of the witness's that it knows from anywhere.
    """

    secret: bytes
    models: Collection[bytes]
    charging: bool | None
    now: datetime
    witnessed: datetime | None = None


def bucket(secret: bytes, rollout: bytes) -> Fraction:
    """Return a device's bucket in [0, 1): HMAC-SHA256 of the rollout's hash (32 bytes) under its secret.

    >>> bucket(bytes(32), bytes(32)) == bucket(bytes(32), bytes(32)) < 1
    True
    """
    return Fraction(int.from_bytes(hmac.digest(secret, rollout, "sha256"), "big"), 2**256)


def choose(held: Held | None, here: Here, pins: Pins) -> Choice:
    """Return which model acts now."""
    if held is None:
        return Choice(None, None, "there is no rollout")
    manifest, terms = held.manifest, held.terms
    baseline = manifest.baseline if manifest.baseline in here.models else None
    old, new = terms.models.baseline.version, terms.models.candidate.version
    ready = manifest.candidate in here.models

    def stays(why: str, *, compares: bool = False) -> Choice:
        return Choice(baseline, None, f"{old} acts: {why}", compares)

    if held.signed.key in pins.revoked:
        return stays(f"the key that signed {terms.name} was revoked")
    if manifest.state == "rolled_back":
        return stays(f"{terms.name} was taken back")
    if manifest.state == "killed":
        return stays(f"{terms.name} was stopped")
    ended = None if manifest.state == "complete" else _ended(held, here, pins)
    if not ready:
        compares = manifest.state != "complete" and ended is None
        return stays(f"{new} is not on this device yet", compares=compares)
    if manifest.state == "complete":
        return Choice(manifest.candidate, None, f"{new} acts: {terms.name} is complete")
    if ended is not None:
        return stays(ended)
    if manifest.state == "shadow":
        if here.charging is not True:
            why = f"{terms.name} is in shadow, and {new} scores only while the device is charging"
            return stays(why, compares=True)
        why = f"{old} acts: {terms.name} is in shadow, {new} scores too"
        return Choice(baseline, manifest.candidate, why, compares=True)
    reached = f"{terms.name} is live on {float(manifest.share):.6g} of the devices"
    if bucket(here.secret, manifest.rollout) < manifest.share:
        why = f"{new} acts: {reached}, and this is one of them"
        return Choice(manifest.candidate, None, why, compares=True)
    return stays(f"{reached}, and this is none of them", compares=True)


def _ended(held: Held, here: Here, pins: Pins) -> str | None:
    """Return why a stage no longer holds, None where it does.

    A clock that is behind the witness's would prolong a lease for ever, so it ends it.
    """
    latest = max(held.witnessed, here.witnessed or held.witnessed)
    if here.now + pins.skew < latest:
        return "the device's clock and the witness's disagree"
    time = max(here.now, latest)
    if time >= held.terms.end:
        return f"{held.terms.name} has expired"
    if time >= held.manifest.expires:
        return f"the lease of {held.terms.name} ran out"
    return None
