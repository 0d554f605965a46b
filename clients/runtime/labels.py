"""Weak labels of wake events, from what happened next; each carries the source that it comes from.

No person listens to audio to label it. Someone whose wake word was missed says it again; someone whose
device woke by mistake cancels or says nothing. Such labels are sometimes wrong, so each carries its
`label_source`, and a plan may filter by it. An event that nothing followed gets no label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from clients.runtime.events import Detection

Outcome = Literal["true_accept", "false_reject", "false_accept", "true_reject"]
Confirmation = Literal["not_asked", "confirmed", "denied", "unanswered"]
ReactionKind = Literal["follow_up", "cancel", "silence", "confirmed", "denied"]

RETRY = timedelta(seconds=6)
"""A wake so soon after a near miss is the same person trying again."""

REACTION = timedelta(seconds=8)
"""What comes later than this after a wake is about something else."""

_BY_REACTION: dict[ReactionKind, tuple[Outcome, str]] = {
    "follow_up": ("true_accept", "follow_up"),
    "cancel": ("false_accept", "cancel"),
    "silence": ("false_accept", "silence"),
    "confirmed": ("true_accept", "explicit"),
    "denied": ("false_accept", "explicit"),
}


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a person did: gave a command, cancelled, said nothing, or said whether the wake was meant."""

    time: datetime
    kind: ReactionKind


@dataclass(frozen=True, slots=True)
class Labelled:
    """An event and its label; None where nothing shows what it was."""

    detection: Detection
    outcome: Outcome | None
    source: str | None

    def row(self) -> dict[str, object]:
        """Return the event as a row of `wake_events`."""
        detection = self.detection
        return {
            "time": detection.time,
            "wake_word": detection.wake_word,
            "model_version": detection.model_version,
            "score": detection.score,
            "accepted": detection.accepted,
            "outcome": self.outcome,
            "label_source": self.source,
            "snr_db": detection.snr_db,
            "playback": detection.playback,
        }


def label(index: int, events: Sequence[Detection], reactions: Sequence[Reaction]) -> Labelled:
    """Return the label of `events[index]`. Both sequences are in order of time."""
    detection = events[index]
    following = events[index + 1 :]
    if not detection.accepted:
        retried = any(each.accepted and each.time - detection.time <= RETRY for each in following)
        return (
            Labelled(detection, "false_reject", "retry")
            if retried
            else Labelled(detection, "true_reject", "near_miss")
        )
    next_wake = min((each.time for each in following if each.accepted), default=detection.time + REACTION)
    until = min(next_wake, detection.time + REACTION)
    for reaction in reactions:
        if detection.time <= reaction.time < until:
            return Labelled(detection, *_BY_REACTION[reaction.kind])
    return Labelled(detection, None, None)


class Labeller:
    """Holds events until enough time has passed to know what followed them."""

    def __init__(self) -> None:
        self._events: list[Detection] = []
        self._reactions: list[Reaction] = []

    def add(self, detection: Detection) -> None:
        """Take in an event; events come in order of time."""
        self._events.append(detection)

    def react(self, reaction: Reaction) -> None:
        """Take in a reaction; reactions come in order of time."""
        self._reactions.append(reaction)

    def settle(self, now: datetime) -> list[Labelled]:
        """Return the events that were waiting and whose time to be followed is over at `now`."""
        waiting = sum(each.time + REACTION > now for each in self._events)
        settled = len(self._events) - waiting
        done = [label(index, self._events, self._reactions) for index in range(settled)]
        self._events = self._events[settled:]
        oldest = min((each.time for each in self._events), default=now)
        self._reactions = [each for each in self._reactions if each.time >= oldest]
        return done


def command_row(
    time: datetime,
    model_version: str,
    predicted: str,
    corrected_to: str | None,
    *,
    succeeded: bool,
    retries: int,
    cancelled: bool,
    latency_ms: float,
    confirmation: Confirmation | None = None,
) -> dict[str, object]:
    """Return a command as a row of `command_events`. A correction says that the intent was another one.

    Args:
        confirmation: what came of asking whether the command was meant, where a policy is followed.
    """
    return {
        "time": time,
        "model_version": model_version,
        "intent_predicted": predicted,
        "intent_actual": predicted if corrected_to is None else corrected_to,
        "corrected": corrected_to is not None,
        "succeeded": succeeded,
        "retries": retries,
        "cancelled": cancelled,
        "latency_ms": latency_ms,
        "confirmation": confirmation,
    }
