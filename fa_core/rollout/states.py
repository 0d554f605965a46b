"""Where a rollout is: a pure fold of its entries in the log. There is no other record of it.

    draft → signed → tested → shadow → live … live 100% → complete

and from any of them hold, rolled back, killed (both for good) and expired. `tested` is between the decision
to start and its manifest. A rollout that has ended stays ended, whatever is logged after that.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from fa_core.errors import BadInput
from fa_core.publication.rollout import ENDED, RolloutManifest
from fa_core.publication.signed import SignedDocument
from fa_core.rollout.decision import Action, Decision, manifest_of
from fa_core.rollout.document import Rollout, from_canonical
from fa_core.store import LogEntry
from fa_core.trust.checkpoint import Kind

HOUR = 3600


class Status(StrEnum):
    """Where a rollout is."""

    SIGNED = "signed"
    TESTED = "tested"
    SHADOW = "shadow"
    LIVE = "live"
    COMPLETE = "complete"
    ROLLED_BACK = "rolled_back"
    KILLED = "killed"
    EXPIRED = "expired"


OVER = frozenset({Status.COMPLETE, Status.ROLLED_BACK, Status.KILLED, Status.EXPIRED})
"""In these nothing more is decided."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be decided next: a look, or a live stage's test.

    Attributes:
        action, number: as in the decision.
        plan: hex SHA-256 of the plan whose release decides.
        opens, closes: a release counts whose window ends in [opens, closes), UTC; `closes` is None for a
            stage's test, which waits for its release.
        begin: its window begins here at the earliest.
    """

    action: Action
    number: int
    plan: str
    begin: datetime
    opens: datetime
    closes: datetime | None

    def counts(self, window_start: datetime, window_end: datetime) -> bool:
        """Return whether a release about the events of a window is the one that decides."""
        late = self.closes is not None and window_end >= self.closes
        return window_start >= self.begin and window_end >= self.opens and not late


@dataclass(frozen=True)
class History:
    """A rollout as the log has it: everything follows from these.

    Attributes:
        document: what was signed. signed: with whose signature.
        decisions: the first for each action and number, in the log's order.
        repeated: further ones, which count for nothing.
        manifests: in the log's order.
    """

    document: Rollout
    signed: SignedDocument
    decisions: tuple[Decision, ...]
    repeated: tuple[Decision, ...]
    manifests: tuple[RolloutManifest, ...]

    @property
    def pending(self) -> Decision | None:
        """The decision whose manifest is not in the log: something broke off between the two. What was logged
        after the end gets none."""
        for decision in self.decisions:
            if manifest_of(self.document, decision) not in self.manifests:
                return decision
            if decision is self.ended:
                break
        return None

    @property
    def ended(self) -> Decision | None:
        """The decision that ended the rollout for good: the first one, whatever came after it."""
        return next((each for each in self.decisions if each.next.state in ENDED), None)

    @property
    def last(self) -> Decision | None:
        """The decision in force."""
        return self.ended or (self.decisions[-1] if self.decisions else None)

    @property
    def manifest(self) -> RolloutManifest | None:
        """The manifest in force: that of the end, else the newest."""
        ends = [each for each in self.manifests if each.state in ENDED]
        return max(ends or self.manifests, key=lambda each: each.sequence, default=None)

    @property
    def expires(self) -> datetime:
        """The end of the last day of the rollout, UTC."""
        return self.document.end

    @property
    def held(self) -> bool:
        """Whether an operator holds it: nothing expands until it is resumed."""
        of_operator = [each.action for each in self.decisions if each.action in ("hold", "resume")]
        return of_operator[-1:] == ["hold"]

    def status(self, now: datetime) -> Status:
        """Return where the rollout is."""
        last = self.last
        if last is not None and (last.next.state in ENDED or last.next.state == "complete"):
            return Status(last.next.state)
        if now >= self.expires:
            return Status.EXPIRED
        if last is None:
            return Status.SIGNED
        return Status(last.next.state) if self.manifests else Status.TESTED

    def active(self, now: datetime) -> bool:
        """Whether it is under way: started, and not over."""
        return bool(self.decisions) and self.status(now) not in OVER

    def of(self, action: Action) -> tuple[Decision, ...]:
        """Return the decisions of one action, in the log's order."""
        return tuple(each for each in self.decisions if each.action == action)

    @property
    def stage(self) -> int:
        """The index of the stage that it is in, 0 before it started."""
        return 0 if self.last is None else self.last.next.stage

    @property
    def last_state(self) -> str:
        """The state that devices are in, "" before the start."""
        return "" if self.last is None else self.last.next.state

    @property
    def stage_began(self) -> Decision | None:
        """The decision with which the stage began that it is in."""
        return next((each for each in self.decisions if each.next.stage == self.stage), None)

    @property
    def due(self) -> Due | None:
        """What is to be decided next, None where nothing is planned any more."""
        began = self.stage_began
        if began is None or self.ended is not None or self.of("complete"):
            return None
        return due_in(self.document, self.stage, began.since, len(self.of("look")), self._tested)

    @property
    def _tested(self) -> bool:
        return any(each.number == self.stage for each in self.of("stage"))


def due_in(document: Rollout, stage: int, began: datetime, looks: int, tested: bool) -> Due | None:
    """Return what is to be decided next in a stage that began at a time.

    Args:
        looks: that were decided. tested: whether the live stage's one test was.
    """
    begin = _whole_hour(began)
    if stage == 0:
        gate, number = document.gate, looks + 1
        if number > gate.looks:
            return None
        opens = begin + number * gate.every
        return Due("look", number, gate.plan, begin, opens, opens + gate.every)
    if tested:
        return None
    return Due("stage", stage, document.live.plan, begin, begin + document.live.every, None)


def fold(entries: Iterable[tuple[Kind, bytes]]) -> History:
    """Return a rollout's history from its own entries, in the log's order. BadInput without its document.

    An entry that is no decision and no manifest changes nothing; `verify` names it.
    """
    signed: SignedDocument | None = None
    document: Rollout | None = None
    decisions: dict[tuple[Action, int], Decision] = {}
    repeated: list[Decision] = []
    manifests: list[RolloutManifest] = []
    for kind, entry in entries:
        if kind == "rollout" and document is None:
            signed = SignedDocument.from_entry("rollout", entry)
            document = from_canonical(signed.document)
        with suppress(BadInput):
            if kind == "decision" and document is not None:
                decision = Decision.from_entry(entry)
                if decisions.setdefault(decision.key, decision) is not decision:
                    repeated.append(decision)
            elif kind == "manifest" and document is not None:
                manifests.append(RolloutManifest.from_entry(entry))
    if signed is None or document is None:
        raise BadInput("the log holds no such rollout")
    return History(document, signed, tuple(decisions.values()), tuple(repeated), tuple(manifests))


def histories(entries: Sequence[LogEntry]) -> dict[bytes, History]:
    """Return every rollout in the log by the SHA-256 of its document, in the log's order."""
    by_subject: dict[str, list[LogEntry]] = {}
    for each in entries:
        by_subject.setdefault(each.subject, []).append(each)
    rollouts = (own for own in by_subject.values() if own[0].kind == "rollout")
    found = (fold((each.kind, each.entry) for each in own) for own in rollouts)
    return {each.document.hash: each for each in found}


def next_sequence(histories: Sequence[History], pair: tuple[str, str]) -> int:
    """Return the sequence of the next manifest of a population and wake word, over all its rollouts."""
    own = [each for each in histories if each.document.pair == pair]
    used = [m.sequence for each in own for m in each.manifests]
    used += [d.next.sequence for each in own for d in each.decisions]
    return max(used, default=-1) + 1


def _whole_hour(moment: datetime) -> datetime:
    """Return the first whole hour at or after a moment: windows of releases begin and end there."""
    seconds = int(moment.timestamp())
    return datetime.fromtimestamp(-(-seconds // HOUR) * HOUR, UTC)
