"""Signs, logs and publishes rollouts and models in a world of the tests, as an aggregator does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.canonical_json import canonical
from fa_core.merkle import Tree, leaf_hash
from fa_core.publication.proofs import LoggedEntry, Publication
from fa_core.publication.rollout import RolloutManifest, State
from fa_core.publication.signed import SignedDocument
from fa_core.trust.grants import Grant
from tests.device.setup import NOW, POPULATION, World

OLD, NEW, NEWEST = b"a" * 32, b"b" * 32, b"c" * 32
WORD = "okay_nabu"
DAY = timedelta(days=1)
END = datetime(2027, 1, 1, tzinfo=UTC)
"""When the rollouts of these tests are over."""

SHARES = {"shadow": Fraction(0), "live": Fraction(1, 10), "complete": Fraction(1)}


def document(revision: int = 1, **changes: Any) -> bytes:
    """Return the canonical bytes of a rollout from embed-1 to embed-2."""
    body: dict[str, Any] = {
        "apiVersion": "fa/v1",
        "kind": "Rollout",
        "metadata": {
            "name": "embed",
            "revision": revision,
            "owner": "us",
            "question": "?",
            "expires": "2026-12-31",
        },
        "population": POPULATION,
        "wake_word": WORD,
        "models": {
            "baseline": {"version": "embed-1", "sha256": OLD.hex()},
            "candidate": {"version": "embed-2", "sha256": NEW.hex()},
            "floor": "embed-1",
        },
        "gate": {"looks": 4},
        "stages": [{"shadow": "1"}, {"live": "0.1"}, {"live": "0.5"}, {"live": "1"}],
        "lease": "7d",
    }
    return canonical(body | changes)


def granted(
    manifest: RolloutManifest, issued: datetime, expires: datetime, witness: Ed25519PrivateKey
) -> RolloutManifest:
    """Return a manifest with a grant of its stage."""
    return replace(manifest, grant=Grant.sign(manifest.asked, issued, expires, witness).encode())


class Publisher:
    """Signs, logs and publishes rollouts in a world, as an aggregator does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sequence = 0

    def manifest(
        self, state: State, stage: int = 0, rollout: bytes | None = None, **changes: Any
    ) -> RolloutManifest:
        """Return the next manifest; granted where that is needed."""
        self.sequence += 1
        named = SignedDocument.sign("rollout", rollout or document(), self.world.plan_key).hash
        share = changes.pop("share", SHARES.get(state, Fraction(0)))
        until = NOW + 7 * DAY if state == "live" else END
        made = RolloutManifest(
            named, POPULATION, WORD, self.sequence, state, stage, share, OLD, NEW, NOW, NOW + 7 * DAY, b"",
            b"",
        )  # fmt: skip
        if state in ("live", "complete"):
            made = granted(made, NOW, until, self.world.witness_key)
        return replace(made, **changes)

    def publish(
        self,
        manifest: RolloutManifest,
        rollout: bytes | None = None,
        key: Ed25519PrivateKey | None = None,
        at: datetime | None = NOW,
    ) -> bytes:
        """Log a document and a manifest of it, and return the published file."""
        signed = SignedDocument.sign("rollout", rollout or document(), key or self.world.plan_key)
        return self.file(signed.entry(), manifest.entry(), at=at)

    def file(self, *entries: bytes, at: datetime | None = NOW) -> bytes:
        """Log entries that are not there yet and publish them, cosigned at a time; not where it is None."""
        leaves = [leaf_hash(each) for each in entries]
        self.world.leaves += [each for each in leaves if each not in self.world.leaves]
        tree = Tree(self.world.leaves)
        logged = tuple(
            LoggedEntry(index, entry, tree.inclusion(index))
            for entry, index in zip(entries, map(self.world.leaves.index, leaves), strict=True)
        )
        sizes = {size: tree.consistency(size) for size in range(1, tree.size)}
        cosigned = self.world.note(at or NOW)
        note = cosigned if at else b"".join(cosigned.splitlines(keepends=True)[:-1])
        return Publication(note, sizes, logged).encode()
