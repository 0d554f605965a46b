"""Devices of this process: a fleet's tables behind the same interface that a real device has.

A simulated device does what a real one does: it believes an invitation only for its signatures and proofs,
counts its own rows, adds its share of the noise and keeps to the protocol. It lacks what needs an owner: a
store of its own, consent, a budget. Counting is done for a chunk of devices at a time, by the same vectorised
path that counts for one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from clients.device.interface import Declined, Reason, Stage
from clients.device.records import Seen
from clients.device.trust import PinnedKey, Pins, believe
from clients.evaluate import (
    Cohort,
    Randomness,
    cohort_of_fleet,
    device_vectors,
    seeded_randomness,
    system_randomness,
)
from clients.fleet.tables import read_fleet
from clients.simulated_pairs import SimulatedPairs
from fa_core.errors import BadInput
from fa_core.flower.transport import PARTITION
from fa_core.layout import covers
from fa_core.plan import Plan
from fa_core.privacy.distributed import noise_share, shares_of
from fa_core.secagg import DeviceIdentity, DeviceParty, Refusal, Task, Trust, plain
from fa_core.secagg.identity import certified, population_id
from fa_core.trust.enrolment import Authority
from fa_core.values import Int64Array, Layout
from fa_core.wire.agreement import task_of
from fa_core.wire.invitation import Invitation, decode

CHUNK = 512
"""Devices that are counted together."""

DRAWN = 16
"""Devices whose noise is drawn together: each call of the sampler costs as much as ten of its draws."""

FOREVER = timedelta(days=36_500)
"""How far the clock of a simulated device may be off: its tables may be of any year."""

NOTHING_SEEN = Seen(0, b"", None, None)


@dataclass(frozen=True, slots=True, eq=False)
class _Round:
    """What a fleet knows of one round once it believes the invitation."""

    invitation: Invitation
    plan: Plan
    layout: Layout
    task: Task


class SimulatedFleet:
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
        self._population = population
        self._randomness = randomness
        self._clock = clock
        self._trust = Trust(pins.authority, pins.witness)
        self._pairs = SimulatedPairs(len(cohort))
        self._identities = [authority.enrol(population) for _ in range(len(cohort))]
        for identity in self._identities:
            certified(identity.device, identity.certificate, pins.authority)  # remembered, in forks as well
        self._devices: dict[int, SimulatedDevice] = {}
        self._asked = b""
        self._round: _Round | None = None
        self._vectors: dict[int, Int64Array] = {}
        self._noised: dict[tuple[int, int], Int64Array] = {}

    def __len__(self) -> int:
        return len(self._cohort)

    def device(self, number: int) -> "SimulatedDevice":
        """Return device `number`, the same each time."""
        if number not in self._devices:
            self._devices[number] = SimulatedDevice(self, number, self._identities[number])
        return self._devices[number]

    def join(self, number: int, identity: DeviceIdentity, request: bytes) -> tuple["Party", bytes]:
        """Return a device's party in the round that `request` invites to, and its first reply."""
        if request != self._asked or self._round is None:
            self._round, self._asked = self._believe(request), request
            self._vectors, self._noised = {}, {}
        current = self._round

        def contribute(joined: int) -> NDArray[np.int64]:
            return self._contribution(current, number, joined)

        party: Party
        if current.plan.privacy.secure_aggregation:
            party = DeviceParty(current.task, identity, self._trust, contribute, self._pairs)
        else:
            party = plain.DeviceParty(current.task, identity, self._trust, contribute)
        return party, party.join(current.invitation.request)

    def _believe(self, request: bytes) -> _Round:
        try:
            invitation = decode(request)
        except BadInput:
            raise Declined(Reason.MALFORMED) from None
        population = population_id(self._population)
        believed = believe(invitation, self._pins, population, NOTHING_SEEN, lambda _: 0, self._clock())
        plan, proofs = believed.plan, (invitation.checkpoint, invitation.charge)
        layout, task = task_of(
            plan, invitation.release, invitation.attempt, invitation.until, population, proofs
        )
        if not covers(believed.charge, plan, layout):
            raise Declined(Reason.NOT_CHARGED)
        return _Round(invitation, plan, layout, task)

    def _contribution(self, current: _Round, number: int, joined: int) -> Int64Array:
        """Return a device's bounded counts, int64 (m,), with its share of the noise where devices add it."""
        if current.layout.noise != "distributed":
            return self._counts(current, number)
        if (number, joined) not in self._noised:
            self._draw(current, number - number % DRAWN, joined)
        return self._noised.pop((number, joined))

    def _draw(self, current: _Round, first: int, joined: int) -> None:
        """Add their shares of the noise to the counts of the devices from `first`."""
        numbers = range(first, min(first + DRAWN, len(self)))
        counts = np.stack([self._counts(current, number) for number in numbers])
        privacy = current.plan.privacy
        shares = _shares(current.layout, joined, privacy.dropout, privacy.corrupt)
        noised = noise_share(current.layout, counts, shares)
        self._noised.update(zip([(number, joined) for number in numbers], noised, strict=True))

    def _counts(self, current: _Round, number: int) -> Int64Array:
        """Return a device's row; its chunk is counted when the first of it is asked for."""
        if number not in self._vectors:
            start = number - number % CHUNK
            chunk = self._cohort.part(start, min(start + CHUNK, len(self._cohort)))
            until = current.invitation.until
            rows = device_vectors(current.plan, current.layout, chunk, until, self._randomness)
            self._vectors.update(enumerate(rows, start))
        return self._vectors.pop(number)


_shares = lru_cache(maxsize=4)(shares_of)


Party = DeviceParty | plain.DeviceParty


class SimulatedDevice:
    """One device of a simulated fleet: a `clients.device.interface.Device`."""

    def __init__(self, fleet: SimulatedFleet, number: int, identity: DeviceIdentity) -> None:
        self._fleet = fleet
        self._number = number
        self._identity = identity
        self._party: Party | None = None
        self._joined: tuple[bytes, bytes] = (b"", b"")

    def handle(self, stage: Stage, request: bytes) -> bytes:
        """Return the reply to `request` at `stage`. Raises Declined."""
        try:
            if stage == "join":
                return self._join(request)
            answer = getattr(self._party, stage, None)
            if answer is None:
                raise Declined(Reason.ORDER)
            replied: bytes = answer(request)
        except Refusal:
            raise Declined(Reason.PROTOCOL) from None
        return replied

    def _join(self, request: bytes) -> bytes:
        if request != self._joined[0]:
            self._party, reply = self._fleet.join(self._number, self._identity, request)
            self._joined = (request, reply)
        return self._joined[1]


def pins_of(
    plan_key: bytes, log: bytes, witness: bytes, authority: bytes, helper: bytes | None = None
) -> Pins:
    """Return what a simulated fleet trusts: one key of each kind (raw Ed25519, 32 bytes), at any time."""
    always = PinnedKey("local", plan_key, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    return Pins((always,), frozenset(), log, witness, authority, FOREVER, helper)


@dataclass(frozen=True, slots=True)
class FleetNodes:
    """The nodes of a fleet directory, one device each, by Flower's partition number; for other processes.

    Attributes:
        folder: the fleet directory; each process reads it once.
        pins: what the devices trust.
        authority: private key of the enrolment authority, raw, by which they enrol themselves.
        seed: of the sampling of events; None for the operating system's randomness.
    """

    folder: Path
    pins: Pins
    authority: bytes = field(repr=False)
    seed: int | None

    def __call__(self, node_config: Mapping[str, Any]) -> dict[int, SimulatedDevice]:
        """Return the devices of the node that has this configuration."""
        return {0: _fleet(self).device(int(node_config[PARTITION]))}


def simulated(
    cohort: Cohort, pins: Pins, authority: Authority, population: str, seed: int | None
) -> SimulatedFleet:
    """Return the devices of a cohort; their events are sampled by `seed` where there is one."""
    randomness = system_randomness if seed is None else seeded_randomness(seed)
    return SimulatedFleet(cohort, pins, authority, population, randomness)


@lru_cache(maxsize=1)
def _fleet(nodes: FleetNodes) -> SimulatedFleet:
    authority = Authority(Ed25519PrivateKey.from_private_bytes(nodes.authority))
    fleet = read_fleet(nodes.folder)
    cohort = cohort_of_fleet(fleet.devices, fleet.tables)
    return simulated(cohort, nodes.pins, authority, fleet.population, nodes.seed)
