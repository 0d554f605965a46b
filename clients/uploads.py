"""Devices of this process that upload once: a fleet's tables, each device's report for two aggregators.

As in `clients.party`, a device believes an invitation only for its signatures and proofs, counts its own
rows, and proves that it keeps its bounds; it lacks what needs an owner. Its noise is the aggregators'.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final

import numpy as np

from clients.device.interface import Declined, Reason
from clients.device.trust import Pins, believe, believe_offer
from clients.evaluate import Cohort, Randomness, device_tallies
from clients.party import CHUNK, NOTHING_SEEN
from fa_core.collection.report import seal
from fa_core.collection.task import Task
from fa_core.errors import BadInput
from fa_core.layout import compile_plan, covers
from fa_core.plan import Plan
from fa_core.prio.blocks import encode, prio
from fa_core.secagg.identity import population_id
from fa_core.trust.enrolment import Authority
from fa_core.values import Int64Array
from fa_core.wire.invitation import decode

LEAST_KAPPA: Final = Fraction(1, 4)
"""As the policy of a device has it by default: the helper, who knows its own noise, faces rho/kappa."""


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """What a fleet knows of a collection once it believes the invitation."""

    plan: Plan
    task: Task


class UploadingFleet:
    """Many devices, numbered in the order of `cohort`, that enrol by themselves with `authority`.

    `population` is whose budget is charged; `clock` is what the devices take for the time, UTC.
    """

    def __init__(
        self,
        cohort: Cohort,
        pins: Pins,
        authority: Authority,
        population: str,
        randomness: Randomness,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cohort = cohort
        self._pins = pins
        self._authority = authority
        self._population = population
        self._randomness = randomness
        self._clock = clock
        self._invitation = b""
        self._asked: _Asked | None = None
        self._measured: dict[int, Int64Array] = {}

    def report(self, number: int, invitation: bytes) -> bytes:
        """Return the report of device `number`: another at each call. Raises Declined."""
        if invitation != self._invitation or self._asked is None:
            self._asked, self._invitation, self._measured = self._believe(invitation), invitation, {}
        asked = self._asked
        identity = self._authority.enrol(self._population)
        return seal(asked.task, prio(asked.plan), self._measurement(asked, number), identity).encode()

    def _believe(self, request: bytes) -> _Asked:
        now, population = self._clock(), population_id(self._population)
        try:
            invitation = decode(request)
        except BadInput:
            raise Declined(Reason.MALFORMED) from None
        believed = believe(invitation, self._pins, population, NOTHING_SEEN, lambda _: 0, now)
        plan, layout = believed.plan, compile_plan(believed.plan)
        if not covers(believed.charge, plan, layout):
            raise Declined(Reason.NOT_CHARGED)
        if plan.privacy.kappa is not None and plan.privacy.kappa < LEAST_KAPPA:
            raise Declined(Reason.LIMITS)
        return _Asked(plan, believe_offer(invitation, plan, layout, self._pins, population, now))

    def _measurement(self, asked: _Asked, number: int) -> Int64Array:
        """Return what a device shares; its chunk is counted when the first of it is asked for."""
        if number not in self._measured:
            start = number - number % CHUNK
            chunk = self._cohort.part(start, min(start + CHUNK, len(self._cohort)))
            tallies = device_tallies(asked.plan, chunk, asked.task.until, self._randomness)
            self._measured = dict(enumerate(np.asarray(encode(asked.plan, tallies)), start))
        return self._measured.pop(number)
