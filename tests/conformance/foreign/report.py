"""The task of a collection, a device's report and its withdrawal. From docs/device-protocol.md, "Two aggregators"."""

import re
from fractions import Fraction
from secrets import token_bytes
from typing import Any

from circuit import Circuit
from counting import window_seconds
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite
from party import usable
from plan import Layout, Plan
from proof import sharded
from wire import Invitation, Refused, canonical, included, leaf_of, lowest, number, parsed, sha, verifies

Json = dict[str, Any]
MOST = 65_536
YEAR_9000 = 221_845_392_000
SIZES = {
    "plan": 32, "layout": 32, "release": 16, "population": 32, "charge": 32, "leader": 32, "helper": 32,
    "sealing": 1216,
}  # fmt: skip
TIMES = ("start", "until", "opens", "closes")
SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def clabel(use: str) -> bytes:
    return b"unheard/collection/1 " + use.encode() + b"\x00"


def object_of(data: bytes, keys: set[str]) -> Json:
    if len(data) > MOST:
        raise ValueError("too long")
    found = parsed(data)
    if not isinstance(found, dict) or set(found) != keys:
        raise ValueError("other keys")
    return found


def raw(text: Any, size: int) -> bytes:
    if not isinstance(text, str) or not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", text):
        raise ValueError("not so many bytes")
    return bytes.fromhex(text)


def whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError("not a whole number")
    return value


class Task:
    """Raises ValueError for any other bytes than a task's."""

    def __init__(self, data: bytes) -> None:
        body = object_of(data, {*SIZES, *TIMES, "version", "least", "kappa"})
        self.bytes, self.id = data, sha(clabel("task") + data)
        self.raw = {key: raw(body[key], size) for key, size in SIZES.items()}
        self.times = {key: whole(body[key]) for key in TIMES}
        if max(self.times.values()) >= YEAR_9000 or whole(body["version"]) != 1:
            raise ValueError("not possible")
        self.least, self.kappa = whole(body["least"]), body["kappa"]
        if not re.fullmatch("[0-9]{1,40}(/[0-9]{1,40})?", self.kappa):
            raise ValueError("not a fraction")
        kappa = Fraction(self.kappa)
        if lowest(kappa) != self.kappa or not 0 < kappa <= 1 or self.least < 2:
            raise ValueError("not possible")
        if self.times["opens"] >= self.times["closes"] or not usable(self.raw["sealing"][1184:]):
            raise ValueError("not possible")
        self.sealing = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(self.raw["sealing"][:1184]),
            X25519PublicKey.from_public_bytes(self.raw["sealing"][1184:]),
        )


def layout_hash(plan: Plan, layout: Layout) -> bytes:
    kappa = lowest(number(plan["privacy"]["kappa"]))
    facts = [sha(canonical(plan)).hex(), "zcdp", "discrete_gaussian", "distributed", kappa]
    blocks = [
        [
            b.metric,
            list(b.grouping),
            b.part,
            b.start,
            b.cells,
            str(b.l1),
            str(b.l2_squared),
            str(b.linf),
            lowest(b.cost),
            lowest(Fraction(b.l2_squared) / (2 * b.cost)),
        ]
        for b in layout.blocks
    ]
    return sha(b"unheard/layout/1\n" + canonical([facts, blocks]))


def offered(asked: Invitation, found: Json, pins: Json, population: bytes, now: int) -> Task:
    """The task of an invitation. `found`: plan, layout, and size and root of its checkpoint. Raises Refused."""
    try:
        return _offered(asked, found, pins, population, now)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused("COLLECTION") from None


def _offered(asked: Invitation, found: Json, pins: Json, population: bytes, now: int) -> Task:
    if pins.get("helper") is None:
        raise ValueError("no helper is pinned")
    plan, layout = found["plan"], found["layout"]
    offer = object_of(asked.request, {"inclusion", "index", "signed"})
    signed = object_of(offer["signed"].encode(), {"helper", "leader", "release", "task", "witness"})
    task = Task(signed["task"].encode())
    signatures = {name: raw(signed[name], 64) for name in ("leader", "helper", "witness")}
    path = [raw(each, 32) for each in offer["inclusion"]]
    if len(path) > 64 or signed["release"] != task.raw["release"].hex():
        raise ValueError("another form")
    for name in ("leader", "helper"):
        if not verifies(task.raw[name], signatures[name], clabel("task signature") + task.bytes):
            raise ValueError("not signed")
    own = {"plan": sha(asked.plan), "layout": layout_hash(plan, layout), "release": asked.release}
    own |= {"charge": sha(asked.charge), "helper": bytes.fromhex(pins["helper"]), "population": population}
    if any(task.raw[key] != right for key, right in own.items()):
        raise ValueError("about something else")
    if (Fraction(task.kappa), task.least) != (
        number(plan["privacy"]["kappa"]),
        plan["privacy"]["min_cohort"],
    ):
        raise ValueError("another noise")
    if task.times["until"] - task.times["start"] != window_seconds(plan):
        raise ValueError("another window")
    if not bound(task, signatures["witness"], bytes.fromhex(pins["witness"])):
        raise ValueError("not bound by the witness")
    leaf = leaf_of(b"unheard-log-1\ntask\n" + canonical(signed))
    if not included(leaf, whole(offer["index"]), found["size"], path, found["root"]):
        raise ValueError("not logged")
    if task.times["until"] != asked.until or not task.times["opens"] <= now < task.times["closes"]:
        raise ValueError("not now")
    return task


def bound(task: Task, signature: bytes, witness: bytes) -> bool:
    about = task.raw["release"] + task.raw["plan"] + task.raw["population"] + task.id
    return verifies(witness, signature, clabel("witness") + about)


def sealed(task: Task, report: bytes, device: bytes, public: bytes, helper: bytes) -> bytes:
    info = clabel("helper share") + task.id + report + device + public
    return SUITE.encrypt(helper, task.sealing, info)


def body_hash(report: bytes, device: bytes, public: bytes, box: bytes, leader: bytes) -> bytes:
    hashed = sha(clabel("leader share") + leader)
    return sha(clabel("report body") + report + device + public + box + hashed)


def signature_of(identity: Ed25519PrivateKey, task: bytes, use: str, about: bytes) -> bytes:
    return identity.sign(clabel(use) + task + about)


def report_of(task: Task, circuit: Circuit, identity: Ed25519PrivateKey, certificate: bytes) -> bytes:
    report, device = token_bytes(16), identity.public_key().public_bytes_raw()
    shares = sharded(circuit, task.id, report, token_bytes(128))
    box = sealed(task, report, device, shares.public, shares.helper)
    digest = body_hash(report, device, shares.public, box, shares.leader)
    signature = signature_of(identity, task.id, "report", digest)
    return report + device + shares.public + box + shares.leader + certificate + signature


def withdrawal_of(task: bytes, report: bytes, identity: Ed25519PrivateKey, certificate: bytes) -> bytes:
    device = identity.public_key().public_bytes_raw()
    return task + report + device + certificate + signature_of(identity, task, "withdrawal", report)
