"""May this device have an adapter, and which? A fit, a five-fold gate, a threshold, and limits on the step.

A moment that does not wake an adapter of the others is left out of the fit: a few wrong labels are mostly
among those. No check on the device can find many, since what it checks with has them as well. So the number
that counts of a session, a day and a source is capped (`clients.personal.moments`), a step of an unusual size
is refused, and a candidate is first heard in shadow (`clients.personal.watch`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from clients.personal.adapter import Step, Windows
from clients.personal.anchors import Anchors, threshold
from clients.personal.fit import fit

LEAST_POSITIVES: Final = 5
FOLDS: Final = 5
LEAST_GAIN: Final = 1
"""Moments that the adapter must wake for beyond the base, over the folds, net of those that it loses."""

AROUND: Final = 1
"""Windows on each side of the base's peak that are learned from."""

LARGEST_STEP: Final = 5.0
LARGEST_SHIFT: Final = 4.0
"""A longer step than the first is unusual, and so is a threshold further from the base's than the second.
Among development speakers 3.7 and 3.3 were the most."""


class Refusal(StrEnum):
    """Why there is no candidate, in words for the owner."""

    FEW = "there are too few moments to learn from yet"
    NO_GAIN = "an adapter would not hear you better than the model as it came"
    STEP = "what was learned is unusually far from the model as it came, and is not used"
    TURN = "what was learned turns against what was learned before, and is not used"
    UNSOUND = "the anchor set has too few clips, or too many that wake the model as it came"
    ANCHORS = "the threshold would have to move unusually far to keep false wakes away"


@dataclass(frozen=True, slots=True)
class Gain:
    """Held-out moments that the base wakes for, and the adapter of the other folds; of `moments` in all."""

    moments: int
    base: int
    adapted: int


@dataclass(frozen=True)
class Candidate:
    """An adapter that passed: its step, its threshold (a logit), and what the gate saw."""

    step: Step
    threshold: float
    gain: Gain


def learn(
    wanted: Sequence[Windows],
    unwanted: Sequence[Windows],
    anchors: Anchors,
    base_threshold: float,
    before: Step | None = None,
    between: Callable[[], None] = lambda: None,
) -> Candidate | Refusal:
    """Return a candidate, or why there is none.

    Args:
        wanted, unwanted: the device's own moments, to wake for and not to.
        anchors: the public set. base_threshold: the head's, a logit.
        before: the step that was in force, which the new one may not turn against.
        between: called before each fit; what it raises ends the learning.
    """
    if len(wanted) < LEAST_POSITIVES:
        return Refusal.FEW
    if not anchors.sound(base_threshold):
        return Refusal.UNSOUND
    learned, unseen = anchors.halves()
    others = [each.peak(AROUND) for each in (*learned.human, *learned.near, *unwanted)]
    positives = [each.peak(AROUND) for each in wanted]
    heard = _five_fold(wanted, positives, others, unseen, base_threshold, between)
    base = sum(bool((each.base > base_threshold).any()) for each in wanted)
    gain = Gain(len(wanted), base, sum(heard))
    if gain.adapted - gain.base < LEAST_GAIN:
        return Refusal.NO_GAIN
    kept = [each for each, woke in zip(positives, heard, strict=True) if woke]
    between()
    step = fit(kept if len(kept) >= LEAST_POSITIVES else positives, others)
    level = threshold(step, unseen, base_threshold)
    if step.norm > LARGEST_STEP:
        return Refusal.STEP
    if abs(level - base_threshold) > LARGEST_SHIFT:
        return Refusal.ANCHORS
    if before is not None and float(step.direction @ before.direction) < 0:
        return Refusal.TURN
    return Candidate(step, level, gain)


def _five_fold(
    wanted: Sequence[Windows],
    positives: Sequence[Windows],
    others: Sequence[Windows],
    unseen: Anchors,
    base_threshold: float,
    between: Callable[[], None],
) -> list[bool]:
    """Return whether each moment wakes an adapter that was fitted on the four fifths without it."""
    heard = [False] * len(wanted)
    for fold in range(FOLDS):
        between()
        held = range(fold, len(wanted), FOLDS)
        step = fit([each for at, each in enumerate(positives) if at % FOLDS != fold], others)
        level = threshold(step, unseen, base_threshold)
        for at in held:
            heard[at] = bool((step.logits(wanted[at]) > level).any())
    return heard


def logit(score: float) -> float:
    """Return the logit of a score in (0, 1)."""
    return float(np.log(score) - np.log1p(-score))
