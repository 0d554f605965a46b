"""The package's own device behind the questions of the adapter protocol, in this process."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from hashlib import sha256
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from clients.device import receipt
from clients.device.interface import Declined
from clients.device.odometer import Budget, Charge, Moment, affords, settled, spent
from clients.device.records import Seen
from clients.device.trust import Believed, PinnedKey, Pins, believe, believe_offer
from clients.evaluate import Cohort, cohort_of_one, device_tallies, device_vectors
from clients.rollout import acting, belief
from fa_core.collection.report import Report, seal, withdraw
from fa_core.collection.task import Task as CollectionTask
from fa_core.conformance.rows import arrow_tables
from fa_core.errors import BadInput, Refused
from fa_core.layout import compile_plan, covers
from fa_core.merkle import leaf_hash
from fa_core.plan import Plan, UnsupportedRho, from_canonical
from fa_core.plan.signing import verify
from fa_core.prio.blocks import circuit, encode, prio
from fa_core.privacy.distributed import certain_shares, shares_of
from fa_core.publication import proofs
from fa_core.secagg import DeviceIdentity, DeviceParty, Refusal, Task, Trust
from fa_core.trust.checkpoint import plan_entry
from fa_core.trust.request_signing import Request, authorization, digest_of
from fa_core.values import Int64Array, Layout
from fa_core.wire.agreement import task_of
from fa_core.wire.invitation import Invitation, decode

Json = dict[str, Any]


class No(Exception):
    """The device refuses, with a code."""


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@lru_cache(maxsize=64)
def read(text: str) -> Plan:
    try:
        return from_canonical(text.encode())
    except UnsupportedRho:
        raise No("COST") from None
    except BadInput:
        raise No("MALFORMED") from None


def plan(ask: Json) -> Json:
    found, data = read(ask["plan"]), ask["plan"].encode()
    key, signature = bytes.fromhex(ask["key"]), bytes.fromhex(ask["signature"])
    if not verify(data, signature, key):
        raise No("SIGNATURE")
    return {"hash": found.hash, "leaf": leaf_hash(plan_entry(data, key, signature)).hex()}


def layout(ask: Json) -> Json:
    try:
        found = compile_plan(read(ask["plan"]))
    except BadInput:
        raise No("LIMITS") from None
    blocks = [
        {
            "metric": b.metric, "grouping": list(b.grouping), "part": b.part, "start": b.start, "cells": b.cells,
            "l1": str(b.l1), "l2_squared": str(b.l2_squared), "linf": str(b.linf), "cost": str(b.cost),
        }
        for b in found.blocks
    ]  # fmt: skip
    return {"length": found.length, "bits": found.modulus_bits, "cost": str(found.cost), "blocks": blocks}


def cost(ask: Json) -> Json:
    return {"rho": str(receipt.cost(compile_plan(read(ask["plan"]))))}


def given(draws: Mapping[str, list[str]]) -> Any:
    """The randomness that a vector gives, for one device; a draw that it does not give fails."""

    def of(cohort: Cohort) -> Any:
        def priorities(purpose: str, device: Any, ordinal: Any) -> Any:
            return np.array([int(draws[purpose][place]) for place in ordinal], np.uint64)

        return priorities

    return of


def count(ask: Json) -> Json:
    found, *rest = counted(ask)
    return {"vector": device_vectors(found, compile_plan(found), *rest)[0].tolist()}


def noise(ask: Json) -> Json:
    found = read(ask["plan"])
    privacy, joined = found.privacy, ask["joined"]
    try:
        h = certain_shares(joined, privacy.dropout, privacy.corrupt)
        shares = shares_of(compile_plan(found), joined, privacy.dropout, privacy.corrupt)
    except Refused:
        raise No("LIMITS") from None
    return {"h": h, "shares": [{"factor": s.scale, "variance": f"{float(s.variance):.17g}"} for s in shares]}


def budget(ask: Json) -> Json:
    local, witnessed, latest, first = (moment(ask[key]) for key in ("local", "witnessed", "latest", "first"))
    now = Moment(local, witnessed, latest, timedelta(seconds=ask["age"]))
    window, settle = (timedelta(seconds=ask[key]) for key in ("window", "settle"))
    owned = Budget(Fraction(ask["budget"]), window, settle)
    charges = [Charge(Fraction(each["rho"]), moment(each["at"])) for each in ask["charges"]]
    return {
        "agrees": now.agrees,
        "timestamp": int(now.timestamp.timestamp()),
        "spent": str(spent(charges, now, owned)),
        "affords": affords(charges, Fraction(ask["rho"]), now, owned),
        "settled": settled(first, now, owned),
    }


def gateway(ask: Json) -> Json:
    identity = identity_of(ask)
    request = Request(ask["method"], ask["target"], digest_of(bytes.fromhex(ask["body"])))
    return {"authorization": authorization(identity, ask["audience"], request, ask["timestamp"])}


def pins_of(said: Json) -> Pins:
    signers = tuple(
        PinnedKey("", bytes.fromhex(each["key"]), moment(each["first"]), moment(each["last"]))
        for each in said["plan_keys"]
    )
    keys = [bytes.fromhex(said[name]) for name in ("log", "witness", "authority")]
    revoked = frozenset(map(bytes.fromhex, said["revoked"]))
    helper = bytes.fromhex(said["helper"]) if "helper" in said else None
    return Pins(signers, revoked, *keys, timedelta(seconds=said["skew"]), helper)


def believed(ask: Json, sum_mode: str) -> tuple[Invitation, Believed, Layout]:
    """An invitation that is believed, with its plan's layout. `sum_mode`: how the plan's sum is asked for."""
    latest, first = (
        None if ask["seen"][key] is None else moment(ask["seen"][key]) for key in ("latest", "first")
    )
    seen = Seen(ask["seen"]["size"], bytes.fromhex(ask["seen"]["root"]), latest, first)
    population = bytes.fromhex(ask["population"])
    try:
        asked = decode(bytes.fromhex(ask["invitation"]))
    except BadInput:
        raise No("MALFORMED") from None
    try:
        found = believe(
            asked, pins_of(ask["pins"]), population, seen, lambda name: ask["revision"], moment(ask["now"])
        )
    except Declined as declined:
        raise No(declined.reason.name) from None
    if found.plan.privacy.sum != sum_mode:
        raise No("SUM")
    try:
        made = compile_plan(found.plan)
    except BadInput:
        raise No("LIMITS") from None
    if not covers(found.charge, found.plan, made):
        raise No("NOT_CHARGED")
    return asked, found, made


def invitation(ask: Json) -> Json:
    asked, found, _ = believed(ask, "four_stages")
    proofs, population = (asked.checkpoint, asked.charge), bytes.fromhex(ask["population"])
    _, task = task_of(found.plan, asked.release, asked.attempt, asked.until, population, proofs)
    return {
        "hash": found.plan.hash,
        "task": task.encode().hex(),
        "session": task.session.hex(),
        "timestamp": int(found.moment.timestamp.timestamp()),
    }


# Two aggregators


def task(ask: Json) -> Json:
    asked, found, made = believed(ask, "two_aggregators")
    pins, population, now = pins_of(ask["pins"]), bytes.fromhex(ask["population"]), moment(ask["now"])
    try:
        return {"task": believe_offer(asked, found.plan, made, pins, population, now).id.hex()}
    except Declined as declined:
        raise No(declined.reason.name) from None


def counted(ask: Json) -> tuple[Plan, Cohort, datetime, Any]:
    """What a device's counts are functions of."""
    cohort = cohort_of_one(ask["facts"], arrow_tables(ask["tables"]))
    return read(ask["plan"]), cohort, moment(ask["until"]), given(ask["draws"])


def elements_of(ask: Json) -> Int64Array:
    """What a device shares for the plan of a question, int64 (elements,)."""
    found = counted(ask)
    return np.asarray(encode(found[0], device_tallies(*found))[0])


def report(ask: Json) -> Json:
    found, elements = read(ask["plan"]), elements_of(ask)
    drawn = iter((bytes.fromhex(ask["id"]), bytes.fromhex(ask["random"])))
    box = bytes.fromhex(ask["box"])
    identity = identity_of(ask)

    class Sealing:
        @staticmethod
        def encrypt(plain: bytes, key: object, info: bytes) -> bytes:
            return box

    with (
        patch("fa_core.collection.report.token_bytes", lambda size: next(drawn)),
        patch("fa_core.collection.report.hpke.SUITE", Sealing),
    ):
        made = seal(CollectionTask.parse(ask["task"].encode()), prio(found), elements, identity)
    return {
        "elements": sha256(elements.astype("<i8").tobytes()).hexdigest(),
        "gates": len(circuit(found).system.gates),
        "public": made.public.hex(),
        "leader": sha256(made.leader).hexdigest(),
        "helper": bytes.fromhex(ask["random"])[:64].hex(),
        "body": made.body_hash.hex(),
        "signature": made.signature.hex(),
    }


def withdrawal(ask: Json) -> Json:
    """As `withdraw` makes it, for a task and a report of which the ids alone are known."""
    identity = identity_of(ask)
    task = cast(CollectionTask, SimpleNamespace(id=bytes.fromhex(ask["task"])))
    about = Report(bytes.fromhex(ask["id"]), identity.device, b"", b"", b"", identity.certificate, b"")
    return {"withdrawal": withdraw(task, about, identity).hex()}


def identity_of(ask: Json) -> DeviceIdentity:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(ask["identity"]))
    return DeviceIdentity(key, bytes.fromhex(ask["certificate"]))


@contextmanager
def drawing(secrets: Json) -> Any:
    """Have a party draw the secrets of a vector."""
    if not secrets:
        yield
        return
    private = iter(bytes.fromhex(secrets[name]) for name in ("share_private", "mask_private"))

    class Given:
        @staticmethod
        def generate() -> X25519PrivateKey:
            return X25519PrivateKey.from_private_bytes(next(private))

    with ExitStack() as stack:
        stack.enter_context(patch("fa_core.secagg.device.X25519PrivateKey", Given))
        seed, rows = bytes.fromhex(secrets["seed"]), np.array(secrets["shares"], np.uint32)
        stack.enter_context(patch("fa_core.secagg.device.token_bytes", lambda size: seed))
        stack.enter_context(patch("fa_core.secagg.device.shamir.share", lambda *rest: rows))
        yield


class Followed:
    """What a device knows of the rollouts for one wake word."""

    def __init__(self, ask: Json) -> None:
        self._pins, self._population = pins_of(ask["pins"]), bytes.fromhex(ask["population"])
        self._wake_word, self._secret = ask["wake_word"], bytes.fromhex(ask["secret"])
        log = proofs.Seen(ask["seen"]["size"], bytes.fromhex(ask["seen"]["root"]))
        self._known = belief.Known(log=log, shipped=frozenset(ask["shipped"]))

    def publication(self, ask: Json) -> Json:
        try:
            file, now = proofs.Publication.decode(ask["file"].encode()), moment(ask["now"])
            held = belief.believe(file, self._pins, self._population, self._wake_word, self._known, now)
        except (BadInput, Refused):
            raise No("ROLLOUT") from None
        self._known = self._known.after(held)
        return {"state": held.manifest.state, "sequence": held.manifest.sequence, **self.acts(ask)}

    def acts(self, ask: Json) -> Json:
        held = self._known.held
        assert held is not None
        both = (held.manifest.baseline, held.manifest.candidate)
        choice = acting.choose(held, acting.Here(self._secret, both, None, moment(ask["now"])), self._pins)
        return {"acts": ("baseline", "candidate")[both.index(cast(bytes, choice.acting))]}


class Product:
    """Answers as the package does; `ask` is what `fa_core.conformance.adapter.Device` asks for."""

    def __init__(self) -> None:
        self._followed: Followed | None = None
        self._party: DeviceParty | None = None
        self._secrets: Json = {}

    def ask(self, question: Json) -> Json:
        known: dict[str, Callable[[Json], Json]] = {
            each.__name__: each
            for each in (
                plan, layout, cost, count, noise, budget, gateway, invitation, task, report, withdrawal,
            )
        }  # fmt: skip
        known |= {"open": self.open, "answer": self.answer, "rollouts": self.rollouts}
        if self._followed is not None:
            known |= {"publication": self._followed.publication, "acts": self._followed.acts}
        try:
            return known[question["op"]](question)
        except No as no:
            return {"refused": str(no)}

    def rollouts(self, ask: Json) -> Json:
        self._followed = Followed(ask)
        return {"opened": True}

    def open(self, ask: Json) -> Json:
        identity = identity_of(ask)
        trust = Trust(bytes.fromhex(ask["authority"]), bytes.fromhex(ask["witness"]), ask["min_cohort"])
        vector = np.array(ask["contribution"], np.int64)
        self._party = DeviceParty(
            Task.decode(bytes.fromhex(ask["task"])), identity, trust, lambda joined: vector
        )
        self._secrets = ask.get("secrets", {})
        return {"opened": True}

    def answer(self, ask: Json) -> Json:
        try:
            with drawing(self._secrets):
                reply = getattr(self._party, ask["stage"])(bytes.fromhex(ask["request"]))
        except Refusal as refusal:
            raise No(refusal.reason.value) from None
        return {"reply": reply.hex()}
