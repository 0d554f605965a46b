"""A fleet directory as what a preview expects of devices like those in it."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from clients.evaluate import Cohort, cohort_of_fleet, fleet_sum, seeded_randomness
from clients.fleet.fit import fit
from clients.fleet.tables import read_fleet
from fa_core.estimate.expect import measured
from fa_core.estimate.preview import Fleet
from fa_core.plan import Plan, canonical
from fa_core.values import FloatArray, Layout

SOME = 2_000
"""Devices that other choices are previewed with: they are many, and each takes a count of its own."""


@dataclass(frozen=True, slots=True)
class Pilot:
    """A fleet to preview with, the number of its devices, and the devices until the end of their window."""

    devices: int
    sources: Fleet
    cohort: Cohort
    until: datetime

    def fit(self, plan: Plan) -> list[str]:
        """Return how a plan fits the fleet, a sentence for whatever a person should know."""
        return list(fit(plan, self.cohort, self.until).sentences())


def read_pilot(folder: Path) -> Pilot:
    """Return the fleet of a directory. Raises BadInput where it is none."""
    fleet = read_fleet(folder)
    return pilot_of(cohort_of_fleet(fleet.devices, fleet.tables), fleet.until)


def pilot_of(cohort: Cohort, until: datetime) -> Pilot:
    """Return some devices as a fleet to preview with; `until` is the end of the window."""
    some = cohort.part(0, min(len(cohort), SOME))
    return Pilot(
        len(cohort),
        Fleet(
            measured(_Counts(cohort, until), len(cohort)),
            measured(_Counts(some, until), len(some)),
        ),
        cohort,
        until,
    )


class _Counts:
    """The sums of some devices by plan. Plans that differ in the budget alone are counted once. A seed draws
    the events that count, so that two plans differ by what they ask and not by the draw."""

    def __init__(self, cohort: Cohort, until: datetime) -> None:
        self._cohort = cohort
        self._until = until
        self._kept: dict[bytes, FloatArray] = {}

    def __call__(self, plan: Plan, layout: Layout) -> FloatArray:
        privacy = plan.privacy.model_copy(update={"epsilon": 1, "rho": None, "alpha": None, "shares": None})
        key = canonical(plan.model_copy(update={"privacy": privacy}))
        if key not in self._kept:
            counted = fleet_sum(plan, layout, self._cohort, self._until, seeded_randomness(0))
            self._kept[key] = counted.astype(np.float64)
        return self._kept[key]
