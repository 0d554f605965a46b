"""What happened next says what an event was: weak labels, each with the source that it comes from.

Nobody listens to anything to label it. A person who is not heard says it again; one who was heard by
mistake cancels or says nothing. Such labels are sometimes wrong, which is why `label_source` goes with
every one and a plan may filter by it. An event that nothing followed keeps no label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from clients.runtime.events import Heard

Outcome = Literal["true_accept", "false_reject", "false_accept", "true_reject"]
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
    """What a person did: gave a command, cancelled, said nothing, or told whether the wake was meant."""

    time: datetime
    kind: ReactionKind


@dataclass(frozen=True, slots=True)
class Labelled:
    """An event and what it turned out to be; None where nothing tells."""

    heard: Heard
    outcome: Outcome | None
    source: str | None

    def row(self) -> dict[str, object]:
        """Return the event as a row of `wake_events`."""
        heard = self.heard
        return {
            "time": heard.time,
            "wake_word": heard.wake_word,
            "model_version": heard.model_version,
            "score": heard.score,
            "accepted": heard.accepted,
            "outcome": self.outcome,
            "label_source": self.source,
            "snr_db": heard.snr_db,
            "playback": heard.playback,
        }


def label(index: int, events: Sequence[Heard], reactions: Sequence[Reaction]) -> Labelled:
    """Return the label of `events[index]`. Both sequences are in order of time."""
    heard = events[index]
    following = events[index + 1 :]
    if not heard.accepted:
        retried = any(each.accepted and each.time - heard.time <= RETRY for each in following)
        return (
            Labelled(heard, "false_reject", "retry")
            if retried
            else Labelled(heard, "true_reject", "near_miss")
        )
    next_wake = min((each.time for each in following if each.accepted), default=heard.time + REACTION)
    until = min(next_wake, heard.time + REACTION)
    for reaction in reactions:
        if heard.time <= reaction.time < until:
            return Labelled(heard, *_BY_REACTION[reaction.kind])
    return Labelled(heard, None, None)


class Labeller:
    """Holds events until enough time has passed to know what followed them."""

    def __init__(self) -> None:
        self._events: list[Heard] = []
        self._reactions: list[Reaction] = []

    def hear(self, heard: Heard) -> None:
        """Take in an event; events come in order of time."""
        self._events.append(heard)

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
) -> dict[str, object]:
    """Return a command as a row of `command_events`. A correction says that the intent was another one."""
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
    }
