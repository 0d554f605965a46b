"""A decision into the log, its manifest after it, and on to the devices; whatever broke off is continued."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.errors import Refused, RoundFailed
from fa_core.publication.rollout import RolloutManifest, State
from fa_core.rollout.decision import Action, Decision, Next, Verdict
from fa_core.rollout.document import Rollout
from fa_core.rollout.evidence import Judge
from fa_core.rollout.publish import Granter, deliver, inform, log_manifest
from fa_core.rollout.states import History, histories, next_sequence
from fa_core.store import LogEntry, Store
from fa_core.store.store import Ledger
from fa_core.trust.grants import GrantRequest


@dataclass(frozen=True, slots=True)
class Context:
    """What an action needs from outside.

    Attributes:
        log_key: signs the log. witness: cosigns it and grants stages. judge: computes the gate.
        folder: the publication directory, None where there is none.
        now: the time, UTC, a whole second.
    """

    store: Store
    log_key: Ed25519PrivateKey
    witness: Granter
    judge: Judge
    folder: Path | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an action.

    Attributes:
        history: the rollout after it.
        verdict, why: as in the decision; `hold` where nothing was decided.
        decision: the one that was made, None where there was nothing to decide.
        undelivered: why devices do not have it yet, "" where they do.
        unwitnessed: why the witness does not know of it yet, "" where it does. Devices have an end before.
    """

    history: History
    verdict: Verdict
    why: str
    decision: Decision | None = None
    undelivered: str = ""
    unwitnessed: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A decision before it has its place and its time; the fields are `Decision`'s and its manifest's.

    Attributes:
        state, stage: None for those that the rollout is in when the decision is written: devices go on as
            they do.
    """

    action: Action
    number: int
    verdict: Verdict
    releases: tuple[str | None, ...]
    gate: Mapping[str, Any]
    why: str
    state: State | None = None
    stage: int | None = None
    grant: bytes = b""
    began: datetime | None = None


def history_of(store: Store, document: Rollout) -> History:
    """Return a rollout's history. Raises Refused where it is not in the log."""
    found = histories(store.rollouts()).get(document.hash)
    if found is None:
        raise Refused(f"{document.name} was not started; `fa rollout start` does")
    return found


def record(
    context: Context,
    document: Rollout,
    proposal: Proposal,
    check: Callable[[Sequence[LogEntry], Ledger], None] = lambda entries, ledger: None,
) -> Outcome:
    """Write a decision, its manifest and what devices fetch. Where somebody decided the same meanwhile, that
    decision stands and is returned.

    `check` is given the log's entries of rollouts and the ledger within the transaction that writes, and
    raises Refused where it may not be.
    """

    def make(entries: Sequence[LogEntry], ledger: Ledger) -> bytes:
        every = histories(entries)
        own = every[document.hash]
        before = next(
            (each for each in own.decisions if each.key == (proposal.action, proposal.number)), None
        )
        if before is not None:
            return before.entry()
        check(entries, ledger)
        _require_open(own, proposal, every, context.now)
        sequence = next_sequence(list(every.values()), document.pair)
        return _decision(context, own, proposal, sequence).entry()

    written = context.store.follow("decision", document.hash.hex(), make)
    decision = Decision.from_entry(written.entry)
    settle(context, document)
    history = history_of(context.store, document)
    return Outcome(history, decision.verdict, decision.why, decision, *_delivered(context, history))


def settle(context: Context, document: Rollout) -> None:
    """Write the manifests of decisions that have none, of every rollout for the population and wake word."""
    for history in histories(context.store.rollouts()).values():
        if history.document.pair == document.pair:
            log_manifest(context.store, history)


def idle(context: Context, history: History, verdict: Verdict, why: str, *, renew: bool = False) -> Outcome:
    """Return that nothing was decided. A lease of which less than half is left is renewed, and `renew` does
    so always; devices get what they do not have yet."""
    document, manifest = history.document, history.manifest
    under_way = history.active(context.now) and manifest is not None
    if under_way and manifest is not None:
        half = manifest.issued + (manifest.expires - manifest.issued) / 2
        if renew or context.now >= half:
            grant = _granted_again(context, manifest)
            renewed = replace(manifest, grant=grant)
            context.store.follow(
                "manifest",
                document.hash.hex(),
                lambda entries, ledger: _renewed(context, entries, document, renewed),
            )
            history = history_of(context.store, document)
    return Outcome(history, verdict, why, None, *_delivered(context, history))


def _granted_again(context: Context, manifest: RolloutManifest) -> bytes:
    """Return a stage's grant for another lease; the one it has where the witness does not give it: devices
    that are in the stage stay, and no other enters it once that has run out."""
    if manifest.state != "live":
        return manifest.grant
    request = GrantRequest(manifest.asked, claim=b"", note=b"", entries=(), bodies=())
    try:
        return context.witness.grant(request.encode())
    except (RoundFailed, Refused):
        return manifest.grant


def _renewed(
    context: Context, entries: Sequence[LogEntry], document: Rollout, renewed: RolloutManifest
) -> bytes:
    """Return the next manifest: that of before, with another lease and perhaps another grant."""
    every = histories(entries)
    own = every[document.hash]
    manifest = own.manifest
    same = manifest is not None and replace(manifest, grant=renewed.grant) == renewed
    if manifest is None or not same or own.pending is not None or not own.active(context.now):
        raise Refused(f"{document.name} was decided about meanwhile; nothing was renewed")
    sequence = next_sequence(list(every.values()), document.pair)
    expires = _expires(context, own, manifest.state)
    return replace(renewed, sequence=sequence, issued=context.now, expires=expires).entry()


_ENDS: Final = frozenset({"roll_back", "kill"})
"""An operator may end a rollout that is over, too: devices learn of it."""


def _require_open(own: History, proposal: Proposal, every: Mapping[bytes, History], now: datetime) -> None:
    """Raise Refused where something else was decided since the proposal was computed."""
    name, action = own.document.name, proposal.action
    if own.ended is not None:
        raise Refused(f"{name} has ended for good: {own.ended.why}")
    if any(each.pending for each in every.values() if each.document.pair == own.document.pair):
        raise Refused(f"{name}: another decision is being made; try again")
    if action != "start" and action not in _ENDS and not own.active(now):
        raise Refused(f"{name} is {own.status(now)}: there is nothing to decide")
    due = own.due
    if action in ("look", "stage") and (due is None or (due.action, due.number) != (action, proposal.number)):
        raise Refused(f"{name}: another decision was made meanwhile; try again")
    if own.held and proposal.state in ("live", "complete"):
        raise Refused(f"{name}: an operator holds it, so nothing expands")
    if action in ("hold", "resume") and own.held == (action == "hold"):
        raise Refused(f"{name} is {'' if own.held else 'not '}held")


def _decision(context: Context, own: History, proposal: Proposal, sequence: int) -> Decision:
    document, last = own.document, own.last
    state, stage, grant = proposal.state, proposal.stage, proposal.grant
    if state is None or stage is None:
        assert last is not None
        assert own.manifest is not None
        state, stage, grant = last.next.state, last.next.stage, own.manifest.grant
    shares: dict[State, Fraction] = {"live": document.stages[stage].share, "complete": Fraction(1)}
    share, expires = shares.get(state, Fraction(0)), _expires(context, own, state)
    return Decision(
        rollout=document.hash,
        action=proposal.action,
        number=proposal.number,
        verdict=proposal.verdict,
        releases=proposal.releases,
        gate=proposal.gate,
        why=proposal.why,
        next=Next(state, stage, share, sequence, context.now, expires, grant),
        began=proposal.began,
    )


def _expires(context: Context, own: History, state: State) -> datetime:
    """Return until when a manifest holds: its lease, and no longer than the rollout where it is under way."""
    lease = context.now + own.document.lease
    return min(lease, own.expires) if state in ("shadow", "live") else lease


def _delivered(context: Context, history: History) -> tuple[str, str]:
    """Give devices and the witness what they do not have yet; return why not, "" for whoever does.

    Devices have an end although the witness did not cosign it. Where another rollout for the population and
    wake word went on since, the file is that one's.
    """
    folder = context.folder if _newest(context.store, history) else None
    have_it = history.ended is not None and folder is not None
    unwitnessed = ""
    try:
        deliver(context.store, history, folder, context.log_key, context.witness)
        have_it = True
    except RoundFailed as error:
        return "" if have_it else str(error), str(error)
    except Refused as error:
        unwitnessed = str(error)
    undelivered = "" if have_it else unwitnessed
    try:
        inform(context.witness, history)
    except (RoundFailed, Refused) as error:
        unwitnessed = unwitnessed or str(error)
    return undelivered, unwitnessed


def _newest(store: Store, history: History) -> bool:
    """Return whether no other rollout for the population and wake word has a later manifest in force."""
    every = histories(store.rollouts()).values()
    ours = [each.manifest for each in every if each.document.pair == history.document.pair]
    last = max((each.sequence for each in ours if each is not None), default=-1)
    return history.manifest is not None and history.manifest.sequence == last
