"""What is done with a rollout: start, decide, hold, resume, roll back, kill, complete. Over the store's log.

The order of each: compute; have the witness grant the stage, where it reaches more devices; write the
decision; write its manifest; write the file that devices fetch, where it is an end; have the log cosigned;
write the file; report an end, a hold or a resumption to the witness. Whatever breaks off in between, the
next call continues with the same bytes. A decision is checked against the log and written to it in one
transaction, so two operators at once decide one thing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final

from fa_core.errors import BadInput, Refused, RoundFailed
from fa_core.plan import Plan
from fa_core.publication.artefact import ArtefactManifest
from fa_core.publication.rollout import State
from fa_core.publication.signed import SignedDocument
from fa_core.rollout.budget import costs_of, require_room, set_aside, stated
from fa_core.rollout.controlled import ControlledResult
from fa_core.rollout.decision import Action, claim
from fa_core.rollout.document import Rollout
from fa_core.rollout.evidence import Ended, Judgement, compared_with, counted
from fa_core.rollout.models import publication
from fa_core.rollout.publish import inform
from fa_core.rollout.record import Context, Outcome, Proposal, history_of, idle, record, settle
from fa_core.rollout.states import Due, History, Status, due_in, histories
from fa_core.store import LogEntry, Store
from fa_core.store.store import Ledger
from fa_core.trust.grants import Asked, GrantRequest, ProvenEntry

LEAST_PREFIX: Final = 4

_DETECTORS: Final = ("head", "adapter", "thresholds")
"""Kinds of artefacts that give a detector; events name no policy, so no gate could see one."""


def find(store: Store, text: str) -> History:
    """Return the rollout meant by its name, name@revision, or the first digits of its hash.

    A name alone is its newest revision. Raises BadInput where none is meant, or more than one.
    """
    every = list(histories(store.rollouts()).values())
    named = [each for each in every if text in (each.document.name, each.document.metadata.name)]
    if not named and len(text) >= LEAST_PREFIX:
        named = [each for each in every if each.document.hash.hex().startswith(text.lower())]
        if len(named) > 1:
            raise BadInput(f"more than one rollout starts with {text}; give more digits")
    if not named:
        names = ", ".join(each.document.name for each in every) or "none was started"
        raise BadInput(f"the log has no rollout {text}; there are: {names}")
    return max(named, key=lambda each: each.document.metadata.revision)


def start(
    context: Context,
    document: Rollout,
    signed: SignedDocument,
    result: ControlledResult,
    plans: Mapping[str, Plan],
) -> Outcome:
    """Start a rollout: shadow on every device. The same again changes nothing.

    Args:
        signed: the document, signed by a plan key. result: of the controlled test set.
        plans: the gate's and the live stages', by their hash.

    Raises Refused where the test set was not passed, a model is not published, the budgets have no room, or
    another rollout is under way for the population and wake word; RoundFailed where the witness does not
    register the start.
    """
    store, now = context.store, context.now
    settle(context, document)
    own = histories(store.rollouts()).get(document.hash)
    if own is not None and own.decisions:
        if not own.active(now):
            raise Refused(f"{document.name} is {own.status(now)}; a new try is a new revision")
        return idle(context, own, "expand", "it was started before")
    if not signed.holds or signed.hash != document.hash:
        raise Refused(f"{document.name}: the signature is not over this rollout; `fa rollout sign` signs it")
    _require_passed(document, result)
    _require_models(document, result, store)
    costs, population = costs_of(plans), document.population

    def require(entries: Sequence[LogEntry], ledger: Ledger) -> None:
        _require_free(document, histories(entries), now)
        declared, past = ledger(population)
        others = set_aside(entries, population, past, now)
        require_room(document, costs, (declared, past), others, now)

    # Before anything is registered or written, and within the transaction that writes.
    require(store.rollouts(), lambda name: (store.declaration(name), store.charges(name)))
    for before in histories(store.rollouts()).values():
        if before.document.pair == document.pair:
            inform(context.witness, before)
    began = _began(context, document, 0)
    store.note_key("plan", signed.key)
    store.publish("rollout", document.hash.hex(), signed.entry())
    gate = {"test_set": json.loads(result.document()), "budget": stated(document, costs, now)}
    why = "the controlled test set is passed, and the budgets have room for every look"
    proposal = Proposal("start", 1, "expand", (), gate, why, "shadow", 0, began=began)
    return record(context, document, proposal, require)


def decide(context: Context, document: Rollout) -> Outcome:
    """Decide what is due: a look, or a live stage's test. Where nothing is, renew a lease that is half over.

    Raises Refused where the rollout is not under way, or the witness grants nothing: then the stage was
    renewed unchanged.
    """
    settle(context, document)
    while True:
        history = history_of(context.store, document)
        if history.ended is not None:
            return idle(context, history, "roll_back", f"it has ended: {history.ended.why}")
        if not history.active(context.now):
            raise Refused(f"{document.name} is {history.status(context.now)}: there is nothing to decide")
        due = history.due
        if due is None:
            return idle(context, history, "hold", _nothing_due(history))
        if context.now < due.opens:
            when = f"{due.opens:%Y-%m-%d %H:%M} UTC"
            return idle(context, history, "hold", f"{due.action} {due.number} is due from {when} on")
        try:
            found = _counted(context, document, due)
        except RoundFailed as error:
            return idle(context, history, "hold", f"which round decides {due.action} {due.number}: {error}")
        if found is None:
            if due.closes is None or context.now < due.closes:
                why = f"{due.action} {due.number} is due: ask plan {due.plan[:12]} with `fa run`"
                return idle(context, history, "hold", why)
            why = f"look {due.number} has no release, and its time is over: it is skipped"
            ids = (*_looked(history), None)
            record(context, document, Proposal(due.action, due.number, "hold", ids, {}, why))
            continue
        return _judged(context, history, due, found)


def operate(context: Context, document: Rollout, action: Action, why: str) -> Outcome:
    """Hold, resume, roll back or kill a rollout, by an operator. No grant is needed for any of these.

    All take effect at once, whether or not the witness answers: it hears of them from this call, or from the
    next that it answers.

    Raises Refused where it is over, and for `resume` of one that is not held.
    """
    settle(context, document)
    history = history_of(context.store, document)
    if not history.decisions:
        raise Refused(f"{document.name} was not started; `fa rollout start` does")
    if history.ended is not None:
        if history.ended.action == action:
            return idle(context, history, history.ended.verdict, history.ended.why)
        raise Refused(f"{document.name} has ended for good: {history.ended.why}")
    ends: dict[Action, State] = {"roll_back": "rolled_back", "kill": "killed"}
    if action not in ends and not history.active(context.now):
        raise Refused(f"{document.name} is {history.status(context.now)}: it cannot be held or resumed")
    if action in ("hold", "resume") and history.held == (action == "hold"):
        raise Refused(f"{document.name} is {'' if history.held else 'not '}held")
    number = len(history.of(action)) + 1
    if action not in ends:
        return record(context, document, Proposal(action, number, "hold", (), {}, why))
    proposal = Proposal(action, number, "roll_back", (), {}, why, ends[action], history.stage)
    return record(context, document, proposal)


def complete(context: Context, document: Rollout) -> Outcome:
    """Make the candidate the baseline, after the last stage. The witness grants it.

    Raises Refused where the last stage is not passed, or an operator holds the rollout.
    """
    settle(context, document)
    history = history_of(context.store, document)
    if history.of("complete") and history.ended is None:
        return idle(context, history, "expand", "it is complete")
    if not history.active(context.now) or history.held:
        status = "held" if history.held else history.status(context.now)
        raise Refused(f"{document.name} is {status}: it cannot be completed")
    last = len(document.stages) - 1
    passed = [each for each in history.of("stage") if (each.number, each.verdict) == (last, "expand")]
    if not passed:
        raise Refused(f"{document.name} has not passed its last stage; `fa rollout decide` says what is due")
    test = passed[0]
    asked = Asked(document.hash, "complete", last, Fraction(1))
    judged = Judgement(test.verdict, test.gate, test.why)
    grant, _ = _granted(context, history, asked, test.releases, judged)
    why = "every stage is passed: the candidate is the new baseline"
    return record(
        context, document, Proposal("complete", 1, "expand", test.releases, {}, why, "complete", last, grant)
    )


# What a decision rests on


def _judged(context: Context, history: History, due: Due, found: Ended) -> Outcome:
    """Have the gate decide what is due, and do what it says."""
    document, store, began = history.document, context.store, history.stage_began
    assert began is not None
    if due.action == "look":
        ids = (*_looked(history), found.release)
        judged = context.judge.looks(
            document, [None if each is None else store.release(each) for each in ids]
        )
    else:
        ids, before = (found.release,), compared_with(document, due.number, began)
        compared = None if before is None else store.release(before)
        judged = context.judge.stage(document, due.number, store.release(found.release), compared)
    proposal = Proposal(
        due.action, due.number, judged.verdict, ids, judged.gate, judged.why, "rolled_back", history.stage
    )
    if judged.verdict == "roll_back":
        return record(context, document, proposal)
    if judged.verdict == "hold" or history.stage == len(document.stages) - 1:
        return record(context, document, replace(proposal, state=None))
    if history.held:
        return idle(context, history, "hold", f"an operator holds it; the gate says expand: {judged.why}")
    stage = history.stage + 1
    asked = Asked(document.hash, "live", stage, document.stages[stage].share)
    grant, granted_at = _granted(context, history, asked, ids, judged)
    expanded = replace(proposal, state="live", stage=stage, grant=grant, began=granted_at)
    return record(context, document, expanded)


def _granted(
    context: Context, history: History, asked: Asked, releases: tuple[str | None, ...], judged: Judgement
) -> tuple[bytes, datetime | None]:
    """Have the witness grant a stage; return its signature, and when a live one began by its clock.

    Raises Refused where it does not: the stage was renewed unchanged.
    """
    store, began = context.store, history.stage_began
    assert began is not None
    try:
        inform(context.witness, history)
        store.checkpoint(context.log_key, context.witness)
        own = {each.entry: each for each in store.rollouts()}
        due = due_in(history.document, history.stage, began.since, len(releases) - 1, tested=False)
        assert due is not None
        first, second, started = (own[e] for e in (history.signed.entry(), began.entry(), _started(history)))
        rounds = [(entry, each) for entry, each in _rounds(store, due) if entry.index > started.index]
        entries = sorted([first, second, *(entry for entry, _ in rounds)], key=lambda each: each.index)
        proved = publication(store, entries)
        request = GrantRequest(
            asked=asked,
            claim=claim(judged.verdict, releases, judged.gate),
            note=proved.note,
            entries=tuple(ProvenEntry(each.index, each.entry, each.inclusion) for each in proved.entries),
            bodies=tuple(store.release_file(each.release) for _, each in rounds if each.window is not None),
        )
        grant = context.witness.grant(request.encode())
        return grant, _began(context, history.document, asked.stage) if asked.state == "live" else None
    except (RoundFailed, Refused) as error:
        idle(context, history, "hold", "", renew=True)
        raise Refused(f"nothing expands: {error}\nthe stage was renewed unchanged") from None


def _began(context: Context, document: Rollout, stage: int) -> datetime:
    """Return when a stage began by the witness's clock, UTC: it registers a start that it does not know."""
    seconds = context.witness.begin(document.hash + stage.to_bytes(2, "little"))
    return datetime.fromtimestamp(int.from_bytes(seconds, "little"), UTC)


def _counted(context: Context, document: Rollout, due: Due) -> Ended | None:
    """Return the release that decides what is due, as the witness chooses it; None where there is none.

    The witness is asked where the log leaves it open: more than one round was charged for the slot, or its
    one round failed. Raises RoundFailed where it does not answer then.
    """
    store = context.store
    rounds = [each for _, each in _rounds(store, due)]
    charged = [
        each.release
        for each in store.charges(document.population)
        if each.plan_hash == due.plan and due.counts(each.window_start, each.window_end)
    ]
    released = {each.release for each in rounds if each.window is not None}
    if not charged or (len(charged) == 1 and charged[0] in released):
        return counted(due, document.population, rounds)
    reply = context.witness.opened(b"".join(bytes.fromhex(each) for each in charged))
    opened = [reply[at : at + 16].hex() for at in range(0, len(reply), 16)]
    return counted(due, document.population, rounds, opened)


def _started(history: History) -> bytes:
    return history.of("start")[0].entry()


def _rounds(store: Store, due: Due) -> list[tuple[LogEntry, Ended]]:
    """Return how the rounds of a plan ended, releases and failures, in the log's order."""
    entries = [*store.published("release"), *store.published("failure")]
    found = [(each, Ended.from_body(each.kind, each.body)) for each in entries]
    ours = [(entry, each) for entry, each in found if each.plan_hash == due.plan]
    return sorted(ours, key=lambda each: each[0].index)


def _looked(history: History) -> tuple[str | None, ...]:
    """Return the releases of the looks so far."""
    looks = history.of("look")
    return looks[-1].releases if looks else ()


def _nothing_due(history: History) -> str:
    document = history.document
    if history.stage == 0:
        return f"all {document.gate.looks} looks were taken, and not every group is shown to be good enough"
    if history.stage == len(document.stages) - 1 and history.of("stage")[-1].verdict == "expand":
        return "every stage is passed: `fa rollout complete` makes the candidate the baseline"
    return f"the one test of live stage {history.stage} was made, and says hold"


def _require_passed(document: Rollout, result: ControlledResult) -> None:
    if result.hash != document.gate.test_set:
        raise Refused(
            f"{document.name} names the test set's result {document.gate.test_set[:12]}, and this is "
            f"{result.hash[:12]}"
        )
    models = document.models
    about = (result.baseline, result.candidate, result.wake_word)
    if about != (models.baseline.sha256, models.candidate.sha256, document.wake_word):
        raise Refused("the test set's result is of other models, or another wake word, than the rollout")
    if failures := result.failures():
        raise Refused(
            "the controlled test set was not passed:\n" + "\n".join(f"  {each}" for each in failures)
        )


def _require_models(document: Rollout, result: ControlledResult, store: Store) -> None:
    """Raise Refused unless both models are in the log as the rollout names them, and as they were tested."""
    published: dict[str, ArtefactManifest] = {}
    for entry in store.published("model"):
        manifest = ArtefactManifest.from_document(SignedDocument.from_entry("model", entry.entry).document)
        published[manifest.sha256] = manifest
    for model in (document.models.baseline, document.models.candidate):
        if model.sha256 not in published:
            raise Refused(
                f"model {model.version} ({model.sha256[:12]}) is not in the log; `fa model add` does"
            )
        manifest = published[model.sha256]
        if manifest.version != model.version or manifest.wake_word not in ("", document.wake_word):
            raise Refused(
                f"artefact {model.sha256[:12]} is {manifest.version} for {manifest.wake_word or 'all'}; the "
                f"rollout calls it {model.version} for {document.wake_word}"
            )
        if manifest.kind not in _DETECTORS:
            raise Refused(
                f"{model.version} is of kind {manifest.kind}: a rollout is of {', '.join(_DETECTORS)}"
            )
    baseline, candidate = (
        published[each.sha256] for each in (document.models.baseline, document.models.candidate)
    )
    if candidate.base not in ("", baseline.sha256, baseline.base):
        raise Refused(
            f"{candidate.version} changes artefact {candidate.base[:12]}, which is not the model in the field"
        )
    for manifest, bases in ((baseline, result.baseline_bases), (candidate, result.candidate_bases)):
        if bases != _bases(manifest, published):
            raise Refused(f"the test set was run on {manifest.version} over another base than the log says")


def _bases(manifest: ArtefactManifest, published: Mapping[str, ArtefactManifest]) -> tuple[str, ...]:
    """Return the hashes of what a model changes, the nearest first."""
    found: list[str] = []
    while manifest.base:
        found.append(manifest.base)
        manifest = published[manifest.base]
    return tuple(found)


def _require_free(document: Rollout, every: Mapping[bytes, History], now: datetime) -> None:
    """Raise Refused where the population and wake word have another rollout, or another model by now."""
    others = [each for each in every.values() if each.document.hash != document.hash]
    if any(each.document.name == document.name for each in others):
        raise Refused(f"the log has another rollout called {document.name}; count `revision` up")
    for other in (each for each in others if each.document.pair == document.pair):
        if other.active(now):
            raise Refused(
                f"{other.document.name} is under way for {document.wake_word} in population "
                f"{document.population}; one rollout at a time"
            )
    done = [
        each.document
        for each in others
        if each.document.pair == document.pair and each.status(now) == Status.COMPLETE
    ]
    if done and done[-1].models.candidate.sha256 != document.models.baseline.sha256:
        model = done[-1].models.candidate.version
        raise Refused(f"{done[-1].name} is complete, so the model in the field is {model}")
