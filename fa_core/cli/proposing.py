"""Which `max_excess` would do, by an earlier release of the same plan: for `fa plan preview`."""

from dataclasses import dataclass

import numpy as np

from fa_core.estimate.bounds import CLIPPED, Proposal, proposals
from fa_core.estimate.read import part_sums
from fa_core.plan import from_canonical
from fa_core.store import Query, Store

POINT = 0.01
"""Bias that is accepted where the author names no width."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """Proposals for the bound of a plan, read from `release`; every group's bias stays under `width`."""

    release: str
    width: float
    proposals: tuple[Proposal, ...]

    def sentences(self) -> list[str]:
        """Return the proposals as sentences for a person."""
        lines = []
        for each in self.proposals:
            by = " × ".join(each.grouping) or "everyone"
            left = f"; {each.untold} groups have too few events to say" if each.untold else ""
            lines.append(
                f"{each.metric} by {by}: max_excess {each.bound} keeps the bias of every group under "
                f"{self.width:g} (now {each.now}{left})."
            )
        lines.append(
            f"Read from the noised clipped counter of release {self.release[:12]}, whose charge covers it: "
            "a proposal costs nothing, and you decide."
        )
        return lines


def proposed(store: Store, plan: str, width: float | None) -> Proposed | None:
    """Return proposals from the newest release of a plan of this name, None where it clipped nothing."""
    family = store.releases(Query(plan=plan), limit=1)
    if not family:
        return None
    release = store.release(family[0].id)
    if all(block.part != CLIPPED for block in release.layout.blocks):
        return None
    accepted = POINT if width is None else width
    sums = part_sums(release, release.sums.astype(np.float64))
    found = proposals(from_canonical(release.plan), sums, accepted)
    return Proposed(release.id, accepted, found) if found else None
