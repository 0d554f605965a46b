"""A plan of two aggregators, a task and reports for it, and a release of it."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from hashlib import sha256

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.collection.report import Report, seal
from fa_core.collection.task import SignedTask, Task, asked, to_sign
from fa_core.layout import compile_plan, layout_hash
from fa_core.plan import parse
from fa_core.prio.blocks import nothing, prio
from fa_core.privacy.two_aggregators import variance_in_release
from fa_core.secagg.identity import DeviceIdentity, population_id
from fa_core.trust.enrolment import Authority
from fa_core.trust.hpke import OpeningKey
from fa_core.values import Layout, Participation, Release

PLAN = """\
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: misses, revision: 1, owner: quality, question: How often?, expires: 2099-03-31}
source: wake_events
window: 7d
segments:
  accent: {device: accent, values: [en-GB, en-IN, en-US]}
group_by: [[], [accent]]
metrics:
  misses: {kind: rate, of: {outcome: false_reject}, over: {outcome: [false_reject, true_accept]}}
privacy:
  {epsilon: 1, PRIVACY}
"""


def plan_text(privacy: str) -> str:
    """Return a plan's YAML with these keys under `privacy`."""
    return PLAN.replace("PRIVACY", privacy)


def released(layout: Layout) -> Release:
    """Return a release of zeros."""
    at = datetime(2026, 11, 22, tzinfo=UTC)
    return Release(
        id="00" * 16,
        plan=b"",
        layout=layout,
        population="small",
        engine="local",
        simulated=True,
        created=at,
        window_start=at,
        window_end=at,
        participation=Participation(100, 100, 0, 100),
        sums=np.zeros(layout.length, np.int64),
        scales=np.ones(len(layout.blocks), np.int64),
        noise_variance=variance_in_release(layout),
        secure_aggregation=True,
    )


PRIVACY = "sum: two_aggregators, min_cohort: 6"
POPULATION = "small"
UNTIL = datetime(2026, 11, 22, 3, tzinfo=UTC)
OPENS, CLOSES = UNTIL + timedelta(hours=1), UNTIL + timedelta(hours=25)
NOW = UNTIL + timedelta(hours=2)
RELEASE = bytes(range(16))
ROW = b"a row of the ledger"

PARSED = parse(plan_text(PRIVACY).encode(), "plan.yaml", policy=None)
LAYOUT = compile_plan(PARSED)
PROOF_SYSTEM = prio(PARSED)
AUTHORITY = Authority(Ed25519PrivateKey.generate())
LEADER, HELPER, WITNESS, LOG = (Ed25519PrivateKey.generate() for _ in range(4))
SEALING = OpeningKey.generate()
DEVICES = [AUTHORITY.enrol(POPULATION) for _ in range(8)]


def public(key: Ed25519PrivateKey) -> bytes:
    """Return a public key, 32 bytes."""
    return key.public_key().public_bytes_raw()


TASK = Task(
    plan=bytes.fromhex(PARSED.hash),
    layout=layout_hash(LAYOUT),
    release=RELEASE,
    population=population_id(POPULATION),
    charge=sha256(ROW).digest(),
    start=UNTIL - PARSED.window,
    until=UNTIL,
    opens=OPENS,
    closes=CLOSES,
    leader=public(LEADER),
    helper=public(HELPER),
    sealing=SEALING.public,
    least=PARSED.privacy.min_cohort,
    kappa=Fraction(1, 4),
)


def signed_task(task: Task = TASK) -> SignedTask:
    """Return a task that leader, helper and witness signed."""
    return SignedTask(
        task, LEADER.sign(to_sign(task)), HELPER.sign(to_sign(task)), WITNESS.sign(asked(task).message())
    )


def nothing_of(device: DeviceIdentity, task: Task = TASK) -> Report:
    """Return a report of a device that counted nothing."""
    return seal(task, PROOF_SYSTEM, nothing(PARSED), device)
