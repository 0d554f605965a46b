"""What a training plan will come to, before anybody is asked: from the plan, public sizes and public
speech."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from clients.models.head import Head
from clients.personal.adapter import Step, Windows
from clients.personal.features import vector_of
from clients.personal.learn import logit
from fa_core.errors import BadInput, Refused
from fa_core.layout import compile_plan
from fa_core.metrics.features import CLIPPED, COUNTED
from fa_core.plan import TrainPlan
from fa_core.tables import VECTOR
from fa_core.training.checks import woken
from fa_core.training.public import PublicSpeech
from fa_core.training.step import Blocks, Floats, adapted, shrunk

SMALL_EPSILON: Final = Fraction(2)
"""At this epsilon and below, a group of fewer devices than the plan allows is heard worse than without
training."""

LEAST_CLIPS: Final = 8
REPEATS: Final = 3


@dataclass(frozen=True, slots=True)
class Expected:
    """What to expect of one group.

    Attributes:
        group: its label. devices: that take part, expected.
        noise: length of the noise in its mean, as a share of the clip.
        weight: of its own mean in its step, on average; the rest is everyone's.
        rejects_before, rejects: false reject rate on public clips of this group that the fit has not seen, of
            the base and expected of the candidate; None where there are too few public clips.
    """

    group: str
    devices: float
    noise: float
    weight: float
    rejects_before: float | None
    rejects: float | None


def sizes_of(plan: TrainPlan, devices: int, shares: Mapping[str, float]) -> dict[str, float]:
    """Return the devices expected in each group: by its public share, and what these leave spread evenly over
    the other groups that are named."""
    sample = devices * float(plan.eligibility.sample)
    named = plan.blocks[:-1] if plan.segments else plan.blocks
    others = sum(label not in shares for label in named)
    even = max(0.0, 1 - sum(shares.values())) / max(others, 1)
    return {label: sample * shares.get(label, even) for label in named}


def require_blocks(plan: TrainPlan, sizes: Mapping[str, float]) -> tuple[str, ...]:
    """Return the groups too small to be used by themselves: they get everyone's step.

    Raises Refused where noise would drown them all, or any of them at a small epsilon.
    """
    small = tuple(group for group, devices in sizes.items() if devices < plan.privacy.min_cohort)
    least = plan.privacy.min_cohort
    if len(small) == len(sizes):
        group, devices = max(sizes.items(), key=lambda item: item[1])
        raise Refused(
            f"{plan.name}: about {devices:.0f} devices in {group}, the largest group, and a group needs "
            f"{least} to have a step of its own; ask more devices or name fewer groups"
        )
    if small and plan.privacy.epsilon <= SMALL_EPSILON:
        group, devices = min(sizes.items(), key=lambda item: item[1])
        raise Refused(
            f"{plan.name}: about {devices:.0f} devices in {group}, and at epsilon "
            f"{float(plan.privacy.epsilon):g} each group needs {least}; ask more devices, name fewer groups, "
            f"or raise epsilon above {float(SMALL_EPSILON):g}, where a small group gets everyone's step"
        )
    return small


def preview(
    plan: TrainPlan, sizes: Mapping[str, float], public: PublicSpeech, base: Head, random: np.random.Generator
) -> tuple[Expected, ...]:
    """Return what to expect of each group. Releases are simulated with the plan's noise: `random` draws it.

    Groups with public clips of the wake word lie where half of these say; the rest, with the centre. What
    comes of it is measured on the other half.
    """
    if plan.clip is None:
        raise BadInput(f"{plan.name} clips nothing and trains nothing: only one_shot_means has a preview")
    layout = compile_plan(plan)
    noise, clip = float(layout.blocks[0].variance) ** 0.5, float(plan.clip)
    labels, center = tuple(sizes), np.array([float(each) for each in plan.center])
    learned, unseen = _halves(public, labels)
    limit = logit(base.threshold)
    means = np.array(
        [
            np.mean([vector_of(each) for each in learned[g]], axis=0) - center if learned[g] else 0 * center
            for g in labels
        ]
    )
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    means *= np.minimum(1.0, clip / np.maximum(lengths, 1e-12))
    devices = np.array([sizes[group] for group in labels])
    sd = noise * clip / CLIPPED / np.maximum(devices, 1.0)
    weights, rejects = np.zeros(len(labels)), np.zeros(len(labels))
    for _ in range(REPEATS):
        drawn = means + sd[:, None] * random.standard_normal(means.shape)
        blocks = Blocks(labels, drawn, sd, devices, noise / COUNTED, clip, plan.privacy.min_cohort)
        steps, weight = shrunk(blocks)
        weights += weight / REPEATS
        rejects += (
            np.array(
                [_rejects(step, unseen[g], public, limit) for g, step in zip(labels, steps, strict=True)]
            )
            / REPEATS
        )
    nobody = Step(np.zeros(VECTOR - 1), 0.0)
    return tuple(
        Expected(
            group,
            float(devices[at]),
            float(VECTOR**0.5 * sd[at] / clip),
            float(weights[at]),
            1 - woken(nobody, limit, unseen[group]) if unseen[group] else None,
            float(rejects[at]) if unseen[group] else None,
        )
        for at, group in enumerate(labels)
    )


def _halves(
    public: PublicSpeech, labels: tuple[str, ...]
) -> tuple[dict[str, tuple[Windows, ...]], dict[str, tuple[Windows, ...]]]:
    """Return the public clips of each group in two halves; none of a group with hardly any."""
    clips = {label: public.of("wake", label) for label in labels}
    kept = {label: found if len(found) >= LEAST_CLIPS else () for label, found in clips.items()}
    return {label: found[::2] for label, found in kept.items()}, {
        label: found[1::2] for label, found in kept.items()
    }


def _rejects(step: Floats, clips: tuple[Windows, ...], public: PublicSpeech, limit: float) -> float:
    return 1 - woken(*adapted(step, public, limit), clips) if clips else 0.0
