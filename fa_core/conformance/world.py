"""Everything but the device: a plan signer, a log and its witness, an authority, and invitations."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.canonical_json import canonical, utc_text
from fa_core.conformance.adapter import Json
from fa_core.merkle import Tree, leaf_hash
from fa_core.plan import Plan, from_canonical, parse
from fa_core.plan import canonical as canonical_plan
from fa_core.plan.signing import sign
from fa_core.privacy.ledger import BUDGETS, Policy
from fa_core.privacy.ledger_rows import Declaration
from fa_core.privacy.ledger_rows import encode as encode_row
from fa_core.secagg import Task, messages
from fa_core.secagg.identity import population_id
from fa_core.trust import budgets
from fa_core.trust import checkpoint as log
from fa_core.trust.enrolment import Authority
from fa_core.wire.agreement import task_of
from fa_core.wire.invitation import Invitation

NOW: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""When all of it happens: the device is told the time."""

SKEW: Final = timedelta(days=1)
POPULATION: Final = "homes"
RELEASE: Final = bytes(range(16))
DECLARED: Final = NOW - timedelta(days=400)

FIRST: Final = (b"the first entry", b"another", b"a third")
"""What stands in the log before a plan and its charge."""

PLAN: Final = """
apiVersion: fa/v1
kind: EvalPlan
metadata:
  {name: conformance, revision: 3, owner: devices, question: Does it count right?, expires: 2026-12-31}
source: wake_events
window: 7d
segments:
  accent: {device: accent, values: [en-US, en-GB]}
  playback: {event: playback, values: [true]}
group_by: [[], [accent], [playback]]
metrics:
  misses:
    kind: rate
    of: {outcome: false_reject}
    over: {outcome: [false_reject, true_accept]}
    group_by: [[], [accent]]
  wakes: {kind: rate_per_hour, of: {accepted: true}, max_hours: 2, max_per_hour: 2, group_by: [[]]}
  events: {kind: count, of: {}, group_by: [[playback]]}
  scores: {kind: histogram, field: score, edges: {from: 0, to: 1, bins: 5}, group_by: [[]]}
privacy: {epsilon: 2, max_events: 12, min_cohort: 3, dropout: 0.2, corrupt: 0.2}
"""
"""A plan that six devices can answer, and of which five cannot."""


def plan_of(text: str = PLAN, changes: Mapping[str, str] | None = None) -> Plan:
    """Return a plan of YAML text, in which each key of `changes` was replaced by its value."""
    for old, new in (changes or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    return parse(text.encode(), "plan.yaml", today=NOW.date(), policy=None)


def raw(key: Ed25519PrivateKey) -> bytes:
    """Return a key's public half, 32 bytes."""
    return key.public_key().public_bytes_raw()


def row_of(plan: Plan, release: bytes, until: datetime) -> Json:
    """Return the ledger's row that pays for a release, as JSON has it."""
    privacy = plan.privacy
    pure = privacy.accounting == "pure"
    cost = privacy.epsilon if pure else privacy.rho
    delta = Fraction(0) if pure else privacy.delta
    row = {
        "kind": "charge", "population": POPULATION, "family": plan.metadata.name, "release": release.hex(),
        "plan_hash": plan.hash, "currency": privacy.accounting, "cost": str(cost),
        "epsilon": str(privacy.epsilon), "delta": str(delta), "window_start": utc_text(until - plan.window),
        "window_end": utc_text(until), "at": utc_text(NOW),
    }  # fmt: skip
    return row if pure else row | {"alpha": str(privacy.alpha)}


@dataclass(frozen=True)
class World:
    """The keys of every role but the device's."""

    plan_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    log_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    witness_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    authority: Authority = field(default_factory=Authority.generate)

    def pins(self) -> Json:
        """Return what a device of this world trusts, as questions have it; times in seconds since 1970."""
        dates = {"first": seconds(NOW) - 86_400, "last": seconds(NOW) + 86_400}
        return {
            "plan_keys": [{"key": raw(self.plan_key).hex(), **dates}],
            "revoked": [],
            "log": raw(self.log_key).hex(),
            "witness": raw(self.witness_key).hex(),
            "authority": self.authority.public_key.hex(),
            "skew": int(SKEW.total_seconds()),
        }

    def declared(self, population: str = POPULATION, most: Fraction = Fraction(10)) -> bytes:
        """Return a population's budgets, as the authority signs them."""
        policy = Policy(*(most for _ in BUDGETS))
        return encode_row(budgets.sign(Declaration(population, "zcdp", policy, DECLARED), self.authority.key))

    def note(self, tree: Tree, at: datetime = NOW, log_key: Ed25519PrivateKey | None = None) -> bytes:
        """Return the checkpoint of a tree, signed by the log (or another key) and cosigned."""
        signer = log_key or self.log_key
        note = log.sign(tree.size, tree.root, signer)
        return note + log.cosign(note, None, (), signer.public_key(), self.witness_key, at)

    def invite(self, asked: "Asked") -> Invitation:
        """Log a plan and its charge, and return the invitation."""
        key = raw(self.plan_key)
        signature = asked.signature or sign(asked.plan, self.plan_key)
        charge = log.entry("ledger", canonical({"hash": "00" * 32, "row": asked.row, "seq": 0}))
        entries = (*FIRST, log.plan_entry(asked.plan, key, signature), charge)
        tree = Tree([leaf_hash(each) for each in entries])
        note = self.note(tree)
        return Invitation(
            asked.plan, key, signature, asked.release, asked.attempt, asked.until, 3, tree.inclusion(3), note,
            charge, 4, tree.inclusion(4), self.declared(), {size: tree.consistency(size) for size in (1, 3)},
            messages.join_request(asked.task(note, charge)),
        )  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What an invitation asks: canonical plan, ledger row, window's end. `readable` stands in for a plan that
    is none, where the task is made."""

    plan: bytes
    row: Json
    until: datetime = NOW
    release: bytes = RELEASE
    attempt: int = 0
    signature: bytes = b""
    readable: bytes = b""

    @classmethod
    def of(cls, plan: Plan, release: bytes = RELEASE, until: datetime = NOW) -> "Asked":
        """Ask for a plan, rightly charged."""
        return cls(canonical_plan(plan), row_of(plan, release, until), until, release)

    def paying(self, **changes: Any) -> "Asked":
        """Return the same with keys of the ledger's row changed."""
        return replace(self, row={**self.row, **changes})

    def task(self, note: bytes, charge: bytes) -> Task:
        """Return the task of the round."""
        plan = from_canonical(self.readable or self.plan)
        proofs = (note, charge)
        return task_of(plan, self.release, self.attempt, self.until, population_id(POPULATION), proofs)[1]


def seconds(moment: datetime) -> int:
    """Return whole seconds since 1970."""
    return int(moment.timestamp())


def question(world: World, invitation: bytes, **changes: Any) -> Json:
    """Return the question whether an invitation is to be believed, by a device that saw nothing before."""
    return {
        "op": "invitation",
        "invitation": invitation.hex(),
        "pins": world.pins(),
        "population": population_id(POPULATION).hex(),
        "seen": {"size": 0, "root": "", "latest": None, "first": None},
        "revision": 0,
        "now": seconds(NOW),
        **changes,
    }


def as_json(plan: Plan) -> Any:
    """Return a plan's canonical form as JSON values."""
    return json.loads(canonical_plan(plan))
