"""What a stage of a rollout follows from: which releases count, and the gate computed from them.

The aggregator decides with these functions, and the witness decides again with the same ones, from the log's
entries that it is handed. It signs where both come to the same.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from math import isclose
from typing import Any, Final, Protocol

from fa_core.errors import BadInput, Refused
from fa_core.publication.signed import SignedDocument
from fa_core.rollout.decision import Decision, Verdict, claim
from fa_core.rollout.document import Rollout, from_canonical
from fa_core.rollout.states import Due, due_in
from fa_core.store.files import read_release
from fa_core.trust import checkpoint
from fa_core.trust.checkpoint import Kind
from fa_core.trust.grants import Evidence
from fa_core.values import Release

_RELATIVE, _ABSOLUTE = 1e-6, 1e-9
"""How far numbers may differ that two machines compute of the same release."""

_DECISION: Final = checkpoint.entry("decision", b"")
_ROUNDS: tuple[Kind, ...] = ("release", "failure")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate says: its verdict, its numbers as JSON has them, and why in a sentence."""

    verdict: Verdict
    gate: Mapping[str, Any]
    why: str


class Judge(Protocol):
    """The gate's mathematics; `fa_core.rollout.judging` has the one that counts."""

    def looks(self, document: Rollout, releases: Sequence[Release | None]) -> Judgement:
        """Return what follows from the looks so far; None for a look without a release."""
        ...

    def stage(self, document: Rollout, stage: int, release: Release, before: Release | None) -> Judgement:
        """Return what follows from a live stage's one test. `before` is the release of the stage before,
        with which the last stage is compared; None for the others, and where there was none."""
        ...


@dataclass(frozen=True, slots=True)
class Ended:
    """How one round of a plan ended, as the log says: a release about a window, or a failure."""

    release: str
    plan_hash: str
    population: str
    window: tuple[datetime, datetime] | None
    sha256: str

    @classmethod
    def from_body(cls, kind: str, body: Mapping[str, Any]) -> "Ended":
        """Return what the log's entry of kind `release` or `failure` says. Raises KeyError or ValueError."""
        if kind == "failure":
            return cls(body["release"], body["plan_hash"], body["population"], None, "")
        start, end = (datetime.fromisoformat(body[f"window_{each}"]) for each in ("start", "end"))
        return cls(
            body["release"], body["plan_hash"], body["population"], (start, end), body["release_sha256"]
        )


def counted(due: Due, population: str, rounds: Sequence[Ended]) -> Ended | None:
    """Return the release that decides: the first in the log's order about a planned window, or None."""
    for each in rounds:
        ours = each.plan_hash == due.plan and each.population == population
        if ours and each.window is not None and due.counts(*each.window):
            return each
    return None


def compared_with(document: Rollout, stage: int, began: Decision) -> str | None:
    """Return the release of the stage before, where the candidate acts everywhere in this one: else None."""
    everywhere = document.stages[stage].share == 1 and began.action == "stage"
    return began.releases[-1] if everywhere else None


def recompute(evidence: Evidence, judge: Judge) -> None:
    """Compute again what a stage of a rollout follows from. Raises Refused where it does not.

    Checked are the document's signature, that the stage is the next one and has its share, which releases
    count, that no round is left out for which this witness signed a roster, and the gate.
    """
    try:
        document, began, rounds = _read(evidence)
        claimed = json.loads(evidence.claim)
        verdict, ids, gate = claimed["verdict"], list(claimed["releases"]), dict(claimed["gate"])
    except (BadInput, ValueError, KeyError, TypeError, AttributeError):
        raise Refused("the witness grants no stage without the rollout, its start and its releases") from None
    before = evidence.asked.stage - (evidence.asked.state == "live")
    _check_stage(evidence, document, began, before)
    slots = _slots(document, began, before, len(ids))
    if evidence.now < slots[-1].opens:
        raise Refused("the stage has not lasted as long as the rollout plans")
    _check_known(evidence, slots, rounds)
    found = [counted(slot, document.population, rounds) for slot in slots]
    if [each and each.release for each in found] != ids:
        raise Refused("the decision names other releases than the planned ones that the log has")
    judged = _judge(document, before, began, found, _releases(evidence, rounds), judge)
    if judged.verdict != "expand":
        raise Refused(f"the gate does not expand but says {judged.verdict}: {judged.why}")
    if verdict != "expand" or not same(gate, dict(judged.gate)):
        raise Refused("the decision has other numbers than its releases lead to")


def _judge(
    document: Rollout,
    stage: int,
    began: Decision,
    found: Sequence[Ended | None],
    releases: Mapping[str, Release],
    judge: Judge,
) -> Judgement:
    chosen = [None if each is None else releases[each.release] for each in found]
    if stage == 0:
        return judge.looks(document, chosen)
    before = compared_with(document, stage, began)
    if chosen[0] is None or (before is not None and before not in releases):
        raise Refused("the witness grants no stage without the release of its test, and of the stage before")
    return judge.stage(document, stage, chosen[0], None if before is None else releases[before])


def _read(evidence: Evidence) -> tuple[Rollout, Decision, list[Ended]]:
    """Return the rollout, the decision that began the stage before, and how its plan's rounds ended."""
    first, *others = evidence.entries or (b"",)
    signed = SignedDocument.from_entry("rollout", first)
    if not signed.holds or signed.hash != evidence.asked.rollout:
        raise BadInput("the rollout is not signed, or another one")
    decisions = [each for each in others if each.startswith(_DECISION)]
    rounds = [_ended(each) for each in others if not each.startswith(_DECISION)]
    if len(decisions) != 1:
        raise BadInput("one decision began the stage before")
    return from_canonical(signed.document), Decision.from_entry(decisions[0]), rounds


def _ended(entry: bytes) -> Ended:
    for kind in _ROUNDS:
        head = checkpoint.entry(kind, b"")
        if entry.startswith(head):
            return Ended.from_body(kind, json.loads(entry.removeprefix(head)))
    raise BadInput("the log's entry is no end of a round")


def _check_stage(evidence: Evidence, document: Rollout, began: Decision, before: int) -> None:
    asked = evidence.asked
    if asked.stage >= len(document.stages) or document.stages[asked.stage].share != asked.share:
        raise Refused("the rollout has no such stage, or one for another share of the devices")
    if asked.state == "complete" and asked.stage != len(document.stages) - 1:
        raise Refused("a rollout is complete after its last stage")
    if (
        began.rollout != asked.rollout
        or began.next.stage != before
        or (before == 0) != (began.action == "start")
    ):
        raise Refused("the decision that was handed over did not begin the stage before")
    granted_for = claim(began.verdict, began.releases, began.gate)
    if before > 0 and sha256(granted_for).digest() != evidence.earlier:
        raise Refused("the decision that began the stage before is not the one that was granted")
    if evidence.now.date() > document.metadata.expires:
        raise Refused(f"the rollout expired on {document.metadata.expires}")


def _slots(document: Rollout, began: Decision, stage: int, looks: int) -> list[Due]:
    """Return what was due in a stage: the looks so far, or the live stage's one test."""
    numbers = range(looks) if stage == 0 else range(1)
    slots = [due_in(document, stage, began.at, number, tested=False) for number in numbers]
    found = [each for each in slots if each is not None]
    if not found or len(found) != len(slots):
        raise Refused(f"the rollout plans {document.gate.looks} looks, and the decision rests on {looks}")
    return found


def _check_known(evidence: Evidence, slots: Sequence[Due], rounds: Sequence[Ended]) -> None:
    """Raise Refused where a round is left out that this witness knows: it signed its roster."""
    shown = {each.release for each in rounds}
    for charge in evidence.charges:
        window = (charge.window_start, charge.window_end)
        planned = any(slot.plan == charge.plan_hash and slot.counts(*window) for slot in slots)
        if planned and charge.release not in shown:
            raise Refused(f"release {charge.release} is left out, for which the witness signed a roster")


def _releases(evidence: Evidence, rounds: Sequence[Ended]) -> dict[str, Release]:
    """Return the releases that were handed over by their id, each with the bytes that the log names."""
    released = [each for each in rounds if each.window is not None]
    if len(released) != len(evidence.bodies):
        raise Refused("the witness needs the bytes of each release, in the order of their entries")
    return {each.release: _release(each, body) for each, body in zip(released, evidence.bodies, strict=True)}


def _release(ended: Ended, body: bytes) -> Release:
    """Return a release from its bytes. Raises Refused where they are another's than the log's entry says."""
    if sha256(body).hexdigest() != ended.sha256:
        raise Refused(f"the bytes of release {ended.release} are not those that the log names")
    try:
        release = read_release(body, f"release {ended.release}")
    except BadInput as error:
        raise Refused(str(error)) from None
    says = (release.id, sha256(release.plan).hexdigest(), release.layout.plan_hash, release.population)
    if says != (ended.release, ended.plan_hash, ended.plan_hash, ended.population):
        raise Refused(f"the bytes of release {ended.release} are another's")
    if (release.window_start, release.window_end) != ended.window:
        raise Refused(f"the bytes of release {ended.release} are about another window")
    return release


def same(one: object, other: object) -> bool:
    """Return whether two JSON values are equal but for the last digits of numbers.

    >>> same({"z": [1.0, None]}, {"z": [1.0 + 1e-9, None]}), same({"z": 1.0}, {"z": 1.1})
    (True, False)
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if (
        isinstance(one, float | int)
        and isinstance(other, float | int)
        and bool not in (type(one), type(other))
    ):
        return isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return type(one) is type(other) and one == other
