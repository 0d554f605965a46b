"""What a stage of a rollout follows from: which releases count, and the gate computed from them.

The aggregator decides with these functions, and the witness decides again with the same ones, from the log's
entries that it is handed. It signs where both come to the same.
"""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from math import isclose
from typing import Any, Final, Protocol

import numpy as np

from fa_core.errors import BadInput, Refused
from fa_core.layout import compile_plan
from fa_core.plan import from_canonical as plan_of
from fa_core.privacy.distributed import scales_of, shares_outside_a_ring, variance_in_sum
from fa_core.privacy.ledger import Charge
from fa_core.privacy.two_aggregators import variance_in_release
from fa_core.publication.signed import SignedDocument
from fa_core.rollout.decision import Decision, Verdict, claim
from fa_core.rollout.document import Rollout, from_canonical
from fa_core.rollout.states import Due, due_in
from fa_core.store.files import read_release
from fa_core.trust import checkpoint
from fa_core.trust.checkpoint import Kind
from fa_core.trust.grants import Evidence, KnownRound, Term
from fa_core.trust.strict import release_id, text
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
        named = (text(body[each]) for each in ("release", "plan_hash", "population"))
        release, plan_hash, population = named
        if kind == "failure":
            return cls(release, plan_hash, population, None, "")
        start, end = (datetime.fromisoformat(text(body[f"window_{each}"])) for each in ("start", "end"))
        if start.tzinfo is None or end.tzinfo is None:
            raise ValueError("a window without a zone")
        return cls(release, plan_hash, population, (start, end), text(body["release_sha256"]))


def counted(due: Due, population: str, rounds: Sequence[Ended], opened: Sequence[str] = ()) -> Ended | None:
    """Return the release that decides, None where there is none.

    The round about a planned window that was opened first is the slot's only candidate; where it ended
    without a release the slot has none. Of rounds that a witness does not know, the first release in the
    log's order decides.

    Args:
        rounds: how rounds ended, in the log's order.
        opened: releases about the slot's windows whose survivors the witness signed, in the order in which it
            did.
    """
    if opened:
        found = next((each for each in rounds if each.release == opened[0]), None)
        return found if found is not None and found.window is not None else None
    for each in rounds:
        ours = each.plan_hash == due.plan and each.population == population
        if ours and each.window is not None and due.counts(*each.window):
            return each
    return None


def compared_with(document: Rollout, stage: int, began: Decision) -> str | None:
    """Return the release of the stage before, where the candidate acts everywhere in this one: else None."""
    everywhere = document.stages[stage].share == 1 and began.action == "stage"
    return began.releases[-1] if everywhere else None


def recompute(evidence: Evidence, judge: Judge, *, allow_simulated: bool = False) -> Term:
    """Compute again what a stage of a rollout follows from, and return how long its grants may last.

    Raises Refused where it does not follow.

    Checked are the document's signature, that the stage is the next one and has its share, which releases
    count by the witness's own clock and journal, that no round is left out for which it signed a roster, and
    the gate. A hold or an end that was not reported to this witness cannot be seen: a log proves what is in
    it, and not that nothing came after.

    Args:
        allow_simulated: whether simulated releases count, and releases for which this witness signed no
            roster. For a store's own witness only, since engine `tables` has no rosters.
    """
    try:
        shown = _read(evidence)
        verdict, ids, gate = _claim(evidence.claim)
    except (BadInput, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise Refused("the witness grants no stage without the rollout, its start and its releases") from None
    document, began, population = shown.document, shown.began, shown.document.population
    before = evidence.asked.stage - (evidence.asked.state == "live")
    _check_stage(evidence, document, began, before)
    slots = _slots(document, evidence.began, before, len(ids))
    if evidence.now < slots[-1].opens:
        raise Refused("the stage has not lasted as long as the rollout plans")
    planned = _planned(document, evidence.began) if before == 0 else slots
    _check_known(evidence, population, planned, shown.rounds)
    found = [counted(slot, population, shown.rounds, _opened(evidence, population, slot)) for slot in planned]
    chosen = found[: len(slots)]
    if [each and each.release for each in chosen] != ids:
        raise Refused("the decision names other releases than the planned ones that the log has")
    _check_order(evidence, shown, chosen)
    needed = {each.release for each in found if each is not None}
    if before > 0 and (compared := compared_with(document, before, began)) is not None:
        needed.add(compared)
    releases = _releases(evidence, shown.rounds, needed, allow_simulated=allow_simulated)
    judged = _judge(document, before, began, chosen, releases, judge)
    if judged.verdict != "expand":
        raise Refused(f"the gate does not expand but says {judged.verdict}: {judged.why}")
    if verdict != "expand" or not same(gate, dict(judged.gate)):
        raise Refused("the decision has other numbers than its releases lead to")
    if before == 0:
        _check_later(document, found, len(ids), releases, judge)
    return Term(document.lease, document.end)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a request shows: the rollout, the decision that began the stage before, how its plan's rounds
    ended, and which of them the log has after that decision."""

    document: Rollout
    began: Decision
    rounds: list[Ended]
    after: frozenset[str]


def _claim(data: bytes) -> tuple[str, list[str | None], dict[str, Any]]:
    """Return verdict, releases and numbers of a claim. ValueError, KeyError or TypeError for another."""
    body = json.loads(data)
    return text(body["verdict"]), [release_id(each) for each in body["releases"]], dict(body["gate"])


def _planned(document: Rollout, began: datetime) -> list[Due]:
    """Return every look that is planned."""
    return _slots(document, began, 0, document.gate.looks)


def _opened(evidence: Evidence, population: str, slot: Due) -> list[str]:
    """Return the releases about a slot's windows that this witness let be opened, in that order."""
    ours = [
        (each.opened, each.charge.release)
        for each in evidence.rounds
        if each.opened is not None and _about(each.charge, population, slot)
    ]
    return [release for _, release in sorted(ours)]


def _about(charge: Charge, population: str, slot: Due) -> bool:
    same_plan = (charge.plan_hash, charge.population) == (slot.plan, population)
    return same_plan and slot.counts(charge.window_start, charge.window_end)


def _check_order(evidence: Evidence, shown: _Shown, chosen: Sequence[Ended | None]) -> None:
    """Raise Refused for a release that the log has before its stage began, or that served another grant."""
    for each in chosen:
        if each is not None and each.release not in shown.after:
            raise Refused(f"the log has release {each.release} before the decision that began its stage")
        if each is not None and each.release in evidence.used:
            raise Refused(f"release {each.release} served an earlier stage of the rollout")


def _check_later(
    document: Rollout,
    found: Sequence[Ended | None],
    looks: int,
    releases: Mapping[str, Release],
    judge: Judge,
) -> None:
    """Raise Refused where looks that the decision does not rest on lead to a rollback."""
    for last in range(looks, len(found)):
        if found[last] is None:
            continue
        judged = judge.looks(
            document, [None if e is None else releases[e.release] for e in found[: last + 1]]
        )
        if judged.verdict == "roll_back":
            raise Refused(f"look {last + 1} was taken and says roll_back: {judged.why}")


def _judge(
    document: Rollout,
    stage: int,
    began: Decision,
    found: Sequence[Ended | None],
    releases: Mapping[str, Release],
    judge: Judge,
) -> Judgement:
    chosen = [None if each is None else releases[each.release] for each in found]
    if stage == 0 and any(each is not None for each in chosen):
        return judge.looks(document, chosen)
    before = compared_with(document, stage, began)
    if stage == 0 or chosen[0] is None or (before is not None and before not in releases):
        raise Refused("the witness grants no stage without the release of its test, and of the stage before")
    return judge.stage(document, stage, chosen[0], None if before is None else releases[before])


def _read(evidence: Evidence) -> _Shown:
    """Return what the request shows. Raises BadInput, or what `Ended.from_body` does, for anything else."""
    first, *others = evidence.entries or (b"",)
    signed = SignedDocument.from_entry("rollout", first)
    if not signed.holds or signed.hash != evidence.asked.rollout:
        raise BadInput("the rollout is not signed, or another one")
    places = [at for at, each in enumerate(others) if each.startswith(_DECISION)]
    if len(places) != 1:
        raise BadInput("one decision began the stage before")
    (place,) = places
    rounds = [_ended(each) for at, each in enumerate(others) if at != place]
    if len({each.release for each in rounds}) != len(rounds):
        raise BadInput("a round ends once")
    after = frozenset(each.release for each in rounds[place:])
    return _Shown(from_canonical(signed.document), Decision.from_entry(others[place]), rounds, after)


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
    granted_for = json.loads(claim(began.verdict, began.releases, began.gate))
    if before > 0 and not same(granted_for, json.loads(evidence.earlier)):
        raise Refused("the decision that began the stage before is not the one that was granted")
    if evidence.now >= document.end:
        raise Refused(f"the rollout expired on {document.metadata.expires}")


def _slots(document: Rollout, began: datetime, stage: int, looks: int) -> list[Due]:
    """Return what was due in a stage that began at a time: the looks so far, or the live stage's one test."""
    numbers = range(min(looks, document.gate.looks + 1)) if stage == 0 else range(1)
    slots = [due_in(document, stage, began, number, tested=False) for number in numbers]
    found = [each for each in slots if each is not None]
    if not found or len(found) != len(slots):
        raise Refused(f"the rollout plans {document.gate.looks} looks, and the decision rests on {looks}")
    return found


def _check_known(evidence: Evidence, population: str, slots: Sequence[Due], rounds: Sequence[Ended]) -> None:
    """Raise Refused where a round is left out that this witness knows: it signed its roster."""
    shown = {each.release for each in rounds}
    for each in evidence.rounds:
        charge = each.charge
        if charge.release not in shown and any(_about(charge, population, slot) for slot in slots):
            raise Refused(f"release {charge.release} is left out, for which the witness signed a roster")


def _releases(
    evidence: Evidence, rounds: Sequence[Ended], needed: Container[str], *, allow_simulated: bool
) -> dict[str, Release]:
    """Return the releases that are needed by their id, each with the bytes that the log names."""
    released = [each for each in rounds if each.window is not None]
    if len(released) != len(evidence.bodies):
        raise Refused("the witness needs the bytes of each release, in the order of their entries")
    known = {each.charge.release: each for each in evidence.rounds}
    found = {}
    for each, body in zip(released, evidence.bodies, strict=True):
        if each.release not in needed:
            continue
        release = _release(each, body)
        _check_origin(release, known.get(each.release), allow_simulated=allow_simulated)
        found[each.release] = release
    return found


def _check_origin(release: Release, known: KnownRound | None, *, allow_simulated: bool) -> None:
    """Raise Refused unless the witness let a release be opened, and as it says; and its layout is its
    plan's."""
    unopened = known is None or known.opened is None
    if not allow_simulated and (unopened or release.simulated):
        raise Refused(f"release {release.id} is of no round whose survivors the witness signed")
    if release.layout != compile_plan(plan_of(release.plan)):
        raise Refused(f"release {release.id} is laid out in another way than its plan says")
    if not _has_planned_noise(release):
        raise Refused(f"release {release.id} has other noise than its plan says")
    if known is not None:
        charge = known.charge
        charged = (charge.plan_hash, charge.population, charge.window_start, charge.window_end)
        says = (release.layout.plan_hash, release.population, release.window_start, release.window_end)
        if charged != says:
            raise Refused(f"release {release.id} is of another round than the witness signed the roster of")


def _has_planned_noise(release: Release) -> bool:
    """Return whether a release states its plan's noise: where devices add it, that of those counted."""
    layout, privacy, part = release.layout, plan_of(release.plan).privacy, release.participation
    if layout.noise == "central":
        planned, scales = np.array([float(each.variance) for each in layout.blocks]), [1] * len(layout.blocks)
    elif layout.kappa is not None:
        planned, scales = variance_in_release(layout), [1] * len(layout.blocks)
    else:
        try:
            shares = shares_outside_a_ring(layout, part.joined, privacy.dropout, privacy.corrupt)
            planned, scales = variance_in_sum(shares, part.counted), scales_of(shares).tolist()
        except (Refused, ValueError, TypeError, ArithmeticError):
            return False
    stated = release.noise_variance
    close = stated.shape == planned.shape and bool(np.allclose(stated, planned, rtol=_RELATIVE, atol=0.0))
    return close and release.scales.tolist() == scales


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
    try:
        return _same(one, other)
    except (OverflowError, RecursionError):
        return False


def _same(one: object, other: object) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    if (
        isinstance(one, float | int)
        and isinstance(other, float | int)
        and bool not in (type(one), type(other))
    ):
        return isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return type(one) is type(other) and one == other
