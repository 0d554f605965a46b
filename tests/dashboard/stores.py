"""Stores for the dashboard's tests, made by the real code paths except for seeded noise."""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np

from clients.evaluate import Cohort, fleet_sum, seeded_randomness
from fa_core.estimate import estimate
from fa_core.layout import compile_plan
from fa_core.plan import Plan, canonical, parse, sign
from fa_core.privacy.ledger import Charge, Policy
from fa_core.rounds.keys import LocalKeys, local_keys, local_signers
from fa_core.store import Declaration, Entry, Store, open_store
from fa_core.store.catalogue import plan_name
from fa_core.values import Int64Array, Layout, Participation, Release
from tests.dashboard.fleet_tables import START, WEEK, cohort

HERE = Path(__file__).parent
PLANS = HERE.parent.parent / "eval_plans"
POPULATION = "homes"
LARGE_BUDGETS = Policy(Fraction(1, 4), Fraction(2), Fraction(2), Fraction(12), Fraction(3))


def plan_text(name: str) -> str:
    """Return the text of one of `eval_plans`, with central noise and a larger epsilon.

    The fleets of these tests have 2,500 devices; with the epsilon of the shipped plans, which are for tens of
    thousands, the pages would have too little to show.
    """
    text = (PLANS / f"{name}.yaml").read_text().replace("privacy:\n", "privacy:\n  noise: central\n")
    return text.replace("  epsilon: 1\n", f"  epsilon: {4 if name == 'det-by-accent' else 2}\n")


def plan_of(text: str) -> Plan:
    """Return a checked plan."""
    return parse(text.encode(), "plan.yaml", today=START.date())


def release_id(*parts: object) -> str:
    """Return 32 hex digits that depend on the parts alone."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def released(
    plan: Plan, sums: Int64Array, until: datetime, devices: int, identifier: str, population: str = POPULATION
) -> Release:
    """Return a release of exact sums, with the noise that the plan asks for."""
    layout = compile_plan(plan)
    dropped = devices // 40
    return Release(
        id=identifier,
        plan=canonical(plan),
        layout=layout,
        population=population,
        engine="local",
        simulated=True,
        created=until + timedelta(hours=2),
        window_start=until - plan.window,
        window_end=until,
        participation=Participation(devices + dropped + devices // 10, devices + dropped, dropped, devices),
        sums=sums + noise_by_seed(layout, identifier),
        scales=np.ones(len(layout.blocks), np.int64),
        noise_variance=np.array([float(block.variance) for block in layout.blocks]),
        secure_aggregation=plan.privacy.secure_aggregation,
    )


def noise_by_seed(layout: Layout, identifier: str) -> Int64Array:
    """Return noise of the variance that the plan asks for, the same in each run, so that tests are deterministic."""
    random = np.random.default_rng(int(identifier, 16))
    noise = np.zeros(layout.length, np.int64)
    for block in layout.blocks:
        cells = noise[block.slice]
        cells += np.rint(random.normal(0.0, float(block.variance) ** 0.5, cells.size)).astype(np.int64)
    return noise


class StoreBuilder:
    """A store with keys; adds releases as a run would."""

    def __init__(self, folder: Path, policy: Policy = LARGE_BUDGETS, population: str = POPULATION) -> None:
        self.folder = folder
        self.store: Store = open_store(folder)
        self.keys: LocalKeys = local_keys(folder / "local")
        self.now = START
        self.witness = local_signers(self.keys, lambda: self.now).witness
        self.store.declare(Declaration(population, "zcdp", policy, START))

    def add(self, release: Release, *, synthetic: bool = True, checkpoint: bool = True) -> Entry:
        """Announce, charge and save a release."""
        self.charge(release)
        entry = self.store.save(release, estimate(release), synthetic=synthetic)
        if checkpoint:
            self.checkpoint(release.created)
        return entry

    def charge(self, release: Release) -> None:
        """Announce and charge a release."""
        key = self.keys.plan
        self.store.announce(release.plan, key.public_key().public_bytes_raw(), sign(release.plan, key))
        layout = release.layout
        self.store.charge(
            Charge(
                population=release.population,
                family=plan_name(release.plan),
                release=release.id,
                plan_hash=layout.plan_hash,
                currency=layout.accounting,
                cost=layout.cost,
                epsilon=layout.epsilon,
                delta=layout.delta,
                window_start=release.window_start,
                window_end=release.window_end,
                at=release.created,
            )
        )

    def fail(self, release: Release, stage: str, reason: str) -> None:
        """Charge a release and record its round as failed."""
        self.charge(release)
        self.store.fail(release.id, release.plan, release.population, stage, reason, release.created)
        self.checkpoint(release.created)

    def checkpoint(self, at: datetime) -> None:
        """Sign a checkpoint of the log."""
        self.now = at
        self.store.checkpoint(self.keys.log, self.witness)


def weeks(builder: StoreBuilder, plans: Sequence[Plan], how_many: int, devices: int) -> list[Entry]:
    """Add a release of every plan for each of `how_many` weeks to a store."""
    entries = []
    for week in range(how_many):
        fleet, until = cohort(devices, week)
        for plan in plans:
            entries.append(builder.add(_release(plan, fleet, until, week)))
    return entries


def _release(plan: Plan, fleet: Cohort, until: datetime, week: int) -> Release:
    sums = fleet_sum(plan, compile_plan(plan), fleet, until, seeded_randomness(week))
    return released(plan, sums, until, len(fleet), release_id(plan.name, week))


def large(folder: Path, releases: int = 500, plans: int = 20, devices: int = 1500) -> StoreBuilder:
    """Return a store of the size that the dashboard's latency targets are for: 500 releases of 2,000 rows each.

    Each plan's sums are made once from one fleet; every release has its own noise, charge and estimates.
    """
    ample = Policy(Fraction(1), Fraction(500), Fraction(500), Fraction(500), Fraction(500))
    builder = StoreBuilder(folder, ample)
    fleet, until = cohort(devices, 0)
    text = (HERE / "large.yaml").read_text()
    made = [plan_of(text.replace("name: large", f"name: large-{number:02}")) for number in range(plans)]
    layout = compile_plan(made[0])
    sums = fleet_sum(made[0], layout, fleet, until, seeded_randomness(0))
    for number in range(releases):
        plan, week = made[number % plans], number // plans
        last = number == releases - 1
        builder.add(
            released(plan, sums, until + week * WEEK, devices, release_id("large", number)), checkpoint=last
        )
    return builder


def demo(folder: Path, how_many: int = 6, devices: int = 2500) -> StoreBuilder:
    """Return a store with `how_many` weeks of releases of eight plans, and one failed round."""
    names = ("wake-word-weekly", "model-a-against-b", "det-by-accent", "command-confusions",
             "correction-rate-by-intent", "dictation-word-error-rate", "noise-robustness")  # fmt: skip
    texts = [plan_text(name) for name in names] + [(HERE / "two-way.yaml").read_text()]
    plans = [plan_of(text) for text in texts]
    builder = StoreBuilder(folder)
    weeks(builder, plans, how_many, devices)
    until = START + how_many * WEEK
    failed = released(
        plans[0],
        np.zeros(compile_plan(plans[0]).length, np.int64),
        until + WEEK,
        devices,
        release_id("failed"),
    )
    builder.fail(
        failed,
        "masked",
        "1,702 of 2,500 devices answered `masked` in time, 2,250 are needed; nothing was released",
    )
    return builder
