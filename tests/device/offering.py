"""A collection that leader and helper opened in a world of one device: its task, and invitations to it."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.device.admission import Terms
from clients.device.counting import measure
from clients.device.odometer import Budget
from clients.device.policy import Policy
from fa_core.collection.report import Report, check_sender, open_share
from fa_core.collection.task import Offer, SignedTask, Task, asked, to_sign
from fa_core.layout import compile_plan, layout_hash
from fa_core.merkle import Tree, leaf_hash
from fa_core.plan import Plan
from fa_core.prio.blocks import prio
from fa_core.prio.prio3 import Input
from fa_core.secagg.identity import population_id
from fa_core.trust.hpke import OpeningKey
from fa_core.values import Int64Array
from fa_core.wire.invitation import encode
from tests.device.setup import BUDGET, NOW, POLICY, POPULATION, Setup, World, plan_of, raw

HOUR = timedelta(hours=1)
SEALING = OpeningKey.generate()
LEADER, HELPER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


def summed_plan(name: str = "weekly", kappa: str = "0.25", privacy: str = "", **changes: str) -> Plan:
    """Return the tests' plan, with its sum formed by two aggregators; `privacy` are more lines of YAML."""
    more = f"  sum: two_aggregators\n  kappa: {kappa}\n{privacy}"
    return plan_of(name, noise="distributed", more=more, **changes)


PLAN = summed_plan()
SYSTEM = prio(PLAN)


@dataclass
class Collection:
    """A release whose task is signed and logged. `changes` are of the task, made before it is signed."""

    world: World
    plan: Plan = PLAN
    until: datetime = NOW
    opens: datetime = NOW - HOUR
    closes: datetime = NOW + 23 * HOUR
    release: bytes = b""
    changes: dict[str, Any] = field(default_factory=dict)
    signed: SignedTask = field(init=False)

    def __post_init__(self) -> None:
        self.release = self.release or self.world.release()
        charge = self.world.asked(self.plan, self.release, self.until, NOW).charge
        layout = compile_plan(self.plan)
        kappa = self.plan.privacy.kappa
        assert kappa is not None
        task = Task(
            plan=bytes.fromhex(self.plan.hash),
            layout=layout_hash(layout),
            release=self.release,
            population=population_id(POPULATION),
            charge=sha256(charge).digest(),
            start=self.until - self.plan.window,
            until=self.until,
            opens=self.opens,
            closes=self.closes,
            leader=raw(LEADER),
            helper=raw(HELPER),
            sealing=SEALING.public,
            least=self.plan.privacy.min_cohort,
            kappa=kappa,
        )
        task = replace(task, **self.changes)
        message = to_sign(task)
        witness = self.world.witness_key.sign(asked(task).message())
        self.signed = SignedTask(task, LEADER.sign(message), HELPER.sign(message), witness)

    @property
    def task(self) -> Task:
        """The task."""
        return self.signed.task

    def invite(self, at: datetime = NOW, **changes: Any) -> bytes:
        """Return an invitation under a checkpoint of `at`, encoded; `changes` are of its offer."""
        leaf = leaf_hash(self.signed.entry())
        self.world.leaves += [each for each in (leaf,) if each not in self.world.leaves]
        invitation = self.world.asked(self.plan, self.release, self.until, at, charged_at=NOW)
        index = self.world.leaves.index(leaf)
        offer = Offer(self.signed, index, Tree(self.world.leaves).inclusion(index))
        return encode(replace(invitation, request=replace(offer, **changes).encode()))

    def shared(self, data: bytes) -> Int64Array:
        """Return what a report shares, int64 (elements,), checked as leader and helper do."""
        system = prio(self.plan)
        report, task, key = Report.parse(data, system), self.task, bytes(32)
        sender = report.device, report.certificate, report.signature
        check_sender(task, self.world.authority.public_key, *sender, report.body_hash)
        box = open_share(task.id, SEALING.private(), report.id, report.device, report.public, report.box)
        begun = [
            system.begin(role, key, task.id, [Input(report.id, report.public, share)])
            for role, share in ((0, report.leader), (1, box))
        ]
        messages = system.decide(task.id, *(each.verifiers for each in begun))
        totals = [system.finish(each, messages) for each in begun]
        assert all(each.accepted.all() for each in totals)
        return system.unshard([each.total for each in totals])


def pinning(setup: Setup, budget: Budget = BUDGET, policy: Policy = POLICY) -> Setup:
    """Have the device pin the helper, with another budget or policy."""
    setup.terms = Terms(budget, policy, replace(setup.world.pins(), helper=raw(HELPER)))
    return setup


def of_the_table(setup: Setup, plan: Plan = PLAN) -> Int64Array:
    """Return what the store's rows come to, without the device."""
    store = setup.store()
    table = store.table("wake_events", "quality_metrics", NOW - plan.window, NOW)
    found = measure(plan, {"wake_events": table}, store.facts(), NOW)
    store.close()
    return np.asarray(found)
