"""The round that `fa audit` asks for: real ledger, log, witness and devices, in a folder of its own."""

import math
import tempfile
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa

from clients.device.interface import Declined
from clients.evaluate import cohort_of_fleet, system_randomness
from clients.party import SimulatedFleet, pins_of
from fa_core.audit.charge import Asked
from fa_core.audit.pipelines import audited_plan
from fa_core.errors import Refused
from fa_core.layout import compile_plan
from fa_core.plan import SignedPlan, canonical
from fa_core.rounds.keys import LocalKeys, give_budgets, local_keys, local_signers
from fa_core.rounds.round import MonotonicClock, Pace, Watch
from fa_core.rounds.run import Job, RunContext, charge_of, in_four_stages, invitation_of, require_budgets
from fa_core.secagg import DeviceParty, Server, Task, Trust, Witness
from fa_core.store import Store, open_store
from fa_core.tables import SOURCES
from fa_core.trust.enrolment import Authority
from fa_core.wire.invitation import Invitation, encode

POPULATION, DEVICES = "audit", 50


def ask(charged: bool) -> Asked:
    """Ask devices and witness for a second round of the audited plan, after a first one that is charged.

    `charged`: whether the second is; if not, its invitation shows the charge of the first.
    """
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as place:
        keys = local_keys(Path(place) / "keys")
        with open_store(str(Path(place) / "store")) as store:
            give_budgets(store, keys.authority, POPULATION, "zcdp", now)
            job, task, invitation = _invite(store, keys, charged, now)
            release = job.release.hex()
            held = (each.cost for each in store.charges(POPULATION) if each.release == release)
            return Asked(
                cost=compile_plan(job.plan).cost,
                charged=sum(held, Fraction(0)),
                devices=DEVICES,
                joined=_joined(keys, job, encode(invitation)),
                signed=_signed(local_signers(keys, lambda: now).witness, keys.authority, task, invitation),
            )


def _invite(store: Store, keys: LocalKeys, charged: bool, now: datetime) -> tuple[Job, Task, Invitation]:
    """Charge a first round, and invite to a second one."""
    plan = audited_plan("zcdp", "distributed", "1")
    until = now.replace(minute=0, second=0, microsecond=0)
    first, second = (
        Job(plan, SignedPlan.of(plan, keys.plan), POPULATION, until, "local", True, True, DEVICES, DEVICES)
        for _ in range(2)
    )
    signers = local_signers(keys, lambda: now)
    watch = Watch(lambda progress: None, lambda: False)
    context = RunContext(store, signers, Pace(math.inf, 0.01), MonotonicClock(), lambda: now, watch)
    logged = store.announce(canonical(plan), first.signed.key, first.signed.signature)
    paid = store.charge(charge_of(first, compile_plan(plan), first.release.hex(), now))
    if charged:
        paid = store.charge(charge_of(second, compile_plan(plan), second.release.hex(), now))
    budgets = require_budgets(second, context)
    invitation = invitation_of(second, logged.index, paid.log_index, budgets, context)
    return second, *in_four_stages(second, invitation)


def _joined(keys: LocalKeys, job: Job, request: bytes) -> int:
    """Return how many devices answer an invitation."""
    names = pa.table({"device_id": [f"{number:02}" for number in range(DEVICES)]})
    none = SOURCES["wake_events"].arrow_schema(device_id=True).empty_table()
    log, witness = (key.public_key().public_bytes_raw() for key in (keys.log, keys.witness))
    pins = pins_of(job.signed.key, log, witness, keys.authority.public_key)
    cohort = cohort_of_fleet(names, {"wake_events": none})
    fleet = SimulatedFleet(cohort, pins, keys.authority, POPULATION, system_randomness)
    joined = 0
    for number in range(DEVICES):
        try:
            fleet.device(number).handle("join", request)
        except Declined:
            continue
        joined += 1
    return joined


def _signed(witness: Witness, authority: Authority, task: Task, invitation: Invitation) -> bool:
    """Return whether the witness signs a roster of devices that join whatever they are asked."""
    trust = Trust(authority.public_key, bytes(32))
    none = np.zeros(task.length, np.int64)
    server = Server(task, authority.public_key, witness, range(DEVICES), invitation.charge_proof.encode())
    parties = [DeviceParty(task, authority.enrol(POPULATION), trust, lambda _: none) for _ in range(DEVICES)]
    try:
        server.receive({number: party.join(invitation.request) for number, party in enumerate(parties)})
    except Refused:
        return False
    return True
