"""Recordings of people saying "alexa": a base that synthetic voices trained, adapted by one round, tested on
other people.

The recordings name no speaker, and each is likely of another person: a device has one of them. A half of the
recordings are devices' (drawn with replacement, so 500 devices are 79 people), the other half is measured.
Public speech is synthetic, of voices that did not train the base, and every other segment of human speech.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.fleet.audio import SEGMENT_SECONDS
from clients.fleet.voices import ACCENTS
from clients.models.head import Head
from clients.personal.adapter import Step, Windows, windows_of
from clients.personal.features import vector_of
from clients.personal.fit import fit
from clients.personal.learn import AROUND
from fa_core.training.public import Clip, PublicSpeech, center_of
from fa_core.training.step import PENALTY, adapted, blocks_of, shrunk, threshold
from scripts.bench.personal_voices.people import ANCHORED, MEASURED, WORD, near_misses, train, training
from scripts.bench.personal_voices.speakers import Clip as Heard
from scripts.bench.personal_voices.speakers import Said, Spoken, embed_all, recorded
from scripts.bench.training_rounds.rounds import BASE, Fleet, Floats, plan_for, released, wakes
from scripts.bench.training_rounds.voices import PUBLIC, SPEAKERS, TAKES

Order = NDArray[np.int64]

AN_HOUR: Final = 2.0
"""False accepts on human speech at which heads are compared."""


@dataclass(frozen=True)
class People:
    """A base head, recordings of the wake word, public speech, human speech and near misses to measure, and
    the base's threshold, a logit."""

    base: Head
    calls: tuple[Windows, ...]
    public: PublicSpeech
    human: tuple[Windows, ...]
    near: tuple[Windows, ...]
    limit: float


@dataclass(frozen=True)
class Row:
    """Means over draws of which recordings are devices'.

    Attributes:
        missed: of the recordings measured, at the threshold set on public speech. human, near: segments and
        near misses that wake then.
        equal: missed at the lowest threshold where at most `AN_HOUR` of the measured human segments wake
        an hour, and no more near misses than the base's.
        spread: the lowest and the highest `missed` of a draw.
    """

    missed: float
    spread: tuple[float, float]
    human: float
    near: float
    equal: float


def people(folder: Path, sounds: Path, cached: Path | None) -> People:
    """Speak, record and train: minutes, or from a cache."""
    spoken, human = list(training()), recorded(sounds)
    wake = [
        Spoken("development", accent.label, accent.espeak + variant, WORD, take, wake=True)
        for accent, variant in product(ACCENTS, SPEAKERS["development"])
        for take in range(TAKES["development"] if accent.label in PUBLIC else 0)
    ]
    near, others = list(near_misses(ANCHORED, "anchors")), list(near_misses(MEASURED, "others"))
    said = [Said(each) for each in sorted(folder.glob("*.flac"))]
    clips: list[Heard] = [*spoken, *wake, *near, *others, *human, *said]
    heard = dict(zip(clips, embed_all(clips, cached), strict=True))
    base = train([(each, heard[each]) for each in spoken], [heard[each] for each in human if each.trained_on])
    seen = {each: windows_of(base, heard[each]) for each in clips}
    unheard = [seen[each] for each in human if not each.trained_on]
    public = PublicSpeech(
        (
            *(Clip("wake", "", seen[each]) for each in wake),
            *(Clip("human", "", each) for each in unheard[::2]),
            *(Clip("near", "", seen[each]) for each in near),
        ),
        len(unheard[::2]) * float(SEGMENT_SECONDS),
    )
    calls, apart = tuple(seen[each] for each in said), tuple(unheard[1::2])
    peaks = _peaks(BASE, unheard[::2])
    limit = float(peaks[int(AN_HOUR * public.seconds / 3600)])
    return People(base, calls, public, apart, tuple(seen[each] for each in others), limit)


def rows(among: People, devices: int, epsilon: Fraction, draws: int) -> Iterator[tuple[str, Row]]:
    """Yield the base, one round with and without noise, and a head fitted on the very recordings."""
    center = center_of(among.public.of("wake"))
    learned, unseen = among.public.anchors().halves()
    others = [each.peak(AROUND) for each in (*learned.human, *learned.near)]
    vectors = np.array([vector_of(each) for each in among.calls])

    def ours(own: Order, random: np.random.Generator, *, noise: bool) -> tuple[Step, float]:
        chosen = own[random.integers(len(own), size=devices)]
        fleet = Fleet(np.zeros(devices, np.int64), [vectors[at][None, :] for at in chosen])
        plan = plan_for(epsilon, fleet.clip(center), center, among.base, groups=())
        steps, _ = shrunk(blocks_of(released(plan, fleet, among.base, noise=noise)))
        return adapted(steps[0], among.public, among.limit)

    def pooled(own: Order) -> tuple[Step, float]:
        step = fit([among.calls[at].peak(AROUND) for at in own], others, PENALTY)
        return step, threshold(step, unseen, among.limit)

    heads: dict[str, list[tuple[Step, float]]] = {"base": [], "noise": [], "exact": [], "pooled": []}
    rest = []
    for number in range(draws):
        random = np.random.default_rng([17, number])
        order = random.permutation(len(among.calls))
        own = order[: len(order) // 2]
        rest.append([among.calls[at] for at in order[len(own) :]])
        heads["base"].append((BASE, among.limit))
        heads["noise"].append(ours(own, random, noise=True))
        heads["exact"].append(ours(own, random, noise=False))
        heads["pooled"].append(pooled(own))
    names = ("base", f"{devices} devices, epsilon {epsilon}", f"{devices} devices, no noise", "pooled")
    for name, found in zip(names, heads.values(), strict=True):
        yield name, _row(among, found, rest)


def _row(among: People, heads: Sequence[tuple[Step, float]], rest: Sequence[list[Windows]]) -> Row:
    missed = [1 - float(wakes(head, calls).mean()) for head, calls in zip(heads, rest, strict=True)]
    equal = [
        float((_peaks(step, calls) <= _equal(among, step)).mean())
        for (step, _), calls in zip(heads, rest, strict=True)
    ]
    human, near = (
        float(np.mean([wakes(head, clips).sum() for head in heads])) for clips in (among.human, among.near)
    )
    return Row(float(np.mean(missed)), (min(missed), max(missed)), human, near, float(np.mean(equal)))


def _equal(among: People, step: Step) -> float:
    """Return the logit at which a head wakes for as much as `Row.equal` says."""
    allowed = int(AN_HOUR * len(among.human) * SEGMENT_SECONDS / 3600)
    base = _above(_peaks(BASE, among.human), allowed)
    woken = int((_peaks(BASE, among.near) > base).sum())
    return max(_above(_peaks(step, among.human), allowed), _above(_peaks(step, among.near), woken))


def _above(peaks: Floats, allowed: int) -> float:
    """Return the lowest logit that at most so many peaks lie above."""
    return float(peaks[allowed]) if allowed < len(peaks) else -np.inf


def _peaks(step: Step, clips: Sequence[Windows]) -> Floats:
    """Return the highest logit of each clip, highest first, (n,)."""
    return np.sort([step.logits(each).max(initial=-np.inf) for each in clips])[::-1]
