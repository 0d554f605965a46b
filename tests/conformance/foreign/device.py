"""A device that shares no code with the package, behind the adapter protocol of docs/conformance.md.

It was written from docs/device-protocol.md and docs/protocol.md with the standard library and `cryptography`.
Run it: `fa conformance -- python tests/conformance/foreign/device.py`. It keeps nothing on disk, has no owner
and no store: what an owner decides is outside of what it shows.
"""

import json
import struct
import sys
from collections.abc import Callable
from datetime import UTC
from fractions import Fraction
from typing import Any

from circuit import circuit_of
from counting import Draws, counters_of, vector_of, window_seconds
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from party import Party
from plan import Plan, implied, layout_of, own_cost, plan_of, sent, shares_of, task_of, total_cost
from proof import sharded
from report import Task, body_hash, offered, report_of, signature_of, withdrawal_of
from rollout import Rollouts
from wire import (
    Invitation,
    Refused,
    budgets_of,
    canonical,
    charge_of,
    checkpoint,
    extends,
    included,
    label,
    leaf_of,
    lowest,
    number,
    row_number,
    sha,
    verifies,
)

Json = dict[str, Any]
DAY = 86_400


def plan_entry(plan: bytes, key: bytes, signature: bytes) -> bytes:
    body = {"key": key.hex(), "plan": plan.decode(), "signature": signature.hex()}
    return b"unheard-log-1\nplan\n" + canonical(body)


# Answers to single questions


def hello(ask: Json) -> Json:
    return {"name": "the plain device of the tests", "protocol": 1}


def plan(ask: Json) -> Json:
    data = ask["plan"].encode()
    plan_of(data)
    key, signature = bytes.fromhex(ask["key"]), bytes.fromhex(ask["signature"])
    if not verifies(key, signature, b"unheard-plan-1\n" + data):
        raise Refused("SIGNATURE")
    return {"hash": sha(data).hex(), "leaf": leaf_of(plan_entry(data, key, signature)).hex()}


def layout(ask: Json) -> Json:
    read = plan_of(ask["plan"].encode())
    found = layout_of(read)
    blocks = [
        {
            "metric": b.metric, "grouping": list(b.grouping), "part": b.part, "start": b.start, "cells": b.cells,
            "l1": str(b.l1), "l2_squared": str(b.l2_squared), "linf": str(b.linf), "cost": lowest(b.cost),
        }
        for b in found.blocks
    ]  # fmt: skip
    total = sum((b.cost for b in found.blocks), Fraction(0))
    return {"length": found.length, "bits": found.bits, "cost": lowest(total), "blocks": blocks}


def cost(ask: Json) -> Json:
    return {"rho": lowest(own_cost(plan_of(ask["plan"].encode())))}


def count(ask: Json) -> Json:
    read = plan_of(ask["plan"].encode())
    draws = Draws(draws_of(ask))
    return {
        "vector": vector_of(read, layout_of(read), ask["until"], ask["tables"], ask["facts"], draws)
    }  # fmt: skip


def noise(ask: Json) -> Json:
    read = plan_of(ask["plan"].encode())
    h, shares = shares_of(read, layout_of(read), ask["joined"])
    return {"h": h, "shares": [{"factor": s, "variance": lowest(variance)} for s, variance in shares]}


def budget(ask: Json) -> Json:
    local, witnessed, latest, age = (ask[key] for key in ("local", "witnessed", "latest", "age"))
    earliest, window, settle = min(local, witnessed), ask["window"], ask["settle"]
    counted = [each for each in ask["charges"] if each["at"] > earliest - window - age]
    spent = sum((row_number(each["rho"]) for each in counted), Fraction(0))
    return {
        "agrees": abs(local - witnessed) <= age and witnessed + age >= latest,
        "timestamp": max(local, witnessed, latest),
        "spent": lowest(spent),
        "affords": spent + row_number(ask["rho"]) <= row_number(ask["budget"]),
        "settled": not settle or earliest >= ask["first"] + settle + age,
    }


def gateway(ask: Json) -> Json:
    identity = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(ask["identity"]))
    digest = sha(bytes.fromhex(ask["body"]))
    timestamp = str(ask["timestamp"])
    fields = [ask[key].encode() for key in ("audience", "method", "target")] + [timestamp.encode(), digest]
    message = label("gateway request") + b"".join(struct.pack(">I", len(each)) + each for each in fields)
    device = identity.public_key().public_bytes_raw().hex()
    parts = ("Unheard", device, ask["certificate"], timestamp, digest.hex(), identity.sign(message).hex())
    return {"authorization": " ".join(parts)}


def invitation(ask: Json) -> Json:
    found = believed(Invitation(bytes.fromhex(ask["invitation"])), ask)
    return {
        "hash": sha(canonical(found["plan"])).hex(), "task": found["task"].hex(),
        "session": sha(label("task") + found["task"]).hex(), "timestamp": found["timestamp"],
    }  # fmt: skip


def task(ask: Json) -> Json:
    found = collection(Invitation(bytes.fromhex(ask["invitation"])), ask)
    return {"task": found["task"].id.hex()}


def report(ask: Json) -> Json:
    """A report of given secrets and with a given box; what is in the box, by the helper's private key."""
    read, task = plan_of(ask["plan"].encode()), Task(ask["task"].encode())
    circuit = circuit_of(read, tallies_of(read, ask, Draws(draws_of(ask))))
    identity = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(ask["identity"]))
    device, number = identity.public_key().public_bytes_raw(), bytes.fromhex(ask["id"])
    box = bytes.fromhex(ask["box"])
    shares = sharded(circuit, task.id, number, bytes.fromhex(ask["random"]))
    digest = body_hash(number, device, shares.public, box, shares.leader)
    return {
        "elements": sha(b"".join(x.to_bytes(8, "little") for x in circuit.elements)).hex(),
        "gates": len(circuit.gates), "public": shares.public.hex(), "leader": sha(shares.leader).hex(),
        "helper": shares.helper.hex(), "body": digest.hex(),
        "signature": signature_of(identity, task.id, "report", digest).hex(),
    }  # fmt: skip


def draws_of(ask: Json) -> dict[str, list[int]]:
    return {purpose: [int(each) for each in drawn] for purpose, drawn in ask["draws"].items()}


def tallies_of(read: Plan, ask: Json, draws: Draws) -> Callable[[str, list[str]], list[Any]]:
    counters = counters_of(read, ask["until"], ask["tables"], ask["facts"], draws)
    return lambda name, grouping: counters[name].tallies(grouping)


def withdrawal(ask: Json) -> Json:
    identity = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(ask["identity"]))
    facts = (bytes.fromhex(ask["task"]), bytes.fromhex(ask["id"]))
    return {"withdrawal": withdrawal_of(*facts, identity, bytes.fromhex(ask["certificate"])).hex()}


# What is checked at `join` and `report`


def believed(asked: Invitation, ask: Json) -> Json:
    """The checks 1 to 14 of docs/device-protocol.md, for `join`. `ask`: pins, population, seen, revision, now."""
    found = believed_plan(asked, ask)
    if two_aggregators(found["plan"]):
        raise Refused("SUM")
    laid_out(found)
    facts = (asked.release, asked.attempt, asked.until, bytes.fromhex(ask["population"]))
    task = task_of(found["plan"], found["layout"], facts, [asked.checkpoint, asked.charge])
    return {**found, "task": task}


def collection(asked: Invitation, ask: Json) -> Json:
    """The same for `report`, and the checks of the offer."""
    found = believed_plan(asked, ask)
    if not two_aggregators(found["plan"]):
        raise Refused("SUM")
    laid_out(found)
    population = bytes.fromhex(ask["population"])
    return {**found, "task": offered(asked, found, ask["pins"], population, ask["now"])}


def two_aggregators(read: Plan) -> bool:
    return read["kind"] == "EvalPlan" and read["privacy"].get("sum") == "two_aggregators"


def laid_out(found: Json) -> None:
    found["layout"] = layout_of(found["plan"])
    covers(found["charge"], found["plan"])


def believed_plan(asked: Invitation, ask: Json) -> Json:
    """The checks 1 to 12."""
    pins, now = ask["pins"], ask["now"]
    key = asked.key.hex()
    if key in pins["revoked"]:
        raise Refused("REVOKED")
    dated = [pin for pin in pins["plan_keys"] if pin["key"] == key and pin["first"] <= now < pin["last"]]
    if not dated or not verifies(asked.key, asked.signature, b"unheard-plan-1\n" + asked.plan):
        raise Refused("SIGNATURE")
    read = plan_of(asked.plan)
    log, witness, authority = (bytes.fromhex(pins[name]) for name in ("log", "witness", "authority"))
    try:
        size, root, witnessed = checkpoint(asked.checkpoint, log, witness)
    except (ValueError, IndexError):
        raise Refused("NOT_LOGGED") from None
    entry = plan_entry(asked.plan, asked.key, asked.signature)
    if not included(leaf_of(entry), asked.index, size, asked.inclusion, root):
        raise Refused("NOT_LOGGED")
    charge = charged(asked, read, size, root, authority, bytes.fromhex(ask["population"]))
    seen, skew = ask["seen"], pins["skew"]
    if seen["size"]:
        proof = [] if seen["size"] == size else asked.consistency.get(seen["size"], [])
        if not extends(seen["size"], size, bytes.fromhex(seen["root"]), root, proof):
            raise Refused("LOG_FORKED")
    latest = max(witnessed, witnessed if seen["latest"] is None else seen["latest"])
    if abs(now - witnessed) > skew or witnessed + skew < latest:
        raise Refused("CLOCK")
    timestamp = max(now, witnessed, latest)
    if day_of(timestamp) > read["metadata"]["expires"]:
        raise Refused("EXPIRED")
    if read["metadata"]["revision"] < ask["revision"]:
        raise Refused("REVISION")
    if asked.until % 3600 or asked.until > now + skew:
        raise Refused("WINDOW")
    return {"plan": read, "charge": charge, "size": size, "root": root, "timestamp": timestamp}


def day_of(seconds: int) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def charged(
    asked: Invitation, read: Plan, size: int, root: bytes, authority: bytes, population: bytes
) -> Json:
    """The charge of the release, or Refused: its eight checks."""
    try:
        charge = charge_of(asked.charge)
        budgets = budgets_of(asked.budgets, authority)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused("NOT_CHARGED") from None
    pure = charge["currency"] == "pure"
    implies = charge["cost"] <= charge["epsilon"] if pure else charge["alpha"] is not None and implied(
        charge["cost"], charge["alpha"], charge["epsilon"], charge["delta"]
    )  # fmt: skip
    window = (asked.until - window_seconds(read), asked.until)
    if not (
        charge["release"] == asked.release.hex()
        and charge["plan_hash"] == sha(asked.plan).hex()
        and sha(label("population") + charge["population"].encode()) == population
        and included(leaf_of(asked.charge), asked.charge_index, size, asked.charge_inclusion, root)
        and (budgets["population"], budgets["currency"]) == (charge["population"], charge["currency"])
        and implies
        and (not pure or charge["alpha"] is None)
        and charge["cost"] <= row_number(budgets["policy"]["release"])
        and (charge["window_start"], charge["window_end"]) == tuple(each * 1_000_000 for each in window)
    ):
        raise Refused("NOT_CHARGED")
    return charge


def covers(charge: Json, read: Plan) -> None:
    privacy = read["privacy"]
    pure = privacy["accounting"] == "pure"
    own = (
        privacy["accounting"], total_cost(read), number(privacy["epsilon"]),
        Fraction(0) if pure else number(privacy["delta"]), None if pure else number(privacy["alpha"]),
        read["metadata"]["name"],
    )  # fmt: skip
    if own != tuple(charge[key] for key in ("currency", "cost", "epsilon", "delta", "alpha", "family")):
        raise Refused("NOT_CHARGED")


# A device in rounds


class Device:
    """Opened with a task and what it adds, or with pins and rows: then the first request is an invitation."""

    def __init__(self, ask: Json) -> None:
        self.ask = ask
        self.identity = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(ask["identity"]))
        self.certificate = bytes.fromhex(ask["certificate"])
        self.party: Party | None = None
        self.joined: tuple[bytes, bytes] | None = None
        self.answered: list[tuple[str, int, int]] = []
        self.reports: dict[bytes, tuple[bytes, bytes]] = {}
        self.consents = True
        if "task" in ask:
            secrets = ask.get("secrets", {})
            given = {
                key: value if key == "shares" else bytes.fromhex(value) for key, value in secrets.items()
            }
            trust = {
                "authority": bytes.fromhex(ask["authority"]), "witness": bytes.fromhex(ask["witness"]),
                "min_cohort": ask["min_cohort"],
            }  # fmt: skip
            self.party = Party(
                self.identity, self.certificate, trust, bytes.fromhex(ask["task"]),
                lambda joined: ask["contribution"], given,
            )  # fmt: skip

    def answer(self, stage: str, request: bytes) -> bytes:
        if stage == "report":
            return self._report(request)
        if "pins" in self.ask and stage == "join":
            return self._invited(request)
        if self.party is None:
            raise Refused("out_of_order")
        return self.party.answer(stage, request)

    def _of_this_device(self) -> Json:
        return {**self.ask, "population": self.certificate[:32].hex()}

    def _report(self, request: bytes) -> bytes:
        asked = Invitation(request)
        found = collection(asked, self._of_this_device())
        task = found["task"]
        if task.id not in self.reports:
            if not self.consents:
                raise Refused("CONSENT")
            window = self._window(asked, found["plan"])
            if Fraction(task.kappa) < Fraction(self.ask["min_kappa"]):
                raise Refused("LIMITS")
            tallies = tallies_of(found["plan"], {**self.ask, "until": asked.until}, Draws({}))
            made = report_of(task, circuit_of(found["plan"], tallies), self.identity, self.certificate)
            taken = withdrawal_of(task.id, made[:16], self.identity, self.certificate)
            self.answered.append(window)
            self.reports[task.id] = made, taken
        made, taken = self.reports[task.id]
        return made if self.consents else taken

    def _window(self, asked: Invitation, read: Plan) -> tuple[str, int, int]:
        """Plan family and window. Refused where one that overlaps was answered."""
        name, start = read["metadata"]["name"], asked.until - window_seconds(read)
        if any(name == n and a < asked.until and start < b for n, a, b in self.answered):
            raise Refused("WINDOW")
        return name, start, asked.until

    def _invited(self, request: bytes) -> bytes:
        if self.joined is not None and self.joined[0] == request:
            return self.joined[1]
        asked = Invitation(request)
        found = believed(asked, self._of_this_device())
        window = self._window(asked, found["plan"])
        if asked.attempt >= 4:
            raise Refused("LIMITS")
        pins = self.ask["pins"]
        trust = {
            "authority": bytes.fromhex(pins["authority"]), "witness": bytes.fromhex(pins["witness"]),
            "min_cohort": self.ask["min_cohort"],
        }  # fmt: skip
        counts = vector_of(
            found["plan"], found["layout"], asked.until, self.ask["tables"], self.ask["facts"], Draws({})
        )

        def contribute(joined: int) -> list[int]:
            vector = sent(found["plan"], found["layout"], counts, joined)
            self.answered.append(window)
            return vector

        party = Party(self.identity, self.certificate, trust, found["task"], contribute, {})
        reply = party.answer("join", asked.request)
        self.party, self.joined = party, (request, reply)
        return reply


class Adapter:
    """One question a line, one answer a line."""

    def __init__(self) -> None:
        self.device: Device | None = None
        self.followed: Rollouts | None = None

    def open(self, ask: Json) -> Json:
        self.device = Device(ask)
        return {"opened": True}

    def rollouts(self, ask: Json) -> Json:
        self.followed = Rollouts(ask)
        return {"opened": True}

    def publication(self, ask: Json) -> Json:
        assert self.followed is not None
        self.followed.take(ask["file"].encode(), ask["now"])
        assert self.followed.held is not None
        held = {key: self.followed.held[key] for key in ("state", "sequence")}
        return held | self.acts(ask)

    def acts(self, ask: Json) -> Json:
        assert self.followed is not None
        return {"acts": self.followed.acts(ask["now"])}

    def consent(self, ask: Json) -> Json:
        assert self.device is not None
        self.device.consents = ask["consent"]
        return {"consent": ask["consent"]}

    def answer(self, ask: Json) -> Json:
        assert self.device is not None
        return {"reply": self.device.answer(ask["stage"], bytes.fromhex(ask["request"])).hex()}

    def handle(self, ask: Json) -> Json:
        single = (
            hello, plan, layout, cost, count, noise, budget, gateway, invitation, task, report, withdrawal,
        )  # fmt: skip
        known: dict[str, Callable[[Json], Json]] = {each.__name__: each for each in single}
        own = (self.open, self.answer, self.consent, self.rollouts, self.publication, self.acts)
        known |= {each.__name__: each for each in own}
        if ask["op"] not in known:
            return {"unsupported": True}
        try:
            return known[ask["op"]](ask)
        except Refused as refused:
            return {"refused": str(refused)}


def main() -> None:
    adapter = Adapter()
    for line in sys.stdin:
        print(json.dumps(adapter.handle(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
