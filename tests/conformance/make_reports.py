"""Makes the vectors of two aggregators: tasks that a device believes or not, and reports with their secrets.

A box cannot be drawn from a public seed: the one that is published stays where it still opens to what it should.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from clients.device import receipt
from fa_core.collection.refusal import RefusedReport
from fa_core.collection.report import Report, open_share
from fa_core.collection.task import Task, label
from fa_core.conformance import uploads
from fa_core.conformance.offers import Keys, Offers, faults, question
from fa_core.conformance.world import NOW, POPULATION, plan_of, raw, seconds
from fa_core.plan import Plan, canonical, parse
from fa_core.prio.blocks import prio
from fa_core.prio.prio3 import Shares
from fa_core.trust import hpke
from tests.conformance import product, samples
from tests.conformance.keys import key, world
from tests.conformance.product import Product

Json = dict[str, Any]
PLANS: Final = Path(__file__).parents[2] / "eval_plans"
PUBLISHED: Final = Path(__file__).parents[1] / "vectors" / "device-reports.json"
WHOLE: Final = 120
"""Plans of so many elements at most are published with every byte of both shares."""

TASK_PLAN: Final = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: tasks, revision: 3, owner: devices, question: Is it believed?, expires: 2026-12-31}
source: wake_events
window: 7d
metrics: {events: {kind: count, of: {}}}
privacy: {epsilon: 2, min_cohort: 3, sum: two_aggregators}
"""


def stream(name: str, size: int) -> bytes:
    """Return bytes of a public name."""
    return b"".join(sha256(f"{name} {i}".encode()).digest() for i in range(-(-size // 32)))[:size]


def offers_of(name: str, plan: Plan) -> Offers:
    """Return the offers of a plan, with keys of a public name."""
    roles = (key(f"{name} {role}") for role in ("leader", "helper", "stranger"))
    keys = Keys(*roles, hpke.OpeningKey(stream(f"{name} sealing", hpke.PRIVATE_SIZE)))
    return Offers(world(name), keys, plan, consistent=False)


def tasks(device: Product) -> Iterator[Json]:
    """Yield a good invitation to a collection, and one fault for each check of its offer."""
    in_stages = plan_of(TASK_PLAN, {", sum: two_aggregators": "", "name: tasks": "name: stages"})
    offers = offers_of("tasks", plan_of(TASK_PLAN))
    right = offers.task(offers.asked())
    good = question(offers, offers.invite_to(right))
    answer = device.ask(good)
    assert answer == {"task": right.id.hex()}, answer
    yield {"name": "a good invitation to a collection", "ask": good, "answer": answer}
    for name, pins in {
        "no helper is pinned": {each: value for each, value in offers.pins().items() if each != "helper"},
        "another helper is pinned": offers.pins() | {"helper": raw(offers.keys.stranger).hex()},
    }.items():
        yield {"name": name, "ask": good | {"pins": pins}, "answer": device.ask(good | {"pins": pins})}
    for fault in faults(offers, in_stages):
        ask = question(offers, fault.invitation)
        answer = device.ask(ask)
        assert answer == {"refused": fault.reason}, (fault.name, answer)
        yield {"name": fault.name, "ask": ask, "answer": answer}


# Reports


def shipped() -> Iterator[tuple[str, Plan]]:
    """Yield each plan of eval_plans that two aggregators can sum, with its sum formed by them."""
    for path in sorted(PLANS.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if "kind: TrainPlan" not in text:
            summed = text.replace("privacy:\n", "privacy:\n  sum: two_aggregators\n", 1)
            yield path.stem, parse(summed.encode(), path.name, today=NOW.date(), policy=None)


def plans() -> Iterator[tuple[str, Plan]]:
    """Yield what `shipped` does, and plans for orders that none of those has."""
    yield from shipped()
    summed = "{epsilon: 1, max_events: 16, sum: two_aggregators, kappa: 1}"
    three = samples.SEGMENTS
    two = "".join(line for line in three.splitlines(True) if "loud" not in line)
    order = "[[], [playback], [accent], [playback, accent], [accent, loud]]"
    for kind, segments, groups in (
        ("rate", three, order),
        ("rate_per_hour", three, order),
        ("det", two, "[[], [accent, playback], [accent]]"),
    ):
        name = f"{kind}, groupings in another order"
        yield name, samples.plan("order", *samples.METRICS[kind], summed, segments, groups)
    blocks = summed.replace("kappa: 1", "kappa: 0.5, counters: blocks")
    hourly = samples.METRICS["rate_per_hour"]
    yield "rate_per_hour, blocks", samples.plan("blocks", *hourly, blocks, two, "[[playback], [accent]]")


def rows_for(plan: Plan) -> dict[str, list[Json]]:
    """Return few rows of a device, below every limit, in the tables that a plan reads."""
    versions = ["micro-1", "micro-2"]
    for metric in plan.metrics.values():
        if (compare := getattr(metric, "compare", None)) is not None:
            versions = [compare.baseline, compare.candidate]
    outcomes = ("false_reject", "true_accept", "false_accept", "true_accept")
    events = [
        samples.wake(
            1.25 + number, outcomes[(number + place * (number // 2)) % 4], number / 8,
            model_version=version, snr_db=(None, 4.5, 12.0, 30.0)[number % 4], playback=number % 3 == 0,
        )
        for place, version in enumerate(versions)
        for number in range(5)
    ]  # fmt: skip
    listening = [
        {
            "time": samples.at(hour) - samples.at(hour) % samples.HOUR, "wake_word": "okay_nabu",
            "model_version": versions[0], "snr_db": 12.0, "playback": hour % 2 == 0, "minutes": 20 * hour,
        }
        for hour in range(1, 4)
    ]  # fmt: skip
    found = {
        "wake_events": events,
        "listening": listening,
        "command_events": [
            {**row, "confirmation": ("confirmed", "denied", "not_asked")[number % 3]}
            for number, row in enumerate(samples.rows()["command_events"][:5])
        ],
        "dictation_events": [
            {
                **row,
                "words": 6,
                "word_errors": number,
                "insertions": 1,
                "deletions": 0,
                "substitutions": number,
            }
            for number, row in enumerate(samples.rows()["dictation_events"][:3])
        ],
        "detections": [
            {
                name: row[name]
                for name in ("time", "wake_word", "model_version", "score", "snr_db", "playback")
            }
            for row in events[:4]
        ],
    }
    return {name: found[name] for name in receipt.sources(plan)}


def facts_for(plan: Plan) -> dict[str, str]:
    """Return facts that are the second label of each segment of the device."""
    return {
        segment.column: segment.labels[1] for segment in plan.segments.values() if segment.level == "device"
    }


def reports(device: Product) -> Iterator[Json]:
    """Yield a report for each plan, its secrets given."""
    published = _boxes()
    for name, plan in plans():
        yield _report(device, name, plan, published.get(name, b""))
    ask = {
        "op": "withdrawal",
        "task": sha256(b"a task").hexdigest(),
        "id": bytes(range(16)).hex(),
        **_identity(),
    }
    yield {"name": "a withdrawal", "ask": ask, "answer": device.ask(ask)}


def _identity() -> Json:
    private = key("reports device")
    return {
        "identity": private.private_bytes_raw().hex(),
        "certificate": world("reports").authority.certify(raw(private), POPULATION).hex(),
    }


def _report(device: Product, name: str, plan: Plan, published: bytes) -> Json:
    offers = offers_of("reports", plan)
    release = sha256(name.encode()).digest()[:16]
    asked = offers.asked(release=release).paying(release=release.hex())
    task, number = offers.task(asked), stream(f"{name} id", 16)
    ask = {
        "op": "report", "plan": canonical(plan).decode(), "until": seconds(NOW), "tables": rows_for(plan),
        "facts": facts_for(plan), "draws": {}, "task": task.encode().decode(), **_identity(),
        "id": number.hex(), "random": stream(f"{name} secrets", 128).hex(), "box": "",
    }  # fmt: skip
    elements = product.elements_of(ask)
    shares = prio(plan).shard(task.id, elements, number, stream(f"{name} secrets", 128))
    info = (number, raw(key("reports device")), shares.public)
    ask["box"] = _box(task, offers.keys.sealing, info, shares.helper, published).hex()
    answer = device.ask(ask)
    more = _verified(offers, task, shares, ask, answer)
    if len(elements) <= WHOLE:
        more |= {"elements": elements.tolist(), "leader": shares.leader.hex()}
    return {"name": name, **more, "ask": ask, "answer": answer}


def _verified(offers: Offers, task: Task, shares: Shares, ask: Json, answer: Json) -> Json:
    """Return the key of the box, the verdict of leader and helper, and what they add up."""
    identity = product.identity_of(ask)
    box, signature = bytes.fromhex(ask["box"]), bytes.fromhex(answer["signature"])
    number, certificate = bytes.fromhex(ask["id"]), identity.certificate
    made = Report(number, identity.device, shares.public, box, shares.leader, certificate, signature)
    authority = offers.world.authority.public_key
    found = uploads.verified(made.encode(), offers.plan, task, offers.keys, authority)
    return {
        "private": offers.keys.sealing.raw.hex(),
        "accepted": not any(found.wrong.values()),
        "vector": found.vector.tolist(),
    }


def _boxes() -> dict[str, bytes]:
    """Return the published boxes, by the name of the report."""
    if not PUBLISHED.exists():
        return {}
    steps = json.loads(PUBLISHED.read_text(encoding="utf-8"))["steps"]
    return {each["name"]: bytes.fromhex(each["ask"].get("box", "")) for each in steps}


def _box(
    task: Task, sealing: hpke.OpeningKey, about: tuple[bytes, bytes, bytes], share: bytes, published: bytes
) -> bytes:
    """Return a box of a share: the published one, unless it is another's. `about`: id, device, public share."""
    with suppress(RefusedReport):
        if open_share(task.id, sealing.private(), *about, published) == share:
            return published
    info = label("helper share") + task.id + b"".join(about)
    return hpke.SUITE.encrypt(share, hpke.public_key(task.sealing), info)
