"""An invitation with one fault for each check that a device makes before it joins, and with none."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256

from fa_core.canonical_json import canonical, utc_text
from fa_core.conformance.adapter import Json
from fa_core.conformance.world import FIRST, NOW, SKEW, Asked, World, as_json, plan_of, question, seconds
from fa_core.merkle import Tree, leaf_hash
from fa_core.metrics import exact_text
from fa_core.plan import Plan
from fa_core.plan import canonical as canonical_plan
from fa_core.trust import checkpoint as log
from fa_core.wire.invitation import Invitation, encode, fields_of, pack, unpack

TOO_LARGE = {
    "kind: histogram, field: score, edges: {from: 0, to: 1, bins: 5}": "kind: ratio, source: "
    "dictation_events, of: word_errors, over: words, expect: 0.001, max_of: 10000, max_over: 10000",
}
"""A device of this plan may add more than any ring holds of 100,000."""


@dataclass(frozen=True)
class Fault:
    """A question about an invitation, and the reason for which it is to be refused; "" for a good one."""

    name: str
    ask: Json
    reason: str


@dataclass(frozen=True)
class _About:
    """Makes questions about the good invitation, or about another."""

    world: World
    good: Invitation

    def __call__(
        self, name: str, reason: str, found: Invitation | bytes | None = None, **changes: object
    ) -> Fault:
        invitation = self.good if found is None else found
        data = invitation if isinstance(invitation, bytes) else encode(invitation)
        return Fault(name, question(self.world, data, **changes), reason)


def faults(world: World, plan: Plan, other: World) -> Iterator[Fault]:
    """Yield a good invitation and every faulty one. `other` has keys that the device does not trust."""
    asked = Asked.of(plan)
    good = world.invite(asked)
    about = _About(world, good)
    yield about("a good invitation", "")
    yield from _malformed(about, good, world, asked)
    yield from _signed(about, good, world, asked, plan)
    yield from _logged(about, good, world, other)
    yield from _charged(about, good, world, other, asked)
    yield from _seen(about, good, world, plan)


def _malformed(about: _About, good: Invitation, world: World, asked: Asked) -> Iterator[Fault]:
    data, fields = encode(good), fields_of(good)
    yield about("another magic", "MALFORMED", b"unheard-invitation-2\n" + data[21:])
    yield about("cut off", "MALFORMED", data[:-1])
    yield about("a byte behind the stream", "MALFORMED", data + b"\0")
    yield about("a byte behind the fields", "MALFORMED", pack(unpack(data) + b"\0"))
    yield about("a field cut off", "MALFORMED", pack(fields[:-1]))
    proofs = b"".join(
        size.to_bytes(8, "big") + len(proof).to_bytes(4, "big") + b"".join(proof)
        for size, proof in sorted(good.consistency.items())
    )
    swapped = b"".join(
        size.to_bytes(8, "big") + len(proof).to_bytes(4, "big") + b"".join(proof)
        for size, proof in sorted(good.consistency.items(), reverse=True)
    )
    yield about("earlier checkpoints out of order", "MALFORMED", pack(fields.replace(proofs, swapped)))
    spaced = asked.plan.replace(b'"kind"', b' "kind"', 1)
    yield about("a plan that is not canonical", "MALFORMED", world.invite(_other_plan(asked, spaced)))


def _other_plan(asked: Asked, plan: bytes) -> Asked:
    """Return the same with other bytes for a plan, charged under their hash."""
    hashed = asked.paying(plan_hash=sha256(plan).hexdigest())
    return replace(hashed, plan=plan, readable=asked.plan)


def _signed(about: _About, good: Invitation, world: World, asked: Asked, plan: Plan) -> Iterator[Fault]:
    pins = world.pins()
    key = pins["plan_keys"][0]
    flipped = bytes([good.signature[0] ^ 1]) + good.signature[1:]
    yield about(
        "a signature that does not hold", "SIGNATURE", world.invite(replace(asked, signature=flipped))
    )
    yield about("a revoked key", "REVOKED", pins=pins | {"revoked": [key["key"]]})
    yield about("a key that is not pinned", "SIGNATURE", pins=pins | {"plan_keys": []})
    over = {**key, "last": seconds(NOW)}
    yield about("a key whose time is over", "SIGNATURE", pins=pins | {"plan_keys": [over]})
    early = {**key, "first": seconds(NOW) + 1}
    yield about("a key whose time has not begun", "SIGNATURE", pins=pins | {"plan_keys": [early]})
    body = as_json(plan)
    body["privacy"]["rho"] = exact_text(2 * Fraction(body["privacy"]["rho"]))
    yield about("a rho that implies less", "COST", world.invite(_other_plan(asked, canonical(body))))


def _logged(about: _About, good: Invitation, world: World, other: World) -> Iterator[Fault]:
    checked = log.parse(good.checkpoint)
    alone, cosigned = log.sign(checked.size, checked.root, world.log_key), good.checkpoint
    line = log.cosign(alone, None, (), world.log_key.public_key(), other.witness_key, NOW)
    yield about("no cosignature", "NOT_LOGGED", replace(good, checkpoint=alone))
    yield about("another witness", "NOT_LOGGED", replace(good, checkpoint=alone + line))
    foreign = log.sign(checked.size, checked.root, other.log_key)
    signature = cosigned[len(alone) :]
    yield about("another log", "NOT_LOGGED", replace(good, checkpoint=foreign + signature))
    path = (bytes(32), *good.inclusion[1:])
    yield about("a plan that is not in the log", "NOT_LOGGED", replace(good, inclusion=path))
    yield about("another index of the plan", "NOT_LOGGED", replace(good, index=2))


def _charged(about: _About, good: Invitation, world: World, other: World, asked: Asked) -> Iterator[Fault]:
    def paying(name: str, **changes: str) -> Fault:
        return about(name, "NOT_CHARGED", world.invite(asked.paying(**changes)))

    yield paying("a charge of another release", release=bytes(16).hex())
    yield paying("a charge of another plan", plan_hash=bytes(32).hex())
    yield paying("a charge of another population", population="offices")
    yield paying("a charge of another plan family", family="another")
    yield paying("a charge that is not implied", cost=str(Fraction(asked.row["cost"]) * 2))
    yield paying("a charge for less than the plan costs", cost=str(Fraction(asked.row["cost"]) / 2))
    yield paying("a charge for another epsilon", epsilon=str(Fraction(asked.row["epsilon"]) + 1))
    yield paying("a charge with an open fraction", cost=f"{2 * Fraction(asked.row['cost']).numerator}/"
                 f"{2 * Fraction(asked.row['cost']).denominator}")  # fmt: skip
    yield paying("a charge of another window", window_end=utc_text(NOW + timedelta(hours=1)))
    path = (bytes(32), *good.charge_inclusion[1:])
    yield about("a charge that is not in the log", "NOT_CHARGED", replace(good, charge_inclusion=path))
    yield about("budgets of another authority", "NOT_CHARGED", replace(good, budgets=other.declared()))
    foreign = world.declared("offices")
    yield about("budgets of another population", "NOT_CHARGED", replace(good, budgets=foreign))
    small = world.declared(most=Fraction(1, 1000))
    yield about("a charge over what a release may cost", "NOT_CHARGED", replace(good, budgets=small))


def _seen(about: _About, good: Invitation, world: World, plan: Plan) -> Iterator[Fault]:
    now, skew = seconds(NOW), int(SKEW.total_seconds())
    before = Tree([leaf_hash(each) for each in FIRST])
    seen = {"size": before.size, "root": before.root.hex(), "latest": now, "first": now - 10}
    yield about("after an earlier checkpoint", "", seen=seen)
    yield about("a log that forked", "LOG_FORKED", seen=seen | {"root": bytes(32).hex()})
    yield about("a log that is not shown to extend", "LOG_FORKED", seen=seen | {"size": 2})
    yield about("clocks a skew apart", "", now=now + skew, pins=_longer(world))
    yield about("clocks further apart", "CLOCK", now=now + skew + 1, pins=_longer(world))
    yield about("a witness's time of long ago", "CLOCK", seen=seen | {"latest": now + skew + 1})
    expired = plan_of(changes={"2026-12-31": "2026-03-02"})
    tomorrow = seconds(NOW) + 43_200
    yield about("the last day of a plan", "", world.invite(Asked.of(expired)))
    yield about("a plan that has expired", "EXPIRED", world.invite(Asked.of(expired)), now=tomorrow)
    yield about("a newer revision was seen", "REVISION", revision=plan.metadata.revision + 1)
    half, late = NOW + timedelta(minutes=30), NOW + SKEW + timedelta(hours=1)
    for name, until in (("a window of half an hour", half), ("a window in the future", late)):
        yield about(name, "WINDOW", world.invite(Asked.of(plan, until=until)))
    summed = replace(
        Asked.of(plan_of(changes={"min_cohort: 3": "min_cohort: 3, sum: two_aggregators"})),
        readable=canonical_plan(plan),
    )
    yield about("a plan that two aggregators sum", "SUM", world.invite(summed))
    large = plan_of(changes=TOO_LARGE)
    unmade = replace(Asked.of(large), readable=canonical_plan(plan))
    yield about("a plan that no ring holds", "LIMITS", world.invite(unmade))


def _longer(world: World) -> Json:
    """Return pins whose plan key holds for longer than a skew."""
    pins = world.pins()
    longer = {**pins["plan_keys"][0], "last": seconds(NOW) + 10 * 86_400}
    return pins | {"plan_keys": [longer]}
