"""A plan and what both aggregators compute from it alone."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fa_core.collection.task import Task
from fa_core.errors import BadInput, Refused
from fa_core.layout import compile_plan, layout_hash
from fa_core.plan import Plan, from_canonical
from fa_core.prio.blocks import prio, spread
from fa_core.prio.field import FIELD64
from fa_core.prio.prio3 import Prio3
from fa_core.privacy.two_aggregators import Role, noise_of
from fa_core.values import Layout


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A plan, its layout, and the proof system of its reports."""

    plan: Plan
    layout: Layout
    prio: Prio3

    def noised(self, total: NDArray[np.uint64], role: Role) -> NDArray[np.uint64]:
        """Return an aggregator's share of the plan's vector with its own noise, freshly drawn, mod p.

        Args:
            total: uint64 (elements,), its share of the sum of what devices shared.
        """
        return FIELD64.add(spread(self.plan, total), FIELD64.array(noise_of(self.layout, role)))


def measured_for(task: Task, plan: bytes) -> Measured:
    """Return what the plan of a task says, as `measured`.

    Raises Refused where it says another layout than the task names: in an open window of days another version
    of Unheard, with other bounds or other noise, may have come.
    """
    found = measured(plan)
    if layout_hash(found.layout) != task.layout:
        raise Refused(
            f"this version of Unheard makes another layout of the plan than the task of release "
            f"{task.release.hex()} names; the version that opened it ends it"
        )
    return found


@lru_cache(maxsize=16)
def measured(plan: bytes) -> Measured:
    """Return what a plan's canonical bytes say. Raises BadInput for one that two aggregators do not sum."""
    parsed = from_canonical(plan)
    layout = compile_plan(parsed)
    if layout.kappa is None:
        raise BadInput("devices form the sum of this plan in four stages, not two aggregators")
    return Measured(parsed, layout, prio(parsed))
