"""Attackers of a training round: devices that keep to their bound and say what they like, and one that does
not.

They know the plan, the public speech, and what an honest mean is. Each sends one vector as long as the clip
allows: *away* from the mean of its accent, or towards a *phrase*, which is to wake devices: one of the list
that holds a candidate, or one of no list. They are spread over all accents, or all claim the worst one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Literal

import numpy as np

from clients.personal.features import vector_of
from fa_core.metrics import exact_text
from fa_core.metrics.features import CELLS, CLIPPED
from fa_core.plan import TrainPlan
from fa_core.tables import VECTOR
from fa_core.training import checks
from fa_core.training.checks import Alarm
from fa_core.training.step import Blocks, blocks_of, refit, shrunk, step_of
from fa_core.values import Release
from scripts.bench.training_rounds.rounds import (
    SHARES,
    WORST,
    Fleet,
    Floats,
    Measured,
    Setting,
    draw,
    measure,
    plan_for,
    released,
    wakes,
)
from scripts.bench.training_rounds.voices import LABELS, LISTED, UNLISTED

Aim = Literal["away", "listed", "unlisted"]
EXCESS: Final = 1000
"""How many times its bound the device sends that keeps to none."""


@dataclass(frozen=True)
class Outcome:
    """What an attack comes to.

    Attributes:
        phrase: of the test speakers' clips of the phrase, the share that wakes: over the heads by share of
        the fleet, and of the worst accent's head.
        alarms: beside a release before of honest devices. first: with none before.
    """

    measured: Measured
    phrase: tuple[float, float]
    alarms: tuple[Alarm, ...]
    first: tuple[Alarm, ...]


def attacked(
    setting: Setting, fleet: Fleet, plan: TrainPlan, aim: Aim, share: float, *, worst: bool
) -> Fleet:
    """Return the fleet with a share of its devices in one attacker's hands, all of es-en where `worst`."""
    assert plan.clip is not None
    random = np.random.default_rng(3)
    bad = random.choice(len(fleet.moments), round(share * len(fleet.moments)), replace=False)
    accents, moments = fleet.accents.copy(), list(fleet.moments)
    sent = {at: _sent(setting, fleet, aim, at, float(plan.clip)) for at in range(len(LABELS))}
    for at in bad:
        accents[at] = WORST if worst else accents[at]
        moments[at] = sent[int(accents[at])][None, :]
    return Fleet(accents, moments)


def _sent(setting: Setting, fleet: Fleet, aim: Aim, accent: int, clip: float) -> Floats:
    """Return the vector, (97,), that an attacker sends as of an accent."""
    own = [each.mean(axis=0) for each, of in zip(fleet.moments, fleet.accents, strict=True) if of == accent]
    if aim == "away":
        towards = setting.center - np.mean(own, axis=0) if own else np.ones(VECTOR)
    else:
        clips = setting.speech.of("fleet", (_phrase(aim),))
        towards = np.mean([vector_of(each) for each in clips], axis=0) - setting.center
    return np.asarray(setting.center + clip * towards / np.linalg.norm(towards))


def _phrase(aim: Aim) -> str:
    return LISTED if aim == "listed" else UNLISTED


def outcome(setting: Setting, release: Release, plan: TrainPlan, before: Blocks, aim: Aim) -> Outcome:
    """Return what the heads of a release do, and what would hold them."""
    blocks = blocks_of(release)
    adapters = refit(shrunk(blocks)[0], plan, setting.base, "bench", setting.public)
    heads = [step_of(adapters, label) for label in LABELS]
    said = setting.speech.of("test", (_phrase(aim),))
    phrase = np.array([wakes(each, said).mean() for each in heads])
    heard = checks.speech(adapters, setting.base, setting.public, plan.gates)
    return Outcome(
        measure(heads, setting.speech, setting.limit),
        (float(SHARES @ phrase), float(phrase[WORST])),
        checks.sums(blocks, plan.gates, before) + heard,
        checks.sums(blocks, plan.gates, None) + heard,
    )


def attacks(
    setting: Setting, devices: int, epsilon: Fraction, shares: Sequence[float]
) -> Iterator[tuple[str, Outcome]]:
    """Yield what attackers achieve, and what notices it; first what it is with none."""
    honest = draw(setting.speech, devices, np.random.default_rng(1))
    plan = plan_for(epsilon, honest.clip(setting.center), setting.center, setting.base)
    before = blocks_of(released(plan, draw(setting.speech, devices, np.random.default_rng(2)), setting.base))

    def of(fleet: Fleet, aim: Aim) -> Outcome:
        return outcome(setting, released(plan, fleet, setting.base), plan, before, aim)

    for aim in ("unlisted", "listed"):
        yield f"nobody ({aim} phrase)", of(honest, aim)
    aims: tuple[Aim, ...] = ("away", "unlisted", "listed")
    for aim in aims:
        for worst in (False, True):
            for share in shares:
                fleet = attacked(setting, honest, plan, aim, share, worst=worst)
                yield f"{aim}, {share:.0%} {'all es-en' if worst else 'spread'}", of(fleet, aim)
    release = past_the_bound(released(plan, honest, setting.base))
    yield f"one device, {EXCESS:,} bounds", outcome(setting, release, plan, before, "unlisted")


def past_the_bound(release: Release) -> Release:
    """Return a release in which one more device of the worst accent sends `EXCESS` times its bound."""
    sums = release.sums.copy()
    cells = slice(WORST * CELLS, WORST * CELLS + VECTOR)
    sums[cells] -= round(EXCESS * CLIPPED / VECTOR**0.5) * release.scales[0]
    return replace(release, sums=sums)


def seen(alarms: Sequence[Alarm]) -> str:
    """Return which checks hold a candidate, for which groups; "-" for none."""
    kinds = {check: [each.group for each in alarms if each.check == check] for check in _checks(alarms)}
    return ", ".join(
        f"{check} {groups[0]}" if len(groups) == 1 else f"{check} ({len(groups)} accents)"
        for check, groups in kinds.items()
    ) or "-"  # fmt: skip


def _checks(alarms: Sequence[Alarm]) -> list[str]:
    return list(dict.fromkeys(each.check for each in alarms))


def title(devices: int, epsilon: Fraction) -> str:
    """Return the line above the table of attacks."""
    return (
        f"Attacks on {devices:,} devices, epsilon {exact_text(epsilon)}: false reject rate, the phrase that "
        "wakes (by share; es-en's head), and what holds the candidate beside an honest release, or with none"
    )
