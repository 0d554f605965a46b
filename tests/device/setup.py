"""Builds an enrolled device over a real store, the other parties of a round, and an injected clock."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.device import database
from clients.device.admission import Terms
from clients.device.contribution import Clock, StoredDevice
from clients.device.interface import Declined, Device, Stage
from clients.device.keys import StoreKey
from clients.device.odometer import Budget
from clients.device.policy import Conditions, Policy
from clients.device.records import Records
from clients.device.store import DEFAULT_RETENTION, Rules, Store
from clients.device.trust import PinnedKey, Pins
from fa_core.canonical_json import canonical as canonical_json
from fa_core.layout import compile_plan
from fa_core.merkle import Tree, leaf_hash
from fa_core.plan import Plan, canonical, parse
from fa_core.plan.signing import sign
from fa_core.privacy.ledger import BUDGETS, Charge
from fa_core.privacy.ledger import Policy as LedgerPolicy
from fa_core.privacy.ledger_rows import Declaration
from fa_core.privacy.ledger_rows import encode as encode_row
from fa_core.secagg import DeviceParty, Result, Server, Trust, messages, plain
from fa_core.secagg.identity import population_id
from fa_core.tables import SOURCES
from fa_core.trust import budgets
from fa_core.trust import checkpoint as log
from fa_core.trust.enrolment import Authority
from fa_core.trust.witness import Witness
from fa_core.values import Int64Array
from fa_core.wire.agreement import task_of
from fa_core.wire.invitation import Invitation, encode

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
POPULATION = "homes"
START = NOW - timedelta(days=400)
KEY = StoreKey(sha256(b"a key of the tests").digest())
SKEW = timedelta(hours=24)
RULES = Rules(
    dict.fromkeys(SOURCES, DEFAULT_RETENTION),
    {
        "wake_word": {"okay_nabu", "alexa"},
        "model_version": {"micro-1", "2.1"},
        "intent_predicted": {"lights_on"},
    },
)
READY = Conditions(unmetered_network=True, charging=True, idle=True, speaking=False)

PLAN = """
apiVersion: fa/v1
kind: EvalPlan
metadata:
  name: {name}
  revision: {revision}
  owner: wake-word-quality
  question: Does any accent miss the wake word more than the rest?
  expires: {expires}
source: wake_events
window: {window}
where: {{wake_word: okay_nabu}}
segments:
  accent: {{device: accent, values: [en-US, en-GB]}}
group_by: [[], [accent]]
metrics:
  false_reject_rate:
    kind: rate
    of: {{outcome: false_reject}}
    over: {{outcome: [false_reject, true_accept]}}
    expect: 0.05
privacy:
  epsilon: {epsilon}
  delta: 1e-8
  noise: {noise}
  max_events: 64
  min_cohort: 3
  secure_aggregation: {secure}
{more}"""


def plan_of(
    name: str = "weekly",
    revision: int = 1,
    epsilon: str = "1.0",
    noise: str = "central",
    expires: str = "2026-12-31",
    secure: str = "true",
    window: str = "7d",
    more: str = "",
) -> Plan:
    """Return the tests' plan."""
    text = PLAN.format(**locals())
    return parse(text.encode(), "plan.yaml", today=NOW.date(), policy=None)


def charge_entry(plan: Plan, release: bytes, until: datetime, at: datetime, **changes: Any) -> bytes:
    """Return the log's entry of the ledger's row that pays for a release."""
    layout = compile_plan(plan)
    facts: dict[str, Any] = {
        "population": POPULATION,
        "family": plan.metadata.name,
        "release": release.hex(),
        "plan_hash": plan.hash,
        "currency": layout.accounting,
        "cost": layout.cost,
        "epsilon": layout.epsilon,
        "delta": layout.delta,
        "window_start": until - plan.window,
        "window_end": until,
        "at": at,
        "alpha": plan.privacy.alpha,
    }
    row = json.loads(encode_row(Charge(**(facts | changes))))
    return log.entry("ledger", canonical_json({"hash": "00" * 32, "row": row, "seq": 0}))


@dataclass
class World:
    """Everything but the device: the plan signer, the log and its witness, the enrolment authority."""

    folder: Path
    plan_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    log_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    witness_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    authority: Authority = field(default_factory=Authority.generate)
    leaves: list[bytes] = field(default_factory=lambda: [leaf_hash(b"the first entry")])
    _releases: int = 0

    def pins(self) -> Pins:
        """Return what a device of this world trusts."""
        signer = PinnedKey(
            "quality", raw(self.plan_key), NOW - timedelta(days=365), NOW + timedelta(days=365)
        )
        return Pins(
            (signer,), frozenset(), raw(self.log_key), raw(self.witness_key), self.authority.public_key, SKEW
        )

    def release(self) -> bytes:
        """Return the next release's id."""
        self._releases += 1
        return self._releases.to_bytes(16, "big")

    def invite(
        self, plan: Plan, release: bytes, until: datetime, at: datetime, attempt: int = 0
    ) -> Invitation:
        """Log a plan and return the invitation to a release of it in four stages, cosigned at `at`."""
        asked = self.asked(plan, release, until, at, attempt)
        proofs = (asked.checkpoint, asked.charge)
        _, task = task_of(plan, release, attempt, until, population_id(POPULATION), proofs)
        return replace(asked, request=messages.join_request(task))

    def asked(
        self,
        plan: Plan,
        release: bytes,
        until: datetime,
        at: datetime,
        attempt: int = 0,
        charged_at: datetime | None = None,
    ) -> Invitation:
        """Log a plan and its charge; return the invitation, cosigned at `at`, without a first message."""
        body, key = canonical(plan), raw(self.plan_key)
        signature = sign(body, self.plan_key)
        charge = charge_entry(plan, release, until, charged_at or at)
        leaf, paid = leaf_hash(log.plan_entry(body, key, signature)), leaf_hash(charge)
        self.leaves += [each for each in (leaf, paid) if each not in self.leaves]
        note, tree = self.note(at), Tree(self.leaves)
        index, charged = self.leaves.index(leaf), self.leaves.index(paid)
        consistency = {size: tree.consistency(size) for size in range(1, tree.size)}
        return Invitation(
            body, key, signature, release, attempt, until, index, tree.inclusion(index), note,
            charge, charged, tree.inclusion(charged), self.budgets(), consistency, b"",
        )  # fmt: skip

    def budgets(self, population: str = POPULATION, at: datetime = START) -> bytes:
        """Return a population's budgets, larger than any test spends, as the authority signs them."""
        policy = LedgerPolicy(*(Fraction(10**6) for _ in BUDGETS))
        return encode_row(budgets.sign(Declaration(population, "zcdp", policy, at), self.authority.key))

    def note(self, at: datetime) -> bytes:
        """Return the log's checkpoint, signed and cosigned."""
        tree = Tree(self.leaves)
        note = log.sign(tree.size, tree.root, self.log_key)
        return note + log.cosign(note, None, (), self.log_key.public_key(), self.witness_key, at)

    def witness(self) -> Witness:
        """Return the witness of rosters."""
        authority, journal = self.authority.public_key, self.folder / "witness"
        return Witness(self.witness_key, authority, journal, raw(self.log_key), lambda: NOW)


@dataclass
class Time:
    """The device's clock, set by the test. `running` moves on with it."""

    now: datetime = NOW

    def clock(self) -> Clock:
        """Return the clock to inject."""
        return Clock(lambda: self.now, lambda: self.now.timestamp())


@dataclass
class Setup:
    """One device: its store's file, its terms, its clock and its conditions."""

    world: World
    path: Path
    time: Time
    terms: Terms
    conditions: Conditions = READY

    def store(self) -> Store:
        """Open the store."""
        return Store.open(self.path, KEY, RULES, self.time.now)

    def device(self) -> StoredDevice:
        """Open the store and return the device, as after a restart."""
        store = self.store()
        return StoredDevice(
            store, self.terms, Records(store).identity(), lambda now: self.conditions, self.time.clock()
        )


BUDGET = Budget(Fraction(1), timedelta(days=28), timedelta(0))
POLICY = Policy(
    plans_a_day=100,
    time_a_day=timedelta(days=1),
    min_cohort=3,
    central_noise=True,
    single_vectors=True,
    reply_after=timedelta(0),
)


def make_setup(
    folder: Path, world: World, budget: Budget = BUDGET, policy: Policy = POLICY, consent: bool = True
) -> Setup:
    """Make a store with an enrolled device, some wake events of the last days, and consent to use them."""
    setup = Setup(world, folder / "store.db", Time(), Terms(budget, policy, world.pins()))
    database.create(setup.path, KEY)
    store = setup.store()
    records = Records(store)
    with store.transaction(NOW):
        public = records.key().public_key().public_bytes_raw()
        records.certify(world.authority.certify(public, POPULATION))
    store.set_facts({"accent": "en-GB"}, NOW)
    if consent:
        store.grant("quality_metrics", NOW + timedelta(days=365), NOW)
        store.record("wake_events", [wake(hours) for hours in range(1, 21)], "quality_metrics", NOW)
    store.close()
    return setup


def wake(hours_ago: float, **changes: object) -> dict[str, object]:
    """Return a wake event; every fourth hour's was missed."""
    missed = int(hours_ago) % 4 == 0
    event: dict[str, object] = {
        "time": NOW - timedelta(hours=hours_ago),
        "wake_word": "okay_nabu",
        "model_version": "micro-1",
        "score": 0.25 if missed else 0.75,
        "accepted": not missed,
        "outcome": "false_reject" if missed else "true_accept",
        "label_source": "retry" if missed else "follow_up",
        "snr_db": 12.5,
        "playback": False,
    }
    return {**event, **changes}


Replies = dict[Stage, bytes]


def drive(
    world: World,
    plan: Plan,
    device: Device,
    invitation: Invitation,
    others: int = 4,
    liars: Mapping[int, type[DeviceParty]] = MappingProxyType({}),
) -> tuple[Result, dict[Stage, tuple[bytes, bytes]]]:
    """Run a round of one device among `others` that add nothing; return the sum, and what was sent each way.

    `liars` are those of the others that are of another kind. Raises Declined where the device does, and
    RuntimeError where a complaint ended the attempt.
    """
    task = messages.read_join_request(invitation.request)
    secure = plan.privacy.secure_aggregation
    trust = Trust(world.authority.public_key, raw(world.witness_key), 3)
    kind = DeviceParty if secure else plain.DeviceParty

    def nothing(joined: int) -> Int64Array:
        return np.zeros(task.length, np.int64)

    bystanders = {
        number: liars.get(number, kind)(task, world.authority.enrol(POPULATION), trust, nothing)
        for number in range(1, others + 1)
    }
    server: Server | plain.Server = (
        Server(
            task,
            world.authority.public_key,
            world.witness(),
            range(others + 1),
            invitation.charge_proof.encode(),
        )
        if secure
        else plain.Server(task, world.authority.public_key, range(others + 1))
    )
    said: dict[Stage, tuple[bytes, bytes]] = {}
    while server.stage is not None:
        stage: Stage = server.stage.value  # type: ignore[assignment]
        requests: Mapping[int, bytes] = server.requests()
        asked = encode(invitation) if stage == "join" else requests[0]
        replies = {0: device.handle(stage, asked)}
        said[stage] = (asked, replies[0])
        for number, party in bystanders.items():
            if number not in requests:
                continue
            replies[number] = getattr(party, stage)(requests[number])
        server.receive(replies)
    return server.result, said


def reason_of(call: object) -> str:
    """Return why a call was declined, "" if it was not."""
    try:
        call()  # type: ignore[operator]
    except Declined as declined:
        return declined.reason.name
    return ""


def raw(key: Ed25519PrivateKey) -> bytes:
    """Return a key's public half, 32 bytes."""
    return key.public_key().public_bytes_raw()


def altered(invitation: Invitation, **changes: object) -> Invitation:
    """Return an invitation with fields changed and nothing signed anew."""
    return replace(invitation, **changes)  # type: ignore[arg-type]
