"""A federation in one process whose sums two aggregators form: nodes that answer `query.report`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from secrets import token_bytes
from typing import Any

from clients.device.interface import Declined
from clients.evaluate import seeded_randomness
from clients.uploads import UploadingFleet
from fa_core.collection.messages import Aggregator
from fa_core.flower.transport import PARTITION, ClientApp, LocalGrid, Message, client_app, read, reply
from fa_core.privacy.ledger import BUDGETS, Policy
from fa_core.rounds.drain import Collection as Collecting
from fa_core.rounds.drain import drain
from fa_core.rounds.keys import local_keys, local_witness
from fa_core.rounds.round import Pace, Watch
from fa_core.rounds.run import Job, RunContext
from fa_core.rounds.standing import Standing
from fa_core.secagg.identity import DeviceIdentity
from fa_core.trust.enrolment import Authority
from fa_core.values import Estimates, Release
from tests.collection.setup import PRIVACY
from tests.collection.world import Collection
from tests.rounds.fakes import SLICE
from tests.rounds.small import NOW, POPULATION, SEED, RealClock

WINDOW = timedelta(hours=24)
AMPLE = Policy(*[Fraction(10**6)] * len(BUDGETS))
Parts = Mapping[int, bytes]
Node = Callable[[Parts, bytes], Parts]
"""Answers the parts and the invitation of one message."""


@dataclass
class Federation:
    """A leader, a helper, a witness and devices, whose reports are made once and kept. `nodes` answer at the
    coming drains, by their number from 1."""

    made: Collection
    devices: int
    nodes: dict[int, Node] = field(default_factory=dict)
    enough: int = 0
    helper: Aggregator | None = None
    seen: list[Standing] = field(default_factory=list)
    kept: dict[int, bytes] = field(default_factory=dict)
    identities: list[DeviceIdentity] = field(default_factory=list)
    fleet: UploadingFleet = field(init=False)

    @classmethod
    def make(cls, folder: Path, devices: int, privacy: str = PRIVACY) -> "Federation":
        """Build it all: every device behind one hub."""
        found = cls(Collection.make(folder, devices, privacy), devices)
        made, pins = found.made, found.made.world.pins
        helper = made.helper_key.public_key().public_bytes_raw()
        authority = Recorded(made.world.authority.key, found.identities)
        pinned, randomness = replace(pins, helper=helper), seeded_randomness(SEED)
        found.fleet = UploadingFleet(made.world.cohort, pinned, authority, POPULATION, randomness, made.clock)
        keys = local_keys(folder / "local")
        made.world.signers = replace(made.world.signers, witness=local_witness(keys, made.clock))
        made.world.give(AMPLE)
        found.begin()
        return found

    def begin(self) -> None:
        """Begin another release at the time of the first, with every device behind one hub, to be drained."""
        self.made.release, self.made.at = token_bytes(16), NOW
        self.kept.clear()
        self.seen.clear()
        self.enough, self.helper, self.nodes = 0, None, {1: self.hub(range(self.devices))}

    def close(self) -> None:
        """Close every database."""
        self.made.close()
        self.made.world.store.close()

    def report(self, number: int, invitation: bytes) -> bytes:
        """Return a device's report, the same bytes at each call; b"" where it declines."""
        if number not in self.kept:
            try:
                self.kept[number] = self.fleet.report(number, invitation)
            except Declined:
                return b""
        return self.kept[number]

    def hub(self, numbers: "range | list[int]") -> Node:
        """Return a hub of devices."""
        return lambda parts, invitation: {
            slot: self.report(number, invitation) for slot, number in enumerate(numbers)
        }

    def drain(self) -> tuple[Release, Estimates] | Standing:
        """Drain once, as a ServerApp that has just started."""
        made, world = self.made, self.made.world
        watch = Watch(world.seen.append, lambda: False, self.seen.append)
        context = RunContext(world.store, world.signers, Pace(60.0, 0.0), RealClock(), made.clock, watch)
        helper = self.helper or made.helper
        return drain(self.job(), self.grid(), Collecting(made.leader, helper, WINDOW, self.enough), context)

    def job(self) -> Job:
        """The release that is drained."""
        return replace(self.made.job(), engine="lab", devices=self.devices)

    def grid(self) -> LocalGrid:
        """Return a Grid of the nodes that are online."""
        return Some(client_app(self._answer, ("report",)), self.nodes)

    def _answer(self, message: Message, config: Mapping[str, Any]) -> Message:
        request = read(message)
        return reply(message, self.nodes[int(config[PARTITION]) + 1](request.parts, request.everyone))

    def later(self, hours: float) -> datetime:
        """Move everybody's clock."""
        self.made.at += timedelta(hours=hours)
        return self.made.at


@dataclass(frozen=True)
class Recorded(Authority):
    """An authority that keeps the keys of the devices that it enrols."""

    kept: list[DeviceIdentity] = field(default_factory=list)

    def enrol(self, population: str) -> DeviceIdentity:
        """Enrol a device."""
        identity = super().enrol(population)
        self.kept.append(identity)
        return identity


class Some(LocalGrid):
    """A local Grid of which only some nodes are online."""

    def __init__(self, app: ClientApp, online: Mapping[int, object]) -> None:
        super().__init__(app, max(online, default=0), SLICE)
        self._online = sorted(online)

    def get_node_ids(self) -> list[int]:
        return self._online
