"""The audit: the real pipeline, many times, on two fleets that differ in one device.

Broken pipelines run beside the real ones; an audit that does not catch each of them is worth nothing.
"""

from dataclasses import dataclass, replace
from typing import Final

from fa_core.audit.charge import Ask, charge_checks
from fa_core.audit.checks import Check, checks
from fa_core.audit.coverage import coverage
from fa_core.audit.pipelines import Evaluate, Pipeline, clipped_before_rounding, controls, real, training


@dataclass(frozen=True, slots=True)
class Audited:
    """A pipeline and its checks. `broken` says what is wrong with a control, "" for the real thing."""

    name: str
    broken: str
    checks: tuple[Check, ...]

    @property
    def caught_by(self) -> tuple[str, ...]:
        """Names of the checks that found something wrong."""
        return tuple(check.name for check in self.checks if not check.passed)

    @property
    def good(self) -> bool:
        """Whether the real thing passed, or the control was caught."""
        return bool(self.caught_by) == bool(self.broken)


@dataclass(frozen=True, slots=True)
class Size:
    """How much to do: pairs of releases of each fleet in a batch, batches (each counts anew), releases whose
    intervals are checked, and whether every mechanism has its own controls."""

    pairs: int
    batches: int
    coverage: int
    controls_everywhere: bool


QUICK: Final = Size(pairs=1500, batches=1, coverage=200, controls_everywhere=False)
FULL: Final = Size(pairs=2000, batches=8, coverage=1000, controls_everywhere=True)


ROUND: Final = "charge, before a round"
"""What the checks of the charge are called; the others are called by their noise."""


def audit(evaluate: Evaluate, ask: Ask, size: Size) -> tuple[Audited, ...]:
    """Return every pipeline's checks: the real ones, then the broken controls."""
    mechanisms = [("zcdp", "central"), ("pure", "central"), ("zcdp", "distributed")]
    sound = [real(evaluate, accounting, noise) for accounting, noise in mechanisms]
    found = [_audited(pipeline, size) for pipeline in sound]
    for place, (accounting, noise) in enumerate(mechanisms):
        if noise == "central" or size.controls_everywhere:
            runs = size.coverage if noise == "central" else size.coverage // 10
            check, _ = coverage(evaluate, accounting, noise, runs)
            found[place] = replace(found[place], checks=(*found[place].checks, check))
    for pipeline in sound if size.controls_everywhere else sound[:1]:
        found += [_audited(control, size) for control in controls(pipeline)]
    means = training(evaluate)
    found += [
        _audited(each, replace(size, pairs=size.pairs // 20))
        for each in (means, clipped_before_rounding(means))
    ]
    _, blind = coverage(evaluate, "zcdp", "central", size.coverage)
    found.append(Audited(sound[0].name, "intervals that forget the noise", (blind,)))
    return (*found, *_charged(ask))


def _charged(ask: Ask) -> tuple[Audited, ...]:
    """Return the checks of a round that is charged, and of one that is not, which each party must notice."""
    ledger, devices, witness = charge_checks(ask(False))
    what = "a round that skips the charge"
    return (
        Audited(ROUND, "", charge_checks(ask(True))),
        Audited(ROUND, f"{what}: the ledger", (ledger,)),
        Audited(ROUND, f"{what}: devices", (devices,)),
        Audited(ROUND, f"{what}: the witness", (witness,)),
    )


def _audited(pipeline: Pipeline, size: Size) -> Audited:
    return Audited(pipeline.name, pipeline.broken, checks(pipeline, size.pairs, size.batches))
