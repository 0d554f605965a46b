"""Everything of a rollout computed again from the log: what a reviewer runs who believes nobody."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput, UnheardError
from fa_core.publication.rollout import RolloutManifest
from fa_core.rollout.controlled import ControlledResult
from fa_core.rollout.decision import Decision, manifest_of
from fa_core.rollout.evidence import Ended, Judge, Judgement, compared_with, counted, same
from fa_core.rollout.states import History, due_in, fold, histories
from fa_core.store import LogEntry, Store


def verify(store: Store, history: History, judge: Judge, witness: bytes) -> list[str]:
    """Return what is wrong with a rollout, one sentence each; empty where nothing is.

    Every decision is made again from what the log held before it, and every manifest derived again. What a
    log alone cannot prove is that nothing was logged after its last checkpoint, when a stage began by the
    witness's clock, and which rounds were opened: these the witness checked before it granted a stage.

    Args:
        judge: computes the gate. witness: its public key, raw Ed25519, 32 bytes.
    """
    subject = history.document.hash.hex()
    entries = [each for each in store.rollouts() if each.subject == subject]
    rounds = _rounds(store)
    problems = [] if history.signed.holds else ["the rollout's signature does not hold"]
    problems += [f"{_name(each)} was decided twice" for each in history.repeated]
    if history.pending is not None:
        problems.append(f"{_name(history.pending)} has no manifest; any `fa rollout` command writes it")
    for place, each in enumerate(entries):
        where = f"log entry {each.index}"
        before = fold((e.kind, e.entry) for e in entries[:place]) if place else None
        try:
            if each.kind == "decision" and before is not None:
                decision = Decision.from_entry(each.entry)
                replayed = _Replay(store, before, decision, [e for at, e in rounds if at < each.index], judge)
                problems += [f"{where}, {_name(decision)}: {wrong}" for wrong in replayed.problems()]
            elif each.kind == "manifest" and before is not None:
                manifest = RolloutManifest.from_entry(each.entry)
                problems += [f"{where}: {wrong}" for wrong in _of_manifest(before, manifest, witness)]
        except UnheardError as error:
            problems.append(f"{where}: {error}")
    return [*problems, *_sequences(store, history)]


@dataclass(frozen=True, slots=True)
class _Replay:
    """One decision, and what the log held before it."""

    store: Store
    before: History
    decision: Decision
    rounds: Sequence[Ended]
    judge: Judge

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the decision."""
        if self.before.ended is not None:
            yield "it comes after the rollout had ended"
        yield from {
            "start": self._start,
            "look": self._gate,
            "stage": self._gate,
            "complete": self._complete,
        }.get(self.decision.action, self._operator)()

    def _start(self) -> Iterator[str]:
        result = ControlledResult.from_document(canonical(self.decision.gate.get("test_set")))
        if result.hash != self.before.document.gate.test_set:
            yield "it rests on another test set's result than was signed"
        yield from result.failures()
        yield from self._leads_to("shadow", 0)

    def _gate(self) -> Iterator[str]:
        due, decision = self.before.due, self.decision
        if due is None or (due.action, due.number) != decision.key:
            yield "it was not due"
            return
        if len(decision.releases) != (decision.number if decision.action == "look" else 1):
            yield f"it rests on {len(decision.releases)} releases, and another number is planned"
            return
        if wrong := [*self._releases()]:
            yield from wrong
            return
        if decision.releases[-1] is None:
            if decision.verdict != "hold" or (due.closes is not None and decision.at < due.closes):
                yield "it was skipped before its time was over"
            yield from self._leads_to(self.before.last_state, self.before.stage)
            return
        judged = self._judged()
        if decision.verdict != judged.verdict or not same(dict(decision.gate), dict(judged.gate)):
            yield f"its releases lead to other numbers: {judged.verdict}, {judged.why}"
        last = self.before.stage == len(self.before.document.stages) - 1
        if judged.verdict == "roll_back":
            yield from self._leads_to("rolled_back", self.before.stage)
        elif judged.verdict == "hold" or last:
            yield from self._leads_to(self.before.last_state, self.before.stage)
        else:
            yield from self._leads_to("live", self.before.stage + 1)

    def _releases(self) -> Iterator[str]:
        """Yield which releases are not those of the looks so far, or of the stage's test.

        A round that was opened and failed leaves its slot without a release. Which was opened is in the
        witness's journal alone, so either is taken where the log has a failure of the plan.
        """
        document, began = self.before.document, self.before.stage_began
        assert began is not None
        for number, named in enumerate(self.decision.releases):
            slot = due_in(document, self.before.stage, began.since, number, tested=False)
            assert slot is not None
            found = counted(slot, document.population, self.rounds)
            failed = any(each.window is None and each.plan_hash == slot.plan for each in self.rounds)
            if (found and found.release) != named and not (named is None and failed):
                yield f"it rests on another release than the first of {slot.action} {slot.number}'s time"

    def _judged(self) -> Judgement:
        document, began = self.before.document, self.before.stage_began
        assert began is not None
        if self.decision.action == "look":
            ids = self.decision.releases
            return self.judge.looks(document, [None if i is None else self.store.release(i) for i in ids])
        before, release = compared_with(document, self.decision.number, began), self.decision.releases[-1]
        assert release is not None
        compared = None if before is None else self.store.release(before)
        return self.judge.stage(document, self.decision.number, self.store.release(release), compared)

    def _complete(self) -> Iterator[str]:
        last = len(self.before.document.stages) - 1
        if not any(
            each.key == ("stage", last) and each.verdict == "expand" for each in self.before.decisions
        ):
            yield "the last stage was not passed"
        yield from self._leads_to("complete", last)

    def _operator(self) -> Iterator[str]:
        ends = {"roll_back": "rolled_back", "kill": "killed"}
        yield from self._leads_to(ends.get(self.decision.action, self.before.last_state), self.before.stage)

    def _leads_to(self, state: str, stage: int) -> Iterator[str]:
        if (self.decision.next.state, self.decision.next.stage) != (state, stage):
            yield f"it leads to {state} in stage {stage}, and its manifest says otherwise"


def _of_manifest(before: History, manifest: RolloutManifest, witness: bytes) -> Iterator[str]:
    """Yield what is wrong with a manifest, given what the log held before it."""
    derived = [manifest_of(before.document, each) for each in before.decisions]
    renewed = [
        replace(
            each,
            sequence=manifest.sequence,
            issued=manifest.issued,
            expires=manifest.expires,
            grant=manifest.grant,
        )
        for each in before.manifests[-1:]
    ]
    if manifest not in derived and manifest not in renewed:
        yield "the manifest follows from no decision, and renews none"
    if manifest.state == "complete" and any(e.at >= before.expires for e in before.of("complete")):
        yield "the rollout was completed after it had expired"
    if manifest.state not in ("live", "complete"):
        return
    grant = manifest.granted(witness)
    if grant is None:
        yield "the manifest's stage is not granted by the witness"
    elif grant.time is not None and grant.time[1] > before.expires:
        yield "the witness's grant lasts longer than the rollout"


def _sequences(store: Store, history: History) -> Iterator[str]:
    """Yield where the manifests of a population and wake word do not rise."""
    pairs = {h.hex(): each.document.pair for h, each in histories(store.rollouts()).items()}
    last = -1
    for entry in store.published("manifest"):
        if pairs.get(entry.subject) != history.document.pair:
            continue
        try:
            sequence = RolloutManifest.from_entry(entry.entry).sequence
        except BadInput:
            continue  # named above
        if sequence <= last:
            yield f"log entry {entry.index}: manifest {sequence} comes after {last}"
        last = max(last, sequence)


def _rounds(store: Store) -> list[tuple[int, Ended]]:
    entries: list[LogEntry] = [*store.published("release"), *store.published("failure")]
    entries.sort(key=lambda each: each.index)
    return [(each.index, Ended.from_body(each.kind, each.body)) for each in entries]


def _name(decision: Decision) -> str:
    named: Mapping[str, str] = {"roll_back": "rollback"}
    return f"{named.get(decision.action, decision.action)} {decision.number}"
