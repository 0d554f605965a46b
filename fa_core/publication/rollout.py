"""The manifest of a rollout: which models a device holds, which of them acts, and until when.

Devices fetch the newest one; its `sequence` rises with each, whatever happened. A stage that reaches more
devices than the one before, and completion, need the witness's *grant*: it recomputed the gate's decision
from logged releases before it signed, and says until when a device may enter the stage. Renewing a stage,
taking a candidate back and ending a rollout need none. A manifest is an entry of kind `manifest` in the
transparency log, whose signer signs it thereby.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from hashlib import sha256
from typing import Any, Literal, get_args

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput
from fa_core.trust import checkpoint
from fa_core.trust.grants import Asked, Grant
from fa_core.trust.strict import fraction, moment, text, whole

State = Literal["shadow", "live", "complete", "rolled_back", "killed"]
"""`shadow`: both models score, the baseline acts. `live`: the candidate acts on a share of the devices.
`complete`: the candidate is the new baseline. `rolled_back`, `killed`: the baseline acts, for good."""

ENDED: frozenset[State] = frozenset({"rolled_back", "killed"})
"""No manifest of the same rollout follows one of these with another state."""


@dataclass(frozen=True, slots=True)
class RolloutManifest:
    """One manifest.

    Attributes:
        rollout: SHA-256 of the rollout's canonical document, 32 bytes.
        population, wake_word: whom and what it is about; one rollout at a time for each pair.
        sequence: rises with every manifest of a population and wake word, over rollouts too.
        state, stage: where the rollout is; `stage` is an index into the document's stages.
        share: of the devices on which the candidate acts: 0 in `shadow` and after the end, 1 when complete.
        baseline, candidate: SHA-256 of the two artefacts, 32 bytes each.
        issued, expires: UTC, whole seconds. After `expires` a device acts as if there were no rollout, unless
            it is complete.
        decision: SHA-256 of the log entry of the decision that it follows from, b"" for the first.
        grant: the witness's, as `trust.grants.Grant` encodes it, b"" where none is needed.
    """

    rollout: bytes
    population: str
    wake_word: str
    sequence: int
    state: State
    stage: int
    share: Fraction
    baseline: bytes
    candidate: bytes
    issued: datetime
    expires: datetime
    decision: bytes
    grant: bytes

    def entry(self) -> bytes:
        """Return the bytes of the log's entry."""
        body = {
            "rollout": self.rollout.hex(),
            "population": self.population,
            "wake_word": self.wake_word,
            "sequence": self.sequence,
            "state": self.state,
            "stage": self.stage,
            "share": str(self.share),
            "baseline": self.baseline.hex(),
            "candidate": self.candidate.hex(),
            "issued": int(self.issued.timestamp()),
            "expires": int(self.expires.timestamp()),
            "decision": self.decision.hex(),
            "grant": self.grant.hex(),
        }
        return checkpoint.entry("manifest", canonical(body))

    @classmethod
    def from_entry(cls, entry: bytes) -> "RolloutManifest":
        """Return the manifest in a log's entry. Raises BadInput for any other, or one that cannot be."""
        head = checkpoint.entry("manifest", b"")
        try:
            body: Any = json.loads(entry.removeprefix(head)) if entry.startswith(head) else None
            found = cls(
                bytes.fromhex(body["rollout"]), text(body["population"]), text(body["wake_word"]),
                whole(body["sequence"]), body["state"], whole(body["stage"]), fraction(body["share"]),
                bytes.fromhex(body["baseline"]), bytes.fromhex(body["candidate"]),
                moment(body["issued"]), moment(body["expires"]),
                bytes.fromhex(body["decision"]), bytes.fromhex(body["grant"]),
            )  # fmt: skip
            sound = found.entry() == entry and found._possible
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
            raise BadInput("the log's entry is no manifest of a rollout") from None
        if not sound:
            raise BadInput("the log's entry is no manifest of a rollout")
        return found

    @property
    def _possible(self) -> bool:
        shares = {"live": 0 < self.share <= 1, "complete": self.share == 1}
        return (
            self.state in get_args(State)
            and shares.get(self.state, self.share == 0)
            and self.issued < self.expires
            and {len(self.rollout), len(self.baseline), len(self.candidate)} == {32}
            and len(self.decision) in (0, 32)
            and (not self.grant or Grant.decode(self.grant).encode() == self.grant)
        )

    @property
    def asked(self) -> Asked:
        """The stage that it is about."""
        return Asked(self.rollout, self.state, self.stage, self.share)

    def granted(self, witness: bytes) -> Grant | None:
        """Return the grant of the manifest's stage, None where the witness with this public key (raw Ed25519,
        32 bytes) did not make it. Whether it is in time is another question."""
        try:
            found = Grant.decode(self.grant)
        except BadInput:
            return None
        return found if found.holds(self.asked, witness) else None


def rollout_name(population: str, wake_word: str) -> str:
    """Return the name of the published file of a rollout: the document's entry and the newest manifest's."""
    pair = canonical({"population": population, "wake_word": wake_word})
    return f"rollouts/{sha256(pair).hexdigest()}.json"
