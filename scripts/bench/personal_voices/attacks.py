"""What somebody gains who leads an adapter: wrong labels, near misses said on purpose, a poisoned anchor set.

Each attack is measured as it is, and with the limit off that holds it, so that the limit can be seen to
matter. An outcome says how many users got a candidate, what the candidates make of calls and near misses, and
which of them the watch reverts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from clients.personal.adapter import Floats, Windows
from clients.personal.anchors import MARGIN, Anchors, level
from clients.personal.fit import fit
from clients.personal.learn import AROUND, Candidate, Gain, Refusal, learn
from clients.personal.moments import Moment, countable
from scripts.bench.personal_voices.measure import LEARNED, Row, Voice, World, row, rows
from scripts.bench.personal_voices.watching import Watched, watched

NOW: Final = datetime(2026, 11, 28, 12, tzinfo=UTC)
EVENING: Final = 40
"""Near misses that somebody says in one evening, each followed by a wake: a retry, says the label."""
OWN: Final = 10
"""Moments of the owner's in the month before."""


@dataclass(frozen=True)
class Outcome:
    """An attack on every user: the rows, and what the watch does with each candidate."""

    attack: str
    limit: str
    rows: Sequence[Row]
    watched: Sequence[Watched]

    @property
    def opened(self) -> int:
        """Users who got a candidate."""
        return sum(isinstance(each.found, Candidate) for each in self.rows)

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The refusals of the others, as often as each was."""
        return tuple(each.found for each in self.rows if isinstance(each.found, Refusal))


def attacks(among: World) -> Iterator[Outcome]:
    """Yield every attack's outcome, each beside the control without the limit."""
    yield _outcome(among, "none", "as it is", rows(among, OWN, 0.0))
    yield _outcome(among, "80% wrong labels", "as it is", rows(among, OWN, 0.8))
    for limit, counts in (("caps", True), ("no caps", False)):
        found = [_flooded(among, number, counts) for number in range(len(among.voices))]
        yield _outcome(among, f"{EVENING} near misses in an evening", limit, found)
    patient = [_patient(among, number) for number in range(len(among.voices))]
    yield _outcome(among, "near misses for a month", "caps", patient)
    for attack, poison in POISONS.items():
        poisoned = replace(among, anchors=poison(among))
        yield _outcome(among, attack, "limits", rows(poisoned, OWN, 0.0))
        yield _outcome(among, attack, "no limits", rows(poisoned, OWN, 0.0, without_limits))


def _outcome(among: World, attack: str, limit: str, found: Iterator[Row] | Sequence[Row]) -> Outcome:
    every = list(found)
    seen = [
        watched(among, voice, each.found, number)
        for number, (each, voice) in enumerate(zip(every, among.voices.values(), strict=True))
        if isinstance(each.found, Candidate)
    ]
    return Outcome(attack, limit, every, seen)


def _flooded(among: World, number: int, capped: bool) -> Row:
    voice = list(among.voices.values())[number]
    own = _month(voice.wakes[:OWN], "follow_up", timedelta(days=2))
    evening = NOW - timedelta(hours=16)
    flood = [
        Moment(evening + timedelta(seconds=40 * at), "evening", "retry", voice.attack[at % len(voice.attack)])
        for at in range(EVENING)
    ]
    return _learned(among, voice, [*own, *flood], capped)


def _patient(among: World, number: int) -> Row:
    """Near misses on every day, as many as the caps let count; the owner's moments are there as well."""
    voice = list(among.voices.values())[number]
    own = _month(voice.wakes[:OWN], "follow_up", timedelta(days=2))
    every = [voice.attack[at % len(voice.attack)] for at in range(58)]
    return _learned(among, voice, [*own, *_month(every, "retry", timedelta(hours=12))], capped=True)


def _month(clips: Sequence[Windows], source: str, apart: timedelta) -> list[Moment]:
    return [Moment(NOW - apart * (at + 0.5), f"{source}{at}", source, each) for at, each in enumerate(clips)]


def _learned(among: World, voice: Voice, moments: Sequence[Moment], capped: bool) -> Row:
    counted = countable(moments, NOW) if capped else tuple(sorted(moments, key=lambda each: each.at))
    return row(among, voice, learn([each.windows for each in counted], [], among.anchors, among.limit))


def _woken(among: World) -> Anchors:
    """Every clip claims to wake the base: as many as there are may wake the adapter."""
    return _with_base(among.anchors, lambda clip: np.full_like(clip.base, among.limit + 1))


def _silent(among: World) -> Anchors:
    """Nothing in it resembles speech: the fit is drawn away from nothing, and the threshold set on
    nothing.
    """
    quiet = _with_base(among.anchors, lambda clip: np.full_like(clip.base, -30.0))
    return _each(quiet, lambda clip: Windows(clip.base, np.zeros_like(clip.features)))


def _owner(among: World) -> Anchors:
    """The near misses are wake words: the owner's adapter is to be drawn away from what it should hear."""
    spoken = [each for voice in among.voices.values() for each in voice.wakes[:LEARNED]]
    said = [each.peak(0) for each in spoken if each.base.max() <= among.limit]
    return replace(among.anchors, near=tuple(said[: len(among.anchors.near)]))


POISONS: Final[dict[str, Callable[[World], Anchors]]] = {
    "anchors that all wake the base": _woken,
    "anchors of silence": _silent,
    "anchors that are the wake word": _owner,
}


def _with_base(anchors: Anchors, base: Callable[[Windows], Floats]) -> Anchors:
    return _each(anchors, lambda clip: Windows(base(clip), clip.features))


def _each(anchors: Anchors, change: Callable[[Windows], Windows]) -> Anchors:
    human, near = (tuple(change(clip) for clip in clips) for clips in (anchors.human, anchors.near))
    return replace(anchors, human=human, near=near)


def without_limits(
    wanted: Sequence[Windows], unwanted: Sequence[Windows], anchors: Anchors, base_threshold: float
) -> Candidate:
    """Return what a device would learn that checks nothing: a fit, and the threshold that the set asks
    for.
    """
    learned, unseen = anchors.halves()
    others = [each.peak(AROUND) for each in (*learned.human, *learned.near, *unwanted)]
    step = fit([each.peak(AROUND) for each in wanted], others)
    asked = max(level(step, clips, base_threshold) for clips in (unseen.human, unseen.near))
    return Candidate(step, asked + MARGIN, Gain(len(wanted), 0, 0))
