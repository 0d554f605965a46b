"""One decision of a rollout, an entry of kind `decision` in the log, and the manifest that follows from it.

A decision holds everything that its manifest says, the witness's grant too, so the manifest is a function of
the entry's bytes: whoever finds a decision without its manifest, after a crash, writes the same one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from hashlib import sha256
from typing import Any, Literal, get_args

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput
from fa_core.publication.rollout import RolloutManifest, State
from fa_core.rollout.document import Rollout
from fa_core.trust import checkpoint
from fa_core.trust.strict import fraction, moment, release_id, text, whole

Verdict = Literal["expand", "hold", "roll_back"]

Action = Literal["start", "look", "stage", "hold", "resume", "roll_back", "kill", "complete"]
"""`look` and `stage` are the gate's; the others an operator's. `start` and `complete` are checked as well."""


@dataclass(frozen=True, slots=True)
class Next:
    """The manifest that follows from a decision; its fields are the manifest's."""

    state: State
    stage: int
    share: Fraction
    sequence: int
    issued: datetime
    expires: datetime
    grant: bytes


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision. There is one for each action and number of a rollout.

    Attributes:
        rollout: SHA-256 of the document, 32 bytes.
        action, number: the look (from 1) or the live stage (its index in the document) that was decided; an
            operator's actions are numbered from 1, each kind by itself.
        verdict: of the gate; for an operator, what the action comes to.
        releases: ids of the releases it rests on, in the order of the looks; None for a look without one.
        gate: the gate's numbers, as `judging` writes them; of `start` the test set's result and the budget.
        why: a sentence.
        next: the manifest that follows.
        began: of a decision that begins a stage, when that was by the witness's clock, UTC; the stage's weeks
            are counted from then.
    """

    rollout: bytes
    action: Action
    number: int
    verdict: Verdict
    releases: tuple[str | None, ...]
    gate: Mapping[str, Any]
    why: str
    next: Next
    began: datetime | None = None

    @property
    def key(self) -> tuple[Action, int]:
        """What there is one decision for."""
        return self.action, self.number

    @property
    def at(self) -> datetime:
        """When it was made, UTC."""
        return self.next.issued

    @property
    def since(self) -> datetime:
        """When the stage began that began with it, UTC."""
        return self.began or self.at

    def entry(self) -> bytes:
        """Return the bytes of the log's entry."""
        found = self.next
        body: dict[str, Any] = {
            "rollout": self.rollout.hex(),
            "action": self.action,
            "number": self.number,
            "verdict": self.verdict,
            "releases": list(self.releases),
            "gate": dict(self.gate),
            "why": self.why,
            "manifest": {
                "state": found.state,
                "stage": found.stage,
                "share": str(found.share),
                "sequence": found.sequence,
                "issued": int(found.issued.timestamp()),
                "expires": int(found.expires.timestamp()),
                "grant": found.grant.hex(),
            },
        }
        if self.began is not None:
            body["began"] = int(self.began.timestamp())
        return checkpoint.entry("decision", canonical(body))

    @classmethod
    def from_entry(cls, entry: bytes) -> "Decision":
        """Return the decision in a log's entry. Raises BadInput for any other."""
        head = checkpoint.entry("decision", b"")
        try:
            body: Any = json.loads(entry.removeprefix(head)) if entry.startswith(head) else None
            follows = body["manifest"]
            found = cls(
                bytes.fromhex(body["rollout"]),
                body["action"],
                whole(body["number"]),
                body["verdict"],
                tuple(release_id(each) for each in body["releases"]),
                dict(body["gate"]),
                text(body["why"]),
                Next(
                    follows["state"],
                    whole(follows["stage"]),
                    fraction(follows["share"]),
                    whole(follows["sequence"]),
                    moment(follows["issued"]),
                    moment(follows["expires"]),
                    bytes.fromhex(follows["grant"]),
                ),
                moment(body["began"]) if "began" in body else None,
            )
            sound = found.entry() == entry and found.next.state in get_args(State)
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
            raise BadInput("the log's entry is no decision of a rollout") from None
        if not sound or found.action not in get_args(Action) or found.verdict not in get_args(Verdict):
            raise BadInput("the log's entry is no decision of a rollout")
        return found


def manifest_of(document: Rollout, decision: Decision) -> RolloutManifest:
    """Return the manifest that follows from a decision: the same for the same bytes."""
    follows = decision.next
    return RolloutManifest(
        rollout=document.hash,
        population=document.population,
        wake_word=document.wake_word,
        sequence=follows.sequence,
        state=follows.state,
        stage=follows.stage,
        share=follows.share,
        baseline=bytes.fromhex(document.models.baseline.sha256),
        candidate=bytes.fromhex(document.models.candidate.sha256),
        issued=follows.issued,
        expires=follows.expires,
        decision=sha256(decision.entry()).digest(),
        grant=follows.grant,
    )


def claim(verdict: Verdict, releases: tuple[str | None, ...], gate: Mapping[str, Any]) -> bytes:
    """Return what the witness is given of a decision before it is made: it must compute the same."""
    return canonical({"gate": dict(gate), "releases": list(releases), "verdict": verdict})
