"""One user's adapter, measured: calls missed and near misses that wake, beside the base."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from scipy.stats import beta, chi2

from clients.fleet.audio import SEGMENT_SECONDS
from clients.personal.adapter import Floats, Step, Windows, windows_of
from clients.personal.anchors import Anchors
from clients.personal.learn import Candidate, Refusal, learn, logit
from clients.runtime.detectors import EMBEDDING_SIZE, shipped_head
from scripts.bench.personal_voices.speakers import SEED, Clip, Set, Spoken, embed_all, recorded, script

T = TypeVar("T")
BASE: Final = Step(np.zeros(EMBEDDING_SIZE), 0.0)
LEARNED: Final = 20
"""Takes that a user may be learned from. The others are measured: the same ones, whatever was learned
from."""
LEAST_HOURS: Final = 20.0
"""Of speech: fewer show nothing of false wakes an hour."""


@dataclass(frozen=True)
class Voice:
    """A speaker: takes of the wake word, near misses to attack with, and the same phrases again to
    measure.
    """

    accent: str
    wakes: tuple[Windows, ...]
    attack: tuple[Windows, ...]
    near: tuple[Windows, ...]


@dataclass(frozen=True)
class World:
    """Who speaks, and what is public. `human` and `near` are in no anchor set; `limit` is the base's
    logit.
    """

    voices: dict[str, Voice]
    anchors: Anchors
    human: tuple[Windows, ...]
    near: tuple[Windows, ...]
    limit: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Clips that a head decides wrongly: calls missed, the user's and others' near misses."""

    missed: int
    own_near: int
    near: int


@dataclass(frozen=True, slots=True)
class Row:
    """One user, adapted and not. `found`: the candidate, or why there is none."""

    found: Candidate | Refusal
    calls: int
    near: int
    base: Counts
    after: Counts

    @property
    def hurt(self) -> bool:
        """Whether more calls are missed than before, by more than 3 points."""
        return self.after.missed > self.base.missed + 0.03 * self.calls


def world(group: Set, takes: int, anchors: int, sounds: Path, cache: Path | None, users: int) -> World:
    """Speak, record and embed: at most `users` speakers of a set, and an anchor set with so many clips a
    kind.
    """
    voices = list(dict.fromkeys(each.voice for each in script() if each.group == group))
    chosen = set(voices[:: max(1, len(voices) // users)][:users])
    spoken = [each for each in script(takes) if each.voice in chosen or each.group in ("anchors", "others")]
    public = [each for each in spoken if each.group == "anchors"]
    anchored = drawn(public, anchors)
    others = drawn([each for each in spoken if each.group == "others"], 4 * anchors)
    own = [each for each in spoken if each.voice in chosen]
    human = drawn([each for each in recorded(sounds) if not each.trained_on], 16 * anchors)
    clips: list[Clip] = [*own, *anchored, *others, *human]
    head = shipped_head("okay_nabu")
    heard = dict(zip(clips, (windows_of(head, each) for each in embed_all(clips, cache)), strict=True))
    of_anchors = human[: min(anchors, len(human) // 2)]
    apart = [each for each in human if each not in set(of_anchors)]
    speakers = {voice: [each for each in own if each.voice == voice] for voice in voices if voice in chosen}
    return World(
        voices={voice: _voice(clips, heard) for voice, clips in speakers.items()},
        anchors=Anchors(
            tuple(heard[each].peak(0) for each in of_anchors),
            tuple(heard[each].peak(0) for each in anchored),
            len(of_anchors) * SEGMENT_SECONDS,
        ),
        human=tuple(heard[each] for each in apart),
        near=tuple(heard[each] for each in others),
        limit=logit(head.threshold),
    )


def drawn(every: Sequence[T], most: int) -> list[T]:
    """Return at most so many of these, the same ones each time, in a drawn order."""
    return [every[at] for at in np.random.default_rng(SEED).permutation(len(every))[:most]]


def _voice(clips: Sequence[Spoken], heard: dict[Clip, Windows]) -> Voice:
    wakes = tuple(heard[each] for each in clips if each.wake)
    near = [[heard[each] for each in clips if not each.wake and each.take == take] for take in (0, 1)]
    return Voice(clips[0].accent, wakes, tuple(near[0]), tuple(near[1]))


Learner = Callable[[Sequence[Windows], Sequence[Windows], Anchors, float], Candidate | Refusal]


def rows(among: World, count: int, wrong: float, learner: Learner = learn) -> Iterator[Row]:
    """Yield each user's row: `count` moments are learned from, a share `wrong` of which are near misses."""
    for number, voice in enumerate(among.voices.values()):
        moments = learned_from(number, voice, count, wrong)
        yield row(among, voice, learner(moments, [], among.anchors, among.limit))


def learned_from(number: int, voice: Voice, count: int, wrong: float) -> list[Windows]:
    """Return what user `number` is learned from: takes of the wake word, and a share `wrong` of near
    misses.
    """
    random = np.random.default_rng([number, count, round(100 * wrong)])
    bad = int(random.binomial(count, wrong))
    moments = [voice.wakes[at] for at in random.permutation(LEARNED)[: count - bad]]
    phrases = random.permutation(max(bad, len(voice.attack)))[:bad]
    moments += [voice.attack[at % len(voice.attack)] for at in phrases]
    return [moments[at] for at in random.permutation(len(moments))]


def row(among: World, voice: Voice, found: Candidate | Refusal) -> Row:
    """Return what a user has of what was found; a refusal leaves the base."""
    calls = voice.wakes[LEARNED:]
    base = counts(among, voice, BASE, among.limit)
    after = counts(among, voice, found.step, found.threshold) if isinstance(found, Candidate) else base
    return Row(found, len(calls), len(voice.near), base, after)


def counts(among: World, voice: Voice, step: Step, level: float) -> Counts:
    """Return what a step and a threshold decide wrongly."""
    calls = voice.wakes[LEARNED:]
    return Counts(
        len(calls) - woken(step, level, calls), woken(step, level, voice.near), woken(step, level, among.near)
    )  # fmt: skip


def woken(step: Step, level: float, clips: Sequence[Windows]) -> int:
    """Return how many clips wake."""
    return int((peaks(step, clips) > level).sum())


def peaks(step: Step, clips: Sequence[Windows]) -> Floats:
    """Return the highest adapted logit of each clip, (n,)."""
    return np.array([step.logits(each).max(initial=-np.inf) for each in clips])


def share_limits(hits: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact limits of a share (Clopper & Pearson 1934)."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, of - hits + 1))
    high = 1.0 if hits == of else float(beta.ppf(1 - tail, hits + 1, of - hits))
    return low, high


def rate_limits(events: float, hours: float, level: float = 0.95) -> tuple[float, float]:
    """Return the exact limits of a rate an hour (Poisson; Garwood 1936)."""
    tail = (1 - level) / 2
    low = 0.0 if events == 0 else float(chi2.ppf(tail, 2 * events)) / 2
    return low / hours, float(chi2.ppf(1 - tail, 2 * events + 2)) / 2 / hours
