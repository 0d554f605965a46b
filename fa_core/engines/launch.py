"""Assembles a run on this machine: a plan, a fleet directory, an engine, a store and local signers."""

import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from clients.app import Devices, relay
from clients.device.trust import Pins
from clients.evaluate import (
    Cohort,
    cohort_of_fleet,
    device_vectors,
    seeded_randomness,
    system_randomness,
)
from clients.fleet.fit import fit
from clients.fleet.tables import Fleet, read_fleet
from clients.party import FleetNodes, pins_of, simulated
from clients.uploads import UploadingFleet
from fa_core.engines.collection import aggregators_of, collect, end_killed
from fa_core.engines.killed import noted
from fa_core.engines.tables import count
from fa_core.errors import BadInput
from fa_core.flower.local_workers import run_local
from fa_core.flower.transport import PARTITION, Grid, ServerApp, run_simulation, server_app
from fa_core.layout import compile_plan
from fa_core.plan import Plan, SignedPlan, load
from fa_core.rounds.keys import (
    LocalKeys,
    give_budgets,
    keys_folder,
    local_keys,
    local_signers,
    signature_beside,
)
from fa_core.rounds.progress import Event, progress_display
from fa_core.rounds.round import MonotonicClock, Pace, Watch
from fa_core.rounds.run import Job, RunContext, run
from fa_core.store import open_store
from fa_core.values import HERE, TABLES, Estimates, Release

SIMULATION_SECONDS = 3600.0
"""Longest that a stage may take on Flower's simulation engine, where a worker process may hang."""

LAST_SECONDS = 60.0
"""How long a round may take to end, and to record that in the store, once its engine has stopped."""

HUB = 8
"""Devices behind one node of the local engine: a Flower message costs as much for one as for several."""


Outcome = tuple[Release, Estimates]

ProgressDisplay = Callable[[], AbstractContextManager[Callable[[Event], None]]]
"""Makes the function that receives a run's progress, for the time of the run."""


@dataclass(frozen=True, slots=True)
class Order:
    """A request to run a plan.

    Attributes:
        plan: its file. fleet: a fleet directory. engine: one of `HERE`.
        seed: of the sampling of events, None for the operating system's randomness.
        store: a folder or postgresql://….
        until: end of the window, a whole hour, UTC, at which the clock of the engine tables stands; None for
            the end of what the fleet recorded, and the machine's clock.
        helper: the file of a helper that runs as a process of its own; None for one within this process.
    """

    plan: Path
    fleet: Path | None
    engine: str
    seed: int | None
    store: str
    until: datetime | None = None
    helper: Path | None = None


@dataclass(frozen=True, slots=True)
class _RunSetup:
    """The inputs of a run, complete before an engine starts."""

    order: Order
    plan: Plan
    signed: SignedPlan
    fleet: Fleet
    cohort: Cohort
    keys: LocalKeys
    stopped: threading.Event
    display: ProgressDisplay
    warn: Callable[[str], None]


def _to_stderr(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def launch(
    order: Order,
    display: ProgressDisplay = lambda: progress_display(Console(stderr=True)),
    warn: Callable[[str], None] = _to_stderr,
) -> Outcome:
    """Run a plan over a fleet directory and return what was released and stored.

    `display` shows the progress, and `warn` says what makes the run useless, on standard error by default.
    Raises BadInput, Refused or RoundFailed. A first Ctrl-C ends the round as failed; a second kills.
    """
    if order.engine not in HERE:
        raise BadInput(f"there is no engine {order.engine!r} here; `local`, `simulation` and `tables` are")
    if order.until is not None and order.engine != TABLES:
        raise BadInput("--until sets the clock of the engine `tables`; other engines have the machine's")
    if order.fleet is None:
        raise BadInput(
            f"the engine {order.engine} needs --fleet DIR; `fa fleet make` or `fa fleet import` makes one"
        )
    if order.helper is not None and order.engine != "local":
        raise BadInput("--helper is for the engine `local`, which alone forms sums by two aggregators")
    fleet = read_fleet(order.fleet)
    if order.until is None:
        _check_window(fleet)
    else:
        fleet = replace(fleet, until=order.until)
    plan = load(order.plan, fleet=fleet.devices.num_rows)
    cohort = cohort_of_fleet(fleet.devices, fleet.tables)
    # One device is counted before anything is announced: a table that the plan reads may be missing.
    device_vectors(plan, compile_plan(plan), cohort.part(0, 1), fleet.until)
    fitted = fit(plan, cohort, fleet.until, closely=False)
    if not fitted.in_window:
        raise BadInput(
            f"{order.fleet}: no device has a row that the plan could count in the {fitted.window} "
            f"until {fleet.until:%Y-%m-%d %H:%M} UTC; nothing was charged"
        )
    for text in fitted.warnings():
        warn(text)
    keys = local_keys(keys_folder(order.store))
    signed = signature_beside(order.plan, plan) or SignedPlan.of(plan, keys.plan)
    if order.engine == TABLES:
        return _count(order, plan, signed, fleet, cohort, keys)
    with _stop_signals() as stopped:
        setup = _RunSetup(order, plan, signed, fleet, cohort, keys, stopped, display, warn)
        if order.engine == "local" and plan.privacy.sum == "two_aggregators":
            return _collect(setup)
        return _start(setup)


def _check_window(fleet: Fleet) -> None:
    """Refuse a window that ends ahead of the clock, where a device with a wrong date moves it."""
    now = _today()
    if not fleet.synthetic and fleet.until > now + timedelta(hours=1):
        raise BadInput(
            f"the fleet's window ends at {fleet.until:%Y-%m-%d %H:%M} UTC, ahead of this computer's clock, "
            f"{now:%Y-%m-%d %H:%M}; import its tables again without the rows that are ahead"
        )


def _start(setup: _RunSetup) -> Outcome:
    """Start the engine; the run itself begins when the engine has the nodes ready."""
    ended: Future[Outcome] = Future()

    def main(grid: Grid, config: Mapping[str, Any]) -> None:
        _settle(ended, lambda: _run(setup, grid))

    if setup.order.engine == "local":
        _on_local(setup, server_app(main))
    else:
        _on_simulation(setup, server_app(main), ended)
    return ended.result(timeout=LAST_SECONDS)


def _job(order: Order, plan: Plan, signed: SignedPlan, fleet: Fleet) -> Job:
    devices = fleet.devices.num_rows
    return Job(
        plan=plan,
        signed=signed,
        population=fleet.population,
        until=fleet.until,
        engine=order.engine,
        simulated=True,
        synthetic=fleet.synthetic,
        nodes=math.ceil(devices / _behind_a_node(plan)) if order.engine == "local" else devices,
        devices=devices,
    )


def _count(
    order: Order, plan: Plan, signed: SignedPlan, fleet: Fleet, cohort: Cohort, keys: LocalKeys
) -> Outcome:
    """Run the engine `tables`. Ctrl-C ends it as a failure in the store."""
    job, until = _job(order, plan, signed, fleet), order.until
    clock = _today if until is None else lambda: until
    randomness = system_randomness if order.seed is None else seeded_randomness(order.seed)
    with open_store(order.store) as store:
        give_budgets(store, keys.authority, job.population, plan.privacy.accounting, clock())
        context = RunContext(
            store=store,
            signers=local_signers(keys, clock),
            pace=Pace(math.inf, 0.05),
            clock=MonotonicClock(),
            today=clock,
            watch=Watch(lambda _: None, lambda: False),
        )
        return count(job, cohort, context, randomness)


def _run(setup: _RunSetup, grid: Grid) -> Outcome:
    with _context(setup) as (job, context):
        return run(job, grid, context)


def _collect(setup: _RunSetup) -> Outcome:
    """Run a plan whose sum two aggregators form."""
    order, keys = setup.order, setup.keys
    randomness = system_randomness if order.seed is None else seeded_randomness(order.seed)
    with (
        _context(setup) as (job, context),
        aggregators_of(order.helper, keys_folder(order.store), keys, context) as aggregators,
    ):
        pins = _pins(setup, aggregators.helper_key)
        fleet = UploadingFleet(setup.cohort, pins, keys.authority, job.population, randomness)
        place = keys_folder(order.store) / "collections"
        end_killed(place, aggregators, context, setup.warn)
        with noted(place, job, context.store):
            return collect(job, fleet, aggregators, context)


@contextmanager
def _context(setup: _RunSetup) -> Iterator[tuple[Job, RunContext]]:
    """Yield the job and what it needs, over the open store."""
    local = setup.order.engine == "local"
    job = _job(setup.order, setup.plan, setup.signed, setup.fleet)
    with open_store(setup.order.store) as store, setup.display() as report:
        give_budgets(store, setup.keys.authority, job.population, setup.plan.privacy.accounting, _today())
        yield (
            job,
            RunContext(
                store=store,
                signers=local_signers(setup.keys, _today),
                pace=Pace(math.inf, 0.05) if local else Pace(SIMULATION_SECONDS, 0.1),
                clock=MonotonicClock(),
                today=_today,
                watch=Watch(report, setup.stopped.is_set, report),
            ),
        )


def _on_local(setup: _RunSetup, server: ServerApp) -> None:
    fleet = simulated(
        setup.cohort, _pins(setup), setup.keys.authority, setup.fleet.population, setup.order.seed
    )
    size = _behind_a_node(setup.plan)

    def behind(config: Mapping[str, Any]) -> Devices:
        first = int(config[PARTITION]) * size
        return {slot: fleet.device(first + slot) for slot in range(min(size, len(fleet) - first))}

    run_local(server, relay(behind), math.ceil(len(fleet) / size))


def _behind_a_node(plan: Plan) -> int:
    """Return how many devices a node of the local engine has: one where a sample of the nodes is asked."""
    return HUB if plan.eligibility.sample == 1 else 1


def _on_simulation(setup: _RunSetup, server: ServerApp, ended: "Future[Outcome]") -> None:
    authority = setup.keys.authority.key.private_bytes_raw()
    assert setup.order.fleet is not None
    nodes = FleetNodes(setup.order.fleet.resolve(), _pins(setup), authority, setup.order.seed)
    try:
        run_simulation(server, relay(nodes), len(setup.cohort))
    finally:
        # If the engine fails, the round must not wait for it: it ends as stopped.
        setup.stopped.set()
        wait([ended], timeout=LAST_SECONDS)


def _pins(setup: _RunSetup, helper: bytes | None = None) -> Pins:
    log, witness = _public(setup.keys.log), _public(setup.keys.witness)
    return pins_of(setup.signed.key, log, witness, setup.keys.authority.public_key, helper)


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _settle(ended: "Future[Outcome]", work: Callable[[], Outcome]) -> None:
    """Do the work and keep its result or error for the waiting thread."""
    try:
        ended.set_result(work())
    except BaseException as error:  # noqa: BLE001 - raised again by `ended.result()`
        ended.set_exception(error)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets; the second does what it did before."""
    stopped = threading.Event()
    before: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()
        signal.signal(number, before[number])

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        before[number] = signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _today() -> datetime:
    return datetime.now(UTC)
