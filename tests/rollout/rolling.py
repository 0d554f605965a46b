"""A small rollout over a store: real plans, log and witness, and a stand-in for the gate's mathematics."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.arrays import FloatArray, Int64Array
from fa_core.errors import RoundFailed
from fa_core.layout import compile_plan
from fa_core.merkle import Proof
from fa_core.plan import Plan, canonical, load
from fa_core.privacy.distributed import scales_of, shares_outside_a_ring, variance_in_sum
from fa_core.privacy.ledger import DEFAULT_POLICIES, Charge, Policy
from fa_core.publication.artefact import ArtefactManifest
from fa_core.publication.signed import SignedDocument
from fa_core.rollout import control, document
from fa_core.rollout.budget import set_aside
from fa_core.rollout.controlled import Condition, ControlledResult
from fa_core.rollout.document import Model, Rollout
from fa_core.rollout.evidence import Judgement, recompute
from fa_core.rollout.publish import Granter
from fa_core.rollout.record import Context, Outcome
from fa_core.rollout.states import History
from fa_core.store import Declaration, Store, open_store
from fa_core.trust.witness import Witness
from fa_core.values import Estimates, Layout, Participation, Release

FOLDER = Path(__file__).parents[2] / "eval_plans" / "rollouts"
START = datetime(2026, 12, 1, 9, tzinfo=UTC)
WEEK = timedelta(days=7)
LOG, WITNESS, AUTHOR = (Ed25519PrivateKey.from_private_bytes(byte * 32) for byte in (b"l", b"w", b"a"))
MODELS = {"micro-1": b"the model in the field", "embed-2": b"the one that may replace it"}
SCALE = 1000
"""A stand-in's release carries its verdict in its first cell: SCALE expands, 0 holds, −SCALE rolls back."""


class StandIn:
    """A gate that reads its verdict off the newest release."""

    def looks(self, document: Rollout, releases: Sequence[Release | None]) -> Judgement:
        return _read([each for each in releases if each is not None][-1], len(releases))

    def stage(self, document: Rollout, stage: int, release: Release, before: Release | None) -> Judgement:
        if document.stages[stage].share == 1:
            assert before is not None
        return _read(release, stage)


def _read(release: Release, number: int) -> Judgement:
    first = int(release.sums[0])
    verdict = "expand" if first == SCALE else "roll_back" if first == -SCALE else "hold"
    return Judgement(verdict, {"z": first / 7, "number": number, "t": None}, f"the gate says {verdict}")  # type: ignore[arg-type]


@cache
def plans() -> dict[str, Plan]:
    """The shipped plans of a gate and of live stages, by hash."""
    found = [load(FOLDER / f"embed-2-{name}.yaml", today=START.date()) for name in ("gate", "live")]
    return {each.hash: each for each in found}


def hashed(version: str) -> str:
    return sha256(MODELS[version]).hexdigest()


RESULT = ControlledResult(
    "ab" * 32, "okay_nabu", hashed("micro-1"), hashed("embed-2"), 0.95, 0.05, 0.5,
    (Condition("in the kitchen", 400, 3, 2, 10.0, 1, 1, 0.01, 0.3),),
)  # fmt: skip


@cache
def shipped() -> Rollout:
    return document.load(FOLDER / "embed-2.yaml", today=START.date()).rollout


def rollout(**changed: object) -> Rollout:
    """The shipped rollout with the models and the test set of these tests."""
    body = shipped()
    models = body.models.model_copy(
        update={
            "baseline": Model(version="micro-1", sha256=hashed("micro-1")),
            "candidate": Model(version="embed-2", sha256=hashed("embed-2")),
        }
    )
    gate = body.gate.model_copy(update={"test_set": RESULT.hash})
    return body.model_copy(update={"models": models, "gate": gate, **changed})


def signed(about: Rollout) -> SignedDocument:
    return SignedDocument.sign("rollout", document.canonical(about), AUTHOR)


@dataclass
class Rolling:
    """A store with a witness and a clock that tests set."""

    store: Store
    witness: Witness
    folder: Path
    now: datetime = START
    numbers: int = 0
    judge: StandIn = field(default_factory=StandIn)

    @property
    def context(self) -> Context:
        return Context(self.store, LOG, self.witness, self.judge, self.folder, self.now)

    def start(self, about: Rollout | None = None) -> Outcome:
        about = about or rollout()
        return control.start(self.context, about, signed(about), RESULT, plans())

    def decide(self, about: Rollout | None = None) -> Outcome:
        return control.decide(self.context, about or rollout())

    def history(self, about: Rollout | None = None) -> History:
        return control.find(self.store, (about or rollout()).hash.hex())

    def release(self, what: str, verdict: int, until: datetime | None = None) -> str:
        """Save a release of the gate's or the live stages' plan about the week that ends now."""
        self.numbers += 1
        plan = plan_of(what)
        made = make_release(plan, verdict, self.numbers, until or whole_hour(self.now))
        data = canonical(plan)
        self.store.announce(data, AUTHOR.public_key().public_bytes_raw(), AUTHOR.sign(data))
        self.store.charge(charge_for(made), set_aside)
        self.store.save(made, Estimates(made.id, 0.95, (), ()), synthetic=True)
        return made.id

    def week(self, what: str, verdict: int) -> Outcome:
        """A week later: a release, and what is decided on it."""
        self.now += WEEK
        self.release(what, verdict)
        return self.decide()

    def entries(self) -> list[bytes]:
        """The entries of decisions and manifests in the log."""
        return [each.entry for each in self.store.rollouts() if each.kind != "rollout"]


class Away:
    """A witness that does not answer, from the stages' point of view or at all."""

    def __init__(self, real: Granter, *, cosigns: bool) -> None:
        self._real = real
        self._cosigns = cosigns

    def seen(self) -> int:
        if not self._cosigns:
            raise RoundFailed("the witness does not answer")
        return self._real.seen()

    def cosign(self, note: bytes, proof: Proof) -> bytes:
        return self._real.cosign(note, proof)

    def grant(self, request: bytes) -> bytes:
        raise RoundFailed("the witness does not answer")

    begin = hold = resume = end = opened = grant


def plan_of(what: str) -> Plan:
    return next(each for each in plans().values() if each.metadata.name == f"embed-2-{what}")


def whole_hour(moment: datetime) -> datetime:
    return (moment + timedelta(minutes=59, seconds=59)).replace(minute=0, second=0)


@cache
def noise_of(plan_hash: str) -> tuple[Layout, FloatArray, Int64Array]:
    """Return a plan's layout, and the noise variance and scales of a sum of 20,000 devices."""
    plan = plans()[plan_hash]
    layout = compile_plan(plan)
    shares = shares_outside_a_ring(layout, 20_000, plan.privacy.dropout, plan.privacy.corrupt)
    return layout, variance_in_sum(shares, 20_000), scales_of(shares)


def make_release(plan: Plan, verdict: int, number: int, until: datetime) -> Release:
    layout, variance, scales = noise_of(plan.hash)
    sums = np.zeros(layout.length, np.int64)
    sums[0] = verdict * SCALE
    return Release(
        sha256(b"rollout %d" % number).hexdigest()[:32], canonical(plan), layout, "default", "tables", True,
        until, until - plan.window, until, Participation(20_000, 20_000, 0, 20_000), sums,
        scales, variance, False,
    )  # fmt: skip


def charge_for(release: Release) -> Charge:
    layout = release.layout
    return Charge(
        release.population, "gate", release.id, layout.plan_hash, layout.accounting, layout.cost,
        layout.epsilon, layout.delta, release.window_start, release.window_end, release.created,
    )  # fmt: skip


def prepare(folder: Path) -> None:
    """Make a store with budgets and both models."""
    policy = DEFAULT_POLICIES["zcdp"]
    with open_store(folder) as store:
        declare(store, policy)
        for version, data in MODELS.items():
            manifest = ArtefactManifest(
                "head", version, version, "okay_nabu", "micro-1", "", hashed(version), len(data),
                "Apache-2.0", "us",
            )  # fmt: skip
            made = SignedDocument.sign("model", manifest.document(), AUTHOR)
            store.keep_artefact(made.hash.hex(), made.entry(), data)


def declare(store: Store, policy: Policy) -> None:
    store.declare(Declaration("default", "zcdp", policy, START))


def opened(folder: Path, template: Path) -> Rolling:
    """Return a store like the template, with a witness of its own."""
    shutil.copytree(template, folder / "store")
    return reopened(folder)


def reopened(folder: Path) -> Rolling:
    """Return what is in a folder: a store, and the witness's journal and published files where there are."""
    clock: list[Rolling] = []
    log = LOG.public_key().public_bytes_raw()
    witness = Witness(
        WITNESS,
        bytes(32),
        folder / "witness",
        log,
        lambda: clock[0].now,
        recompute=lambda evidence: recompute(evidence, StandIn(), allow_simulated=True),
    )
    rolling = Rolling(open_store(folder / "store"), witness, folder / "published")
    clock.append(rolling)
    return rolling


def more_than(policy: Policy, week: Fraction) -> Policy:
    return replace(policy, week=week)
