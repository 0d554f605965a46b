"""The constants of the method, on development speakers alone: the penalty λ, the windows learned from, the
margin.

Fits without a gate, of `MOMENTS` moments, one in ten of which is a near miss.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from clients.personal.adapter import Floats, Step
from clients.personal.anchors import level
from clients.personal.fit import fit
from scripts.bench.personal_voices.measure import BASE, LEARNED, Voice, World, learned_from, peaks

AROUND: Final = (0, 1)
PENALTIES: Final = (0.03, 0.05, 0.1, 0.3)
MARGINS: Final = (0.25, 0.5, 0.75, 1.0)
MOMENTS: Final = (5, 10)
WRONG: Final = 0.1


def choose(among: World) -> None:
    """Print what each choice makes of all speakers together."""
    learned, unseen = among.anchors.halves()
    print(
        "around    λ margin | missed  hurt | near misses that wake: own, others' | human speech | "
        "longest step, largest shift"
    )
    base = [_peaks(among, voice, BASE) for voice in among.voices.values() for _ in MOMENTS]
    print(f"{'the base':19s}| {_said(base, base, [among.limit] * len(base), among)}")
    for around in AROUND:
        others = [each.peak(around) for each in (*learned.human, *learned.near)]
        for penalty in PENALTIES:
            steps = [
                fit(
                    [each.peak(around) for each in learned_from(number, voice, count, WRONG)], others, penalty
                )
                for number, voice in enumerate(among.voices.values())
                for count in MOMENTS
            ]
            asked = [
                max(level(step, clips, among.limit) for clips in (unseen.human, unseen.near))
                for step in steps
            ]
            voices = [voice for voice in among.voices.values() for _ in MOMENTS]
            found = [_peaks(among, voice, step) for voice, step in zip(voices, steps, strict=True)]
            norm = max(each.norm for each in steps)
            for margin in MARGINS:
                levels = [max(among.limit, each + margin) for each in asked]
                said = _said(base, found, levels, among)
                shift = max(levels) - among.limit
                print(f"{around:6d} {penalty:4} {margin:6} | {said} | {norm:.2f}, {shift:.2f}")


def _peaks(among: World, voice: Voice, step: Step) -> tuple[Floats, ...]:
    return tuple(peaks(step, some) for some in (voice.wakes[LEARNED:], voice.near, among.near, among.human))


def _said(
    base: Sequence[tuple[Floats, ...]],
    found: Sequence[tuple[Floats, ...]],
    levels: Sequence[float],
    among: World,
) -> str:
    missed, own, near = (
        np.mean([(some[at] > level).mean() for some, level in zip(found, levels, strict=True)])
        for at in range(3)
    )
    human = np.mean([(some[3] > level).sum() for some, level in zip(found, levels, strict=True)])
    hurt = np.mean([
        (one[0] > level).mean() < (before[0] > among.limit).mean() - 0.03
        for before, one, level in zip(base, found, levels, strict=True)
    ])  # fmt: skip
    return f"{1 - missed:6.1%} {hurt:5.1%} | {own:5.1%}, {near:5.1%} {'|':>20s} {human:12.2f}"
