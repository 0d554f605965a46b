"""Invitations to a collection of two aggregators: a good one, and one with a single fault for each check.

All of them stand in one log that grows: a device that keeps what it saw believes each after the other.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.canonical_json import canonical
from fa_core.collection.task import Task, label
from fa_core.conformance.adapter import Json
from fa_core.conformance.world import FIRST, NOW, POPULATION, Asked, World, raw, seconds
from fa_core.layout import compile_plan, layout_hash
from fa_core.merkle import Tree, leaf_hash
from fa_core.plan import Plan
from fa_core.plan.signing import sign
from fa_core.secagg.identity import population_id
from fa_core.trust import checkpoint as log
from fa_core.trust.charges import Round
from fa_core.trust.collection_request import CollectionRequest
from fa_core.trust.hpke import OpeningKey
from fa_core.wire.invitation import Invitation, encode

OPENS: Final = NOW - timedelta(hours=1)
CLOSES: Final = NOW + timedelta(hours=23)
SIGNERS: Final = ("leader", "helper", "witness")


@dataclass(frozen=True)
class Keys:
    """Of the aggregators, and a stranger's: `sealing` is the helper's for the shares of a task."""

    leader: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    helper: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    stranger: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    sealing: OpeningKey = field(default_factory=OpeningKey.generate)


@dataclass(frozen=True)
class Offered:
    """An invitation, and the reason for which it is to be declined; "" for a good one."""

    name: str
    invitation: bytes
    reason: str


@dataclass
class Offers:
    """Makes invitations of one plan in one log.

    Attributes:
        consistent: whether invitations prove that the log extends the checkpoints that were shown before.
        entries: of the log. published: its sizes at those checkpoints.
    """

    world: World
    keys: Keys
    plan: Plan
    consistent: bool = True
    entries: list[bytes] = field(default_factory=lambda: list(FIRST))
    published: set[int] = field(default_factory=set)

    def pins(self) -> Json:
        """Return what a device trusts, the helper among it."""
        return self.world.pins() | {"helper": raw(self.keys.helper).hex()}

    def asked(self, plan: Plan | None = None, **changes: Any) -> Asked:
        """Return a charged plan, this one unless another is given."""
        return replace(Asked.of(plan or self.plan), **changes)

    def task(self, asked: Asked, plan: Plan | None = None) -> Task:
        """Return the task that the helper makes for a charged plan."""
        plan = plan or self.plan
        return Task(
            plan=bytes.fromhex(plan.hash),
            layout=layout_hash(compile_plan(plan)),
            release=asked.release,
            population=population_id(POPULATION),
            charge=sha256(charge_entry(asked)).digest(),
            start=asked.until - plan.window,
            until=asked.until,
            opens=OPENS,
            closes=CLOSES,
            leader=raw(self.keys.leader),
            helper=raw(self.keys.helper),
            sealing=self.keys.sealing.public,
            least=plan.privacy.min_cohort,
            kappa=plan.privacy.kappa or Fraction(1, 4),
        )

    def offer(
        self, task: bytes, signers: Mapping[str, Ed25519PrivateKey] | None = None, *, logged: bool = True
    ) -> tuple[bytes, int]:
        """Return a signed task and its place in the log.

        Args:
            task: its bytes. signers: other keys than the right ones. logged: whether the log has it.
        """
        body = json.loads(task)
        about = Round(*(bytes.fromhex(body[key]) for key in ("release", "plan", "population")))
        bound = CollectionRequest(about, sha256(label("task") + task).digest(), b"").message()
        to_sign = label("task signature") + task
        keys = {"leader": self.keys.leader, "helper": self.keys.helper, "witness": self.world.witness_key}
        keys |= signers or {}
        signatures = {
            each: keys[each].sign(bound if each == "witness" else to_sign).hex() for each in SIGNERS
        }
        signed = canonical(signatures | {"task": task.decode(), "release": body["release"]})
        return self.logged(signed) if logged else (signed, 0)

    def logged(self, signed: bytes) -> tuple[bytes, int]:
        """Log what stands for a signed task; return it with its place."""
        self.entries.append(log.entry("task", signed))
        return signed, len(self.entries) - 1

    def invite(self, asked: Asked, signed: bytes, index: int, more: Mapping[str, Any] | None = None) -> bytes:
        """Log plan and charge, and return an invitation with this offer under a checkpoint of all that is
        logged.

        Args:
            more: what the offer says beside or otherwise.
        """
        key = raw(self.world.plan_key)
        signature = asked.signature or sign(asked.plan, self.world.plan_key)
        charge = charge_entry(asked)
        places = [self._logged(each) for each in (log.plan_entry(asked.plan, key, signature), charge)]
        tree = Tree([leaf_hash(each) for each in self.entries])
        offer = {"signed": signed.decode(), "index": index} | {"inclusion": _hexes(tree.inclusion(index))}
        invitation = Invitation(
            asked.plan, key, signature, asked.release, 0, asked.until, places[0], tree.inclusion(places[0]),
            self.world.note(tree), charge, places[1], tree.inclusion(places[1]), self.world.declared(),
            {size: tree.consistency(size) for size in sorted(self.published) if size < tree.size},
            canonical(offer | (dict(more) if more else {})),
        )  # fmt: skip
        if self.consistent:
            self.published.add(tree.size)
        return encode(invitation)

    def invite_to(self, task: Task, asked: Asked | None = None) -> bytes:
        """Return an invitation to a task that all three sign."""
        return self.invite(asked or self.asked(), *self.offer(task.encode()))

    def _logged(self, entry: bytes) -> int:
        if entry not in self.entries:
            self.entries.append(entry)
        return self.entries.index(entry)


def charge_entry(asked: Asked) -> bytes:
    """Return the log's entry of what a plan is charged."""
    return log.entry("ledger", canonical({"hash": "00" * 32, "row": asked.row, "seq": 0}))


def _hexes(path: Any) -> list[str]:
    return [each.hex() for each in path]


def faults(offers: Offers, in_stages: Plan) -> Iterator[Offered]:
    """Yield an invitation with one fault for each check of an offer.

    Args:
        in_stages: a plan of four stages.
    """
    yield from _of_another_form(offers)
    yield from _signed_otherwise(offers)
    yield from _about_another(offers)
    asked = offers.asked(in_stages)
    yield Offered("a plan of four stages", offers.invite_to(offers.task(asked, in_stages), asked), "SUM")


def _of_another_form(offers: Offers) -> Iterator[Offered]:
    asked = offers.asked()
    task = offers.task(asked).encode()
    signed, index = offers.offer(task)

    def made(name: str, invitation: bytes) -> Offered:
        return Offered(name, invitation, "COLLECTION")

    yield made("an offer with a key more", offers.invite(asked, signed, index, {"more": 1}))
    yield made(
        "an offer whose path is too long",
        offers.invite(asked, signed, index, {"inclusion": ["00" * 32] * 65}),
    )
    spaced = signed.replace(b'"helper"', b' "helper"', 1)
    yield made("a signed task with a space", offers.invite(asked, *offers.logged(spaced)))
    other = canonical(json.loads(signed) | {"release": "ff" * 16})
    named = offers.invite(asked, *offers.logged(other))
    yield made("a signed task that names another release", named)
    body = json.loads(task)
    small = body["sealing"][: 2 * 1184] + (1).to_bytes(32, "little").hex()
    for name, changes in {
        "a task of another version": {"version": 2},
        "a task with a key more": {"more": 1},
        "a kappa of 0": {"kappa": "0"},
        "a kappa above 1": {"kappa": "5/4"},
        "a kappa in an open fraction": {"kappa": "2/8"},
        "a least number of 1": {"least": 1},
        "a window that ends as it begins": {"closes": body["opens"]},
        "a sealing key of small order": {"sealing": small},
        "a sealing key that is cut off": {"sealing": body["sealing"][:-2]},
        "a version that is no number": {"version": True},
        "a hash that is cut off": {"charge": body["charge"][:-2]},
        "a hash in capitals": {"charge": body["charge"].upper()},
        "a time in the year 9000": {"closes": 221_845_392_000},
    }.items():
        yield made(name, offers.invite(asked, *offers.offer(canonical(body | changes))))
    spaced = task.replace(b'"charge"', b' "charge"', 1)
    yield made("a task with a space", offers.invite(asked, *offers.offer(spaced)))


def _signed_otherwise(offers: Offers) -> Iterator[Offered]:
    asked = offers.asked()
    task = offers.task(asked).encode()
    for role in SIGNERS:
        offer = offers.offer(task, {role: offers.keys.stranger})
        yield Offered(f"a task that the {role} did not sign", offers.invite(asked, *offer), "COLLECTION")
    stranger = replace(offers.task(asked), helper=raw(offers.keys.stranger))
    offer = offers.offer(stranger.encode(), {"helper": offers.keys.stranger})
    yield Offered("another helper than the pinned one", offers.invite(asked, *offer), "COLLECTION")
    sooner = replace(offers.task(asked), closes=CLOSES - timedelta(hours=1)).encode()
    absent = offers.invite(asked, *offers.offer(sooner, logged=False))
    yield Offered("a task that is not in the log", absent, "COLLECTION")
    signed, index = offers.offer(task)
    yield Offered(
        "another index of the task", offers.invite(asked, signed, index, {"index": index - 1}), "COLLECTION"
    )


def _about_another(offers: Offers) -> Iterator[Offered]:
    asked = offers.asked()
    right, hour = offers.task(asked), timedelta(hours=1)
    for name, task in {
        "a task of another plan": replace(right, plan=bytes(32)),
        "a task of another layout": replace(right, layout=bytes(32)),
        "a task of another release": replace(right, release=bytes(16)),
        "a task of another population": replace(right, population=bytes(32)),
        "a task of another charge": replace(right, charge=bytes(32)),
        "a task of another kappa": replace(right, kappa=Fraction(1, 2)),
        "a task of another least number": replace(right, least=right.least + 1),
        "a task of a longer window": replace(right, start=right.start - hour),
        "a task of another window": replace(right, start=right.start - hour, until=right.until - hour),
        "a collection that has not begun": replace(right, opens=NOW + timedelta(seconds=1)),
        "a collection that is over": replace(right, closes=NOW),
    }.items():
        yield Offered(name, offers.invite(asked, *offers.offer(task.encode())), "COLLECTION")


def question(offers: Offers, invitation: bytes) -> Json:
    """Return the question whether an invitation's offer is to be believed, by a device that saw nothing."""
    return {
        "op": "task",
        "invitation": invitation.hex(),
        "pins": offers.pins(),
        "population": population_id(POPULATION).hex(),
        "seen": {"size": 0, "root": "", "latest": None, "first": None},
        "revision": 0,
        "now": seconds(NOW),
    }
