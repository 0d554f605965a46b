"""The server's step: from noised sums by group to a head for each. Pure, and all of it is post-processing.

1. *Means.* A block holds the sum of clipped steps x·c/clip and k for each device, so its mean is
   (sum/count)·k·clip/c, with noise of known variance.
2. *Shrinkage between groups* (James & Stein 1961; Efron & Morris 1973): a group's mean is drawn towards that
   of everyone by τ/(τ + 97v), where v is its noise in one coordinate and τ the spread of groups beyond noise.
   A group with fewer devices than the plan allows, by its noisy count, gets everyone's.
3. *Refit.* Public clips of the wake word are moved by the group's mean, and an adapter is fitted beside the
   frozen base, against public speech. Its threshold is set on public speech that the fit has not seen.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.models.adapters import Adapters
from clients.models.head import Head
from clients.personal.adapter import SCALE, Step, Windows, group_step, temporal_shape
from clients.personal.anchors import Anchors, level
from clients.personal.features import LOGIT_SCALE
from clients.personal.fit import fit
from clients.personal.learn import AROUND, logit
from fa_core.errors import BadInput
from fa_core.metrics.features import CELLS, CLIPPED, COUNTED
from fa_core.plan import TrainPlan, from_canonical
from fa_core.tables import VECTOR
from fa_core.training.public import PublicSpeech
from fa_core.values import Release

Floats = NDArray[np.float64]

PENALTY: Final = 0.02
"""λ of the refit; chosen on speakers that are neither trained on nor measured (`scripts/bench/training.py
--choose`)."""

MARGIN: Final = 0.5
"""Added to the threshold of a refit, a logit; chosen as `PENALTY` is. A device has constants of its own
(`clients.personal`): it learns from a few moments with weak labels."""


@dataclass(frozen=True)
class Blocks:
    """What a release says of each group.

    Attributes:
        labels: the groups in the order of the vector; `other` last, or `everyone` alone.
        means: mean step of its devices, float64 (B, 97), and `sd`: of the noise in one coordinate, (B,).
        devices: noisy number of its devices, (B,), and `devices_sd`: of the noise on it.
        clip: the longest step that counts in full. least: devices that a group must have.
    """

    labels: tuple[str, ...]
    means: Floats
    sd: Floats
    devices: Floats
    devices_sd: float
    clip: float
    least: int

    @property
    def enough(self) -> NDArray[np.bool_]:
        """Which groups have devices enough to be used by themselves, bool (B,)."""
        return self.devices >= self.least

    @property
    def everyone(self) -> tuple[Floats, float]:
        """The mean step of all devices together, (97,), and the noise in a coordinate of it."""
        total = max(float(self.devices.sum()), 1.0)
        share = np.maximum(self.devices, 1.0)
        return (share @ self.means) / total, float(np.sqrt((share * self.sd) @ (share * self.sd)) / total)

    @property
    def lengths(self) -> Floats:
        """The length of each mean without its noise, as a share of the clip, (B,)."""
        squared = (self.means**2).sum(axis=1) - VECTOR * self.sd**2
        return np.asarray(np.sqrt(np.maximum(squared, 0.0)) / self.clip)


def plan_of(release: Release) -> TrainPlan:
    """Return the plan of a release of clipped means. Raises BadInput where it is of another plan."""
    plan = from_canonical(release.plan)
    if not isinstance(plan, TrainPlan) or plan.method != "one_shot_means":
        raise BadInput(f"release {release.id} is of {plan.name}, which sums no steps of training")
    return plan


def blocks_of(release: Release) -> Blocks:
    """Return the blocks of a release of clipped means. Raises BadInput where it is of another plan."""
    plan = plan_of(release)
    assert plan.clip is not None
    clip, scale = float(plan.clip), float(release.scales[0])
    sums = release.sums.astype(np.float64).reshape(-1, CELLS) / scale
    noise = float(np.sqrt(release.noise_variance[0]))
    devices = sums[:, VECTOR] / COUNTED
    counted = np.maximum(devices, 1.0)
    unit = clip / CLIPPED
    return Blocks(
        labels=plan.blocks,
        means=sums[:, :VECTOR] * unit / counted[:, None],
        sd=noise * unit / counted,
        devices=devices,
        devices_sd=noise / COUNTED,
        clip=clip,
        least=plan.privacy.min_cohort,
    )


def shrunk(blocks: Blocks) -> tuple[Floats, Floats]:
    """Return the step of each group, (B, 97), and the weight of its own mean in it, (B,), in [0, 1]."""
    center, _ = blocks.everyone
    own = blocks.means - center
    noise = VECTOR * blocks.sd**2
    size = np.where(blocks.enough, blocks.devices, 0.0)
    if size.sum() <= 0:
        return np.tile(center, (len(own), 1)), np.zeros(len(own))
    part = size / size.sum()
    spread = max(float(part @ ((own**2).sum(axis=1) - noise * (1.0 - part))), 0.0)
    weight = np.where(blocks.enough & (spread > 0), spread / (spread + noise + 1e-300), 0.0)
    return center + weight[:, None] * own, weight


def adapted(step: Floats, public: PublicSpeech, limit: float, penalty: float = PENALTY) -> tuple[Step, float]:
    """Return the adapter of a group that lies `step` (97,) from the public centre, and its threshold, a
    logit.

    `limit` is the base head's threshold, a logit.
    """
    learned, unseen = public.anchors().halves()
    moved = [_moved(each.peak(AROUND), step) for each in public.of("wake")]
    others = [each.peak(AROUND) for each in (*learned.human, *learned.near)]
    found = fit(moved, others, penalty)
    return found, threshold(found, unseen, limit)


def threshold(step: Step, unseen: Anchors, limit: float) -> float:
    """Return the logit from which a head wakes no more often on unseen public speech than the base does at
    `limit`: the larger of those for human speech and for near misses, and `MARGIN` more.

    It may be under the base's. A refit moves all logits by its bias, and public speech alone says where it
    should wake; a device's own adapter may not go there (`clients.personal.anchors.threshold`).
    """
    return max(level(step, clips, limit) for clips in (unseen.human, unseen.near)) + MARGIN


def refit(
    steps: Floats, plan: TrainPlan, base: Head, version: str, public: PublicSpeech, penalty: float = PENALTY
) -> Adapters:
    """Return the adapters of every group. `steps`: float64 (B, 97), of `shrunk`."""
    limit = logit(base.threshold)
    pairs = [adapted(step, public, limit, penalty) for step in steps]
    fact = next((segment.column for segment in plan.segments.values()), "accent")
    return Adapters(
        wake_word=base.wake_word,
        model_version=version,
        fact=fact,
        groups=plan.blocks if plan.segments else ("other",),
        shape=temporal_shape(base).astype(np.float32),
        directions=np.array([step.direction / SCALE for step, _ in pairs], np.float32),
        biases=np.array([step.bias for step, _ in pairs]),
        thresholds=np.array([0.5 * (1.0 + np.tanh(0.5 * level)) for _, level in pairs]),
    )


def step_of(adapters: Adapters, group: str) -> tuple[Step, float]:
    """Return the adapter of a group and its threshold, a logit, as windows are scored with."""
    return group_step(adapters, group), logit(float(adapters.thresholds[adapters.at(group)]))


def _moved(windows: Windows, step: Floats) -> Windows:
    return Windows(windows.base + LOGIT_SCALE * step[-1], windows.features + step[:-1])
