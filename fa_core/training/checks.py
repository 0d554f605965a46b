"""What holds a candidate: signs of poisoning in noised sums, and of harm on public speech. Pure.

A device bounds itself, and a mask hides whether it did. So a release is looked at as a whole: how long each
group's mean is, how far it went since the release before, how many devices say that they are of which group.
The noise is known, and an alarm is only what noise does not explain. What passes is then tried on public
speech: near misses, and phrases that training never sees, where a hidden phrase shows. None of it is proof:
small shifts by many stay below any limit, which is why a candidate goes through a rollout like any other.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.models.adapters import Adapters
from clients.models.head import Head
from clients.personal.adapter import Step, Windows
from clients.personal.learn import logit
from fa_core.errors import BadInput
from fa_core.plan.training import Gates
from fa_core.tables import VECTOR
from fa_core.training.public import PublicSpeech
from fa_core.training.step import Blocks, step_of

DEVIATIONS: Final = 5.0
"""How many standard deviations of the noise are not held against a group: one false alarm in a million."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Alarm:
    """One reason to hold a candidate: the check, the group that it is about ("" for all), and in words."""

    check: str
    group: str
    sentence: str


def sums(blocks: Blocks, gates: Gates, before: Blocks | None) -> tuple[Alarm, ...]:
    """Return what is unusual in the sums of a release, beside those of the release before, if there is
    one."""
    found = [*_lengths(blocks, float(gates.bound))]
    if before is not None:
        if before.labels != blocks.labels:
            raise BadInput("the release before has other groups: they are not compared")
        found += [*_shifts(blocks, before, float(gates.shift)), *_counts(blocks, before, float(gates.count))]
    return tuple(found)


def speech(adapters: Adapters, base: Head, public: PublicSpeech, gates: Gates) -> tuple[Alarm, ...]:
    """Return where a candidate wakes for what it should not, more than the base does."""
    limit, found = logit(base.threshold), []
    kinds = (("near", "near misses", gates.near_misses), ("phrase", "listed phrases", gates.phrases))
    for kind, words, gate in kinds:
        clips = public.of("near" if kind == "near" else "phrase")
        before = woken(Step(np.zeros(VECTOR - 1), 0.0), limit, clips)
        for group in adapters.groups:
            after = woken(*step_of(adapters, group), clips)
            if after > before + float(gate):
                found.append(
                    Alarm(
                        kind,
                        group,
                        f"{group}: {after:.1%} of {words} wake it, and {before:.1%} wake the base",
                    )
                )
    return tuple(found)


def woken(step: Step, threshold: float, clips: Sequence[Windows]) -> float:
    """Return the share of clips that wake an adapted head. `threshold`: a logit."""
    return sum(bool((step.logits(each) > threshold).any()) for each in clips) / max(len(clips), 1)


def _lengths(blocks: Blocks, gate: float) -> Iterator[Alarm]:
    noise = np.hypot(blocks.sd / blocks.clip, _by_count(blocks))
    for group, length, sd in _each(blocks, blocks.lengths, noise):
        if length - DEVIATIONS * sd > gate:
            yield Alarm(
                "bound", group, f"{group}: the mean of its devices is {length:.0%} of the bound on one device"
            )


def _shifts(blocks: Blocks, before: Blocks, gate: float) -> Iterator[Alarm]:
    both = Blocks(
        blocks.labels,
        blocks.means - before.means,
        np.hypot(blocks.sd, before.sd),
        np.minimum(blocks.devices, before.devices),
        blocks.devices_sd,
        blocks.clip,
        blocks.least,
    )
    noise = np.hypot(both.sd / blocks.clip, np.hypot(_by_count(blocks), _by_count(before)))
    for group, length, sd in _each(both, both.lengths, noise):
        if length - DEVIATIONS * sd > gate:
            yield Alarm(
                "shift", group, f"{group}: its mean moved by {length:.0%} of the clip since the last release"
            )


def _by_count(blocks: Blocks) -> Floats:
    """Return what the noise in a group's number of devices makes of its mean's length, of the clip, (B,)."""
    return np.asarray(blocks.lengths * blocks.devices_sd / np.maximum(blocks.devices, 1.0))


def _each(blocks: Blocks, lengths: Floats, sd: Floats) -> Iterator[tuple[str, float, float]]:
    """Yield the groups that are used by themselves, with a length of each and the noise in it."""
    for at in np.flatnonzero(blocks.enough):
        yield blocks.labels[at], float(lengths[at]), float(sd[at])


def _counts(blocks: Blocks, before: Blocks, gate: float) -> Iterator[Alarm]:
    now, then = _share(blocks.devices), _share(before.devices)
    for at, group in enumerate(blocks.labels):
        noise = DEVIATIONS * np.hypot(
            blocks.devices_sd / max(blocks.devices.sum(), 1.0),
            gate * before.devices_sd / max(before.devices.sum(), 1.0),
        )
        if now[at] - gate * then[at] > noise or then[at] - gate * now[at] > noise:
            yield Alarm("count", group, f"{group}: {now[at]:.1%} of the devices, and {then[at]:.1%} before")


def _share(devices: Floats) -> Floats:
    return np.asarray(np.maximum(devices, 0.0) / max(float(np.maximum(devices, 0.0).sum()), 1.0))


def held(alarms: Iterable[Alarm]) -> bool:
    """Return whether any alarm holds the candidate."""
    return any(True for _ in alarms)
