"""Makes the vectors of devices: `python scripts/make_vectors.py` writes tests/vectors/device-*.json with the rest.

Each step of a file is a question of the adapter protocol (docs/conformance.md) with the package's own answer.
Every random draw comes from a public seed.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from clients.device import receipt
from fa_core.canonical_json import canonical as canonical_json
from fa_core.conformance.cohort import NODE, Cohort, Keys, Step
from fa_core.conformance.faults import faults
from fa_core.conformance.world import NOW, POPULATION, as_json, plan_of, raw, seconds
from fa_core.plan import Plan, canonical, parse
from fa_core.plan.signing import sign
from fa_core.secagg import DeviceIdentity, Stage, Task, choose, shamir
from fa_core.secagg.identity import population_id
from fa_core.trust.enrolment import Authority
from tests.conformance import make_reports, make_rollouts, samples
from tests.conformance.keys import key, world
from tests.conformance.product import Product
from tests.secagg.lab import UnchargedWitness
from tests.secagg.make_vectors import Stream

FOLDER = Path(__file__).parents[1] / "vectors"
Json = dict[str, Any]
DEVICE = Product()


def step(name: str, ask: Json, **more: object) -> Json:
    """Return a question with the package's answer."""
    return {"name": name, **more, "ask": ask, "answer": DEVICE.ask(ask)}


def text_of(plan: Plan) -> str:
    return canonical(plan).decode("ascii")


def yaml_plan(text: str) -> Plan:
    return parse(text.encode(), "plan.yaml", today=NOW.date(), policy=None)


# Plans, layouts, costs, counts, noise


def signed(text: str) -> Json:
    signer = key("plan")
    return {
        "op": "plan", "plan": text, "key": raw(signer).hex(), "signature": sign(text.encode(), signer).hex()
    }  # fmt: skip


def plans() -> Iterator[Json]:
    for name, yaml in samples.PLANS.items():
        yield step(name, signed(text_of(yaml_plan(yaml))), yaml=yaml)
    plan = yaml_plan(samples.PLANS["a rate by accent"])
    right, body = text_of(plan), as_json(plan)
    yield step("a signature of another plan", signed(right) | {"signature": signed("{}")["signature"]})
    yield step("a space", signed(right.replace(",", ", ", 1)))
    yield step("keys out of order", signed(json.dumps(dict(reversed(body.items())), separators=(",", ":"))))
    yield step("a number that is no text", signed(right.replace('"epsilon":"1"', '"epsilon":1')))
    body["metrics"]["misses"]["kind"] = "median"
    yield step("a kind that nobody knows", signed(canonical_json(body).decode()))
    more = right.replace('"rho":"0.0172053180393"', '"rho":"0.0172053180394"')
    yield step("a rho that is too large by its last digit", signed(more))
    pure = right.replace('"accounting":"zcdp"', '"accounting":"pure"')
    yield step("a rho under pure accounting", signed(pure))


def layouts() -> Iterator[Json]:
    for name, plan in samples.kinds().items():
        yield step(name, {"op": "layout", "plan": text_of(plan)})
    yield step("a plan that two aggregators sum", {"op": "layout", "plan": text_of(samples.summed())})
    large = yaml_plan(samples.TOO_LARGE)
    yield step("a plan that no ring holds", {"op": "layout", "plan": text_of(large)})


def costs() -> Iterator[Json]:
    for name in ("rate, joint", "rate, pure"):
        yield step(name, {"op": "cost", "plan": text_of(samples.kinds()[name])})


def counts() -> Iterator[Json]:
    cases = [(name, plan, samples.rows(), samples.FACTS) for name, plan in samples.kinds().items()]
    for name, plan, rows, facts in [*cases, *samples.edges()]:
        read = {table: rows[table] for table in receipt.sources(plan)}
        yield step(name, needed(samples.counting(text_of(plan), read, facts, name)))


def needed(ask: Json) -> Json:
    """Return a question with those draws alone that the answer depends on."""
    draws = dict(ask["draws"])
    for purpose in ask["draws"]:
        rest = {key: value for key, value in draws.items() if key != purpose}
        with suppress(KeyError):
            DEVICE.ask(ask | {"draws": rest})
            draws = rest
    return ask | {"draws": draws}


def noise() -> Iterator[Json]:
    kinds = samples.kinds()
    for name, joined in (
        ("rate, joint", 6),
        ("rate, joint", 100),
        ("rate, joint", 10_000),
        ("det, joint", 1000),
    ):
        yield step(
            f"{name}, {joined} devices", {"op": "noise", "plan": text_of(kinds[name]), "joined": joined}
        )
    loud = kinds["count, much noise wanted"]
    for joined in (20, 2_000, 90_000):
        yield step(f"small noise, {joined} devices", {"op": "noise", "plan": text_of(loud), "joined": joined})
    yield step(
        "no honest share is certain", {"op": "noise", "plan": text_of(kinds["f and γ large"]), "joined": 3}
    )


# Budgets, gateway


def budgets() -> Iterator[Json]:
    day = 86_400
    now = seconds(NOW)
    plain = {
        "op": "budget", "budget": "1/4", "window": 28 * day, "settle": 28 * day, "age": day, "local": now,
        "witnessed": now, "latest": now, "first": now - 40 * day, "rho": "1/8", "charges": [],
    }  # fmt: skip

    def charges(*days: int) -> list[Json]:
        return [{"rho": "1/8", "at": now - each * day} for each in days]

    cases: dict[str, Json] = {
        "nothing spent": {},
        "one charge, room for one": {"charges": charges(1)},
        "two charges, no room": {"charges": charges(1, 2)},
        "exactly at the limit": {"charges": charges(1), "rho": "1/8"},
        "over it by the least": {"charges": charges(1), "rho": "125000001/1000000000"},
        "a charge of a window and the age ago is gone": {"charges": charges(29, 1)},
        "a charge of a window ago is not": {"charges": charges(28, 1)},
        "a clock behind keeps charges longer": {"charges": charges(29, 1), "local": now - day},
        "a clock ahead stamps later": {"local": now + day},
        "clocks that disagree": {"local": now + day + 1},
        "a witness's time of before": {"witnessed": now, "latest": now + day + 1, "local": now},
        "a store that settles": {"first": now - 29 * day + 1},
        "a store that has settled": {"first": now - 29 * day},
        "a store that need not settle": {"first": now, "settle": 0},
    }
    for name, changes in cases.items():
        yield step(name, plain | changes)


def gateway() -> Iterator[Json]:
    identity, authority = key("device"), Authority(key("authority"))
    certificate = authority.certify(raw(identity), POPULATION)
    plain = {
        "op": "gateway", "identity": identity.private_bytes_raw().hex(), "certificate": certificate.hex(),
        "audience": "gateway.example:8443", "timestamp": seconds(NOW) * 1_000_000 + 7, "method": "GET",
        "target": "/v1/letters?wait=240", "body": "",
    }  # fmt: skip
    yield step("ask for a request", plain)
    reply = {"method": "PUT", "target": "/v1/letters/17", "body": b"UH\x03".hex()}
    yield step("post a reply", plain | reply | {"timestamp": plain["timestamp"] + 1})  # type: ignore[operator]
    collection = f"/v1/collections/{sha256(b'a task').hexdigest()}"
    yield step("ask for collections", plain | {"target": "/v1/collections"})
    yield step("fetch an offer", plain | {"target": collection})
    posted = {"method": "POST", "target": collection, "body": bytes(range(240)).hex()}
    yield step("post a withdrawal", plain | posted)
    yield step(
        "fetch a file, over IPv6", plain | {"audience": "[2001:db8::1]:443", "target": "/v1/published/x"}
    )


def tasks() -> Iterator[Json]:
    return make_reports.tasks(DEVICE)


def reports() -> Iterator[Json]:
    return make_reports.reports(DEVICE)


def rollouts() -> Iterator[Json]:
    return make_rollouts.rollouts(Product())


def invitations() -> Iterator[Json]:
    for fault in faults(world("here"), plan_of(), world("elsewhere")):
        made = step(fault.name, fault.ask)
        assert made["answer"].get("refused", "") == fault.reason, (fault.name, made["answer"])
        yield made


# Rounds


@contextmanager
def drawn(name: str, k: int, t: int) -> Iterator[Json]:
    """Draw everything from the name's stream; yield what the device that is tried draws."""
    stream = Stream(name)
    secrets = {each: stream(32) for each in ("share_private", "mask_private", "seed")}
    rows = shamir.share((secrets["seed"], secrets["mask_private"]), k, t, stream)

    class Fixed:
        @staticmethod
        def generate() -> X25519PrivateKey:
            return X25519PrivateKey.from_private_bytes(stream(32))

    share = shamir.share
    with ExitStack() as stack:
        stack.enter_context(patch("fa_core.secagg.device.token_bytes", stream))
        stack.enter_context(patch("fa_core.trust.witness.token_bytes", stream))
        stack.enter_context(patch("fa_core.secagg.device.X25519PrivateKey", Fixed))
        others = patch("fa_core.secagg.device.shamir.share", lambda v, n, least: share(v, n, least, stream))
        stack.enter_context(others)
        yield {**{each: value.hex() for each, value in secrets.items()}, "shares": rows.tolist()}


class Recorder:
    """Asks the package's device, and keeps each question with its answer."""

    def __init__(self) -> None:
        self.steps: list[Json] = []

    def ask(self, wanted: Step) -> Json:
        """See `cohort.Ask`."""
        answer = DEVICE.ask(wanted.question)
        assert wanted.right in (None, answer), (wanted.name, answer)
        self.steps.append({"name": wanted.name, "ask": wanted.question, "answer": answer})
        return answer


def a_round(name: str, n: int, task: Task, lost: dict[Stage, set[int]]) -> tuple[Cohort, Recorder, ExitStack]:
    """Open a round of n devices; the first one is asked."""
    parameters = choose(n, task.dropout, task.corrupt)
    assert parameters is not None
    stack, recorder = ExitStack(), Recorder()
    secrets = stack.enter_context(drawn(name, parameters.neighbours, parameters.threshold))
    journal = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    authority, witness = Authority(key(f"{name} authority")), key(f"{name} witness")

    def enrolled(number: int) -> DeviceIdentity:
        private = key(f"{name} device {number}")
        return DeviceIdentity(private, authority.certify(raw(private), POPULATION))

    identities = [enrolled(number) for number in range(n)]
    keys = Keys(authority, witness, POPULATION, identities, enrolled(n))
    signer = UnchargedWitness(witness, authority.public_key, journal)
    ask = {
        "op": "open",
        "identity": identities[NODE].key.private_bytes_raw().hex(),
        "certificate": identities[NODE].certificate.hex(),
        "authority": authority.public_key.hex(),
        "witness": raw(witness).hex(),
        "min_cohort": 3,
        "task": task.encode().hex(),
        "contribution": [(-7) ** i for i in range(task.length)],
        "secrets": secrets,
    }
    recorder.steps.append({"ask": ask, "answer": DEVICE.ask(ask)})
    return Cohort(task, keys, signer, lost=lost), recorder, stack


def task_for(name: str, bits: int = 32, f: Fraction = Fraction(1, 5), g: Fraction = Fraction(1, 10)) -> Task:
    digest = sha256(name.encode()).digest()
    return Task(digest, digest[:16], 0, 5, bits, f, g, 3, digest, population_id(POPULATION))


def rounds() -> Iterator[Json]:
    for name, n, task in (
        (
            "64 devices, fewer neighbours than others",
            64,
            task_for("sixty-four", g=Fraction(1, 10), f=Fraction(1, 10)),
        ),
        ("10 devices, an odd number of neighbours, 64 bits", 10, task_for("ten", 64)),
        ("9 devices, no loss to spare", 9, task_for("nine", f=Fraction(1, 10))),
    ):
        cohort, recorder, stack = a_round(name, n, task, {Stage.MASKED: {3}} if n > 9 else {})
        with stack:
            cohort.play(recorder.ask, hostile=False)
            expected = [(-7) ** i for i in range(task.length)]
            assert cohort.result.total.tolist() == expected
        yield from (
            {**each, "name": f"{name}: {each['name']}"} if "name" in each else each for each in recorder.steps
        )


def refusals() -> Iterator[Json]:
    task = task_for("refusals", g=Fraction(1, 5))
    cohort, recorder, stack = a_round("refusals", 6, task, {Stage.SHARES: {5}})
    with stack:
        cohort.play(recorder.ask)
    yield from recorder.steps
    cohort, recorder, stack = a_round("a complaint", 6, task_for("complaint"), {})
    with stack:
        cohort.complain(recorder.ask)
    # The opening is drawn anew each time, so it cannot be compared: `fa conformance` has one proved.
    yield from recorder.steps[:-1]


WHAT = {
    "plans": "canonical plans from YAML, their hashes, signatures and leaves; and what is refused",
    "layouts": "a plan of each kind, and its blocks",
    "costs": "what a contribution costs by the device's own records",
    "counts": "tables, facts, plan and draws, and the vector before noise",
    "noise": "a plan and the number of devices on the roster: h, and for each block the factor and the variance",
    "budgets": "the odometer at one moment",
    "gateway": "signed requests to a gateway",
    "invitations": "an invitation, and one fault for each check",
    "rounds": "whole rounds as one device sees them, with its secrets",
    "tasks": "an invitation to a collection of two aggregators, and one fault for each check of its offer",
    "reports": "a report of two aggregators for each plan of eval_plans, and for plans of other orders, with every "
    "secret: `private` is the helper's key of the box, `accepted` what leader and helper say, `vector` what it adds",
    "rollouts": "the published files of rollouts that one device is shown, in order, with one fault for each check",
    "refusals": "a round and a complaint, with every code that a device refuses with",
}


def files() -> dict[str, str]:
    """Return the text of every file, by name."""
    makers = (
        plans, layouts, costs, counts, noise, budgets, gateway, invitations, rounds, refusals, tasks, reports,
        rollouts,
    )  # fmt: skip
    found = {}
    for make in makers:
        name = make.__name__
        lines = ",\n".join(json.dumps(each, ensure_ascii=True, separators=(",", ":")) for each in make())
        what = json.dumps(f"{WHAT[name]}; docs/conformance.md says how it is read")
        found[f"device-{name}.json"] = f'{{"what":{what},"steps":[\n{lines}\n]}}\n'
    return found
