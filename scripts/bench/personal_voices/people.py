"""Recordings of people: an adapter on a base for "alexa" that synthetic voices trained, tested on people.

The recordings name no speaker, and each is likely of another person. So what is learned here is how real
voices differ from the synthetic ones of the base, and nothing is said of single owners.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from clients.fleet.audio import SEGMENT_SECONDS
from clients.fleet.phrases import TRAINING_NEGATIVES
from clients.fleet.voices import ACCENTS, TRAINING_ACCENTS, TRAINING_VARIANTS
from clients.personal.adapter import Windows, windows_of
from clients.personal.anchors import Anchors
from clients.personal.learn import Candidate, learn
from clients.runtime.detectors import EMBEDDING_HOP, EMBEDDING_SIZE, SAMPLE_RATE, Head
from scripts.bench.personal_voices.embedding import Embeddings
from scripts.bench.personal_voices.measure import BASE, drawn, peaks, woken
from scripts.bench.personal_voices.speakers import (
    TAIL_S,
    VARIANTS,
    Clip,
    Said,
    Set,
    Spoken,
    embed_all,
    recorded,
)

WORD: Final = "alexa"
NEAR: Final = (
    "Alex, a word please.", "It is a lexical error.", "Alexander is here.", "A Lexus is parked outside.",
    "I like Texas.", "Relax a bit.", "Election day.", "All extra, please.", "I'll ask her.", "Alexis called.",
)  # fmt: skip
ANCHORED, MEASURED = NEAR[::2], NEAR[1::2]
FRAMES: Final = 16
REGULARISATION: Final = 0.003
NEAR_WAKES: Final = 0.2
"""Share of the anchors' near misses that wake the base, as those of okay nabu do; none of its human speech
does."""
HIT_AFTER_S: Final = (-0.02, 0.26)
DRAWS: Final = 20
"""How often the recordings are drawn that are learned from."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Adapters of so many recordings, drawn so often; counts of all draws together. `hours` of human
    speech.
    """

    moments: int
    draws: int
    opened: int
    calls: int
    missed_before: int
    missed: int
    near: int
    near_before: int
    near_after: int
    human_before: int
    human_after: int
    hours: float


def people(
    folder: Path, sounds: Path, cache: Path | None, anchors: int, counts: Sequence[int]
) -> list[Drawn]:
    """Return what adapters of so many recordings in a folder make of the others there."""
    said = [Said(each) for each in sorted(folder.glob("*.flac"))]
    spoken, human = list(training()), recorded(sounds)
    near, others = list(near_misses(ANCHORED, "anchors")), list(near_misses(MEASURED, "others"))
    clips: list[Clip] = [*spoken, *near, *others, *human, *said]
    heard = dict(zip(clips, embed_all(clips, cache), strict=True))
    head = train([(each, heard[each]) for each in spoken], [heard[each] for each in human if each.trained_on])
    unheard = [each for each in human if not each.trained_on]
    anchored = drawn(unheard, min(anchors, len(unheard) // 2))
    public = Anchors(
        tuple(windows_of(head, heard[each]).peak(0) for each in anchored),
        tuple(windows_of(head, heard[each]).peak(0) for each in drawn(near, anchors)),
        len(anchored) * SEGMENT_SECONDS,
    )
    apart = [windows_of(head, heard[each]) for each in unheard if each not in set(anchored)]
    missing = [windows_of(head, heard[each]) for each in others]
    calls = [windows_of(head, heard[each]) for each in said]
    human_peaks, near_peaks = peaks(BASE, public.human), peaks(BASE, public.near)
    limit = float(max(human_peaks.max(), np.quantile(near_peaks, 1 - NEAR_WAKES)))
    return [_drawn(count, calls, public, apart, missing, limit) for count in counts]


def _drawn(
    count: int,
    calls: Sequence[Windows],
    public: Anchors,
    human: Sequence[Windows],
    near: Sequence[Windows],
    limit: float,
) -> Drawn:
    total = np.zeros(5, np.int64)
    base = np.array([woken(BASE, limit, near), woken(BASE, limit, human)])
    for draw in range(DRAWS):
        order = np.random.default_rng([count, draw]).permutation(len(calls))
        rest = [calls[at] for at in order[count:]]
        found = learn([calls[at] for at in order[:count]], [], public, limit)
        opened = isinstance(found, Candidate)
        step, level = (found.step, found.threshold) if isinstance(found, Candidate) else (BASE, limit)
        missed = [len(rest) - woken(*each, rest) for each in ((BASE, limit), (step, level))]
        total += np.array([opened, *missed, woken(step, level, near), woken(step, level, human)])
    opened_of, before, after, near_after, human_after = total.tolist()
    near_before, human_before = (DRAWS * base).tolist()
    return Drawn(
        moments=count,
        draws=DRAWS,
        opened=opened_of,
        calls=DRAWS * (len(calls) - count),
        missed_before=before,
        missed=after,
        near=DRAWS * len(near),
        near_before=near_before,
        near_after=near_after,
        human_before=human_before,
        human_after=human_after,
        hours=len(human) * SEGMENT_SECONDS / 3600,
    )


def train(spoken: Sequence[tuple[Spoken, Embeddings]], human: Sequence[Embeddings]) -> Head:
    """Return a head for the wake word, as `scripts/train_candidate_b` trains one."""
    learned = [_labelled(clip, each) for clip, each in spoken]
    silent = np.concatenate([_windows(each) for each in human])
    rows = np.concatenate([*(row for row, _ in learned), silent])
    hits = np.concatenate([*(hit for _, hit in learned), np.zeros(len(silent), np.bool_)])
    mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-3
    model = LogisticRegression(C=REGULARISATION, max_iter=500).fit((rows - mean) / spread, hits)
    weights = model.coef_[0] / spread
    bias = float(model.intercept_[0] - weights @ mean)
    return Head(WORD, "embed-1", 0.5, weights.reshape(FRAMES, EMBEDDING_SIZE).astype(np.float32), bias)


def _labelled(clip: Spoken, embeddings: Embeddings) -> tuple[Embeddings, NDArray[np.bool_]]:
    """Return the windows of a clip that say yes or no for certain, and which; its speech ends `TAIL_S`
    early.
    """
    rows = _windows(embeddings)
    if not clip.wake:
        return rows, np.zeros(len(rows), np.bool_)
    before_end = (len(rows) - 0.5 - np.arange(len(rows))) * EMBEDDING_HOP / SAMPLE_RATE
    after = TAIL_S - before_end
    hit = (after >= HIT_AFTER_S[0]) & (after <= HIT_AFTER_S[1])
    certain = hit | (after < -0.45)
    return rows[certain], hit[certain]


def _windows(embeddings: Embeddings) -> Embeddings:
    view = np.lib.stride_tricks.sliding_window_view(embeddings, (FRAMES, EMBEDDING_SIZE))
    return view.reshape(-1, FRAMES * EMBEDDING_SIZE)


def training() -> Iterator[Spoken]:
    """Yield what the base is trained on."""
    negatives = [text for text in TRAINING_NEGATIVES if WORD not in text.lower()]
    for accent, variant in product(TRAINING_ACCENTS, TRAINING_VARIANTS):
        for take in range(6):
            yield Spoken("others", "", accent + variant, WORD, take, wake=True)
        for text in negatives:
            yield Spoken("others", "", accent + variant, text, 0, wake=False)


def near_misses(lines: Sequence[str], group: Set) -> Iterator[Spoken]:
    """Yield these lines in the voices of a set."""
    for accent, variant, text in product(ACCENTS, VARIANTS[group][:3], lines):
        yield Spoken(group, accent.label, accent.espeak + variant, text, 0, wake=False)
