"""A collection in one folder: a store that charges, a witness, leader, helper, devices."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from functools import partial
from pathlib import Path
from secrets import token_bytes

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.evaluate import device_tallies, device_vectors, seeded_randomness
from fa_core import secagg
from fa_core.collection.helper import Helper, Pinned
from fa_core.collection.leader import Leader
from fa_core.collection.messages import Aggregator
from fa_core.collection.migrations import LINEAGE
from fa_core.collection.report import Report, seal
from fa_core.collection.task import SignedTask, Task
from fa_core.database.connection import Database, connect_file
from fa_core.layout import compile_plan
from fa_core.plan import Plan, SignedPlan, canonical, parse
from fa_core.prio.blocks import encode, prio
from fa_core.rounds.round import Pace, Watch
from fa_core.rounds.run import Job, RunContext, charge_of, invitation_of, require_budgets
from fa_core.secagg.identity import DeviceIdentity, population_id
from fa_core.trust.charges import ChargeProof, context_of
from fa_core.values import Int64Array
from fa_core.wire.invitation import Invitation
from tests.collection.setup import PRIVACY, plan_text
from tests.rounds import small
from tests.rounds.small import NOW, POPULATION, SEED, UNTIL, RealClock, World
from tests.secagg.lab import fresh_record

WINDOW = (NOW - timedelta(hours=1), NOW + timedelta(hours=23))


def plan_of(privacy: str = PRIVACY) -> Plan:
    """Return a plan that two aggregators sum."""
    return parse(plan_text(privacy).encode(), "plan.yaml", today=NOW.date(), policy=None)


@dataclass
class Collection:
    """A charged release that leader and helper collect. `at` is the time for both; `devices` are enrolled."""

    world: World
    plan: Plan
    leader_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    helper_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    release: bytes = field(default_factory=lambda: token_bytes(16))
    at: datetime = NOW
    databases: dict[str, Database] = field(default_factory=dict)
    identities: list[DeviceIdentity] = field(default_factory=list)
    invite: Callable[[], Invitation] = field(init=False)

    @classmethod
    def make(cls, folder: Path, devices: int, privacy: str = PRIVACY) -> "Collection":
        """Build it all; nothing is charged yet."""
        made = cls(World.make(folder, devices), plan_of(privacy))
        made.connect()
        made.identities = [made.world.authority.enrol(POPULATION) for _ in range(devices)]
        return made

    def connect(self) -> None:
        """Open both databases, or open them again."""
        self.close()
        for role in ("leader", "helper"):
            self.databases[role] = connect_file(self.world.folder / f"{role}.db", LINEAGE, durable=False)
            self.databases[role].prepare()

    def close(self) -> None:
        """Close every connection to both databases; they are opened again when they are used."""
        for database in self.databases.values():
            database.close()

    def clock(self) -> datetime:
        """The time for leader and helper."""
        return self.at

    @property
    def leader(self) -> Leader:
        """The leader, as a process that has just started."""
        return Leader(self.databases["leader"], self.leader_key, self.world.authority.public_key, self.clock)

    @property
    def helper(self) -> Helper:
        """The helper, as a process that has just started."""
        pins = self.world.pins
        leader = self.leader_key.public_key().public_bytes_raw()
        pinned = Pinned(pins.authority, pins.log, pins.witness, leader)
        return Helper(
            self.databases["helper"], self.helper_key, pinned, self.world.signers.witness, self.clock
        )

    def job(self) -> Job:
        """The release that is charged."""
        signed = SignedPlan.of(self.plan, self.world.plan_key)
        return Job(self.plan, signed, POPULATION, UNTIL, "local", True, True, 0, 0, self.release)

    def charge(self) -> ChargeProof:
        """Announce and charge the release; return the proof, which `proof` gives again."""
        world, job = self.world, self.job()
        watch = Watch(world.seen.append, lambda: False)
        context = RunContext(world.store, world.signers, Pace(60, 0.1), RealClock(), small.today, watch)
        entry = world.store.announce(canonical(job.plan), job.signed.key, job.signed.signature)
        layout = compile_plan(job.plan)
        paid = world.store.charge(charge_of(job, layout, job.release.hex(), NOW))
        budgets = require_budgets(job, context)
        self.invite = partial(invitation_of, job, entry.index, paid.log_index, budgets, context)
        return self.proof()

    def proof(self) -> ChargeProof:
        """Prove the charge under a checkpoint of now."""
        return self.invite().charge_proof

    def roster_request(self) -> bytes:
        """Return what the witness is asked for a round of the same release in four stages."""
        invitation = self.invite()
        task = secagg.Task(
            plan_hash=bytes.fromhex(self.plan.hash),
            release=self.release,
            attempt=0,
            bits=64,
            length=compile_plan(self.plan).length,
            min_devices=self.plan.privacy.min_cohort,
            dropout=Fraction(3, 10),
            corrupt=Fraction(0),
            population=population_id(POPULATION),
            context=context_of(UNTIL, (invitation.checkpoint, invitation.charge)),
        )
        records = [fresh_record(identity, task) for identity in self.identities]
        return secagg.messages.roster_request(task, invitation.charge_proof.encode(), records)

    def open(self, helper: Aggregator | None = None) -> SignedTask:
        """Charge the release and open its task."""
        helper = helper or self.helper
        return self.leader.open(canonical(self.plan), self.release, self.charge(), WINDOW, helper)

    def measurements(self) -> Int64Array:
        """What each device shares, int64 (devices, elements)."""
        tallies = device_tallies(self.plan, self.world.cohort, UNTIL, seeded_randomness(SEED))
        return np.asarray(encode(self.plan, tallies))

    def vectors(self) -> Int64Array:
        """What each device adds to the plan's vector, int64 (devices, cells)."""
        layout = compile_plan(self.plan)
        return device_vectors(self.plan, layout, self.world.cohort, UNTIL, seeded_randomness(SEED))

    def reports(self, task: Task) -> list[Report]:
        """A report of each device."""
        system, rows = prio(self.plan), self.measurements()
        return [seal(task, system, row, each) for row, each in zip(rows, self.identities, strict=True)]

    def collect(self, reports: list[Report], task: Task) -> Int64Array:
        """Upload reports, verify them and close."""
        for report in reports:
            self.leader.take(task.id, report.encode())
        return self.leader.close(task.id, self.helper)
