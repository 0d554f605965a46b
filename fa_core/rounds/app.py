"""The Flower ServerApp that a deployment runs, as `[tool.flwr.app]` names it.

Its run configuration (`flwr run --run-config`) has:

    plan         file of the plan, with the signature that `fa plan sign` wrote beside it
    release      id of the coming release, 32 hexadecimal digits, by which its end is found
    population   whose budget is charged
    until        end of the window, a whole hour in UTC (ISO 8601); empty: the last full hour
    simulated    whether the devices are a laboratory's
    synthetic    whether their voices are synthetic
    engine       name of this federation in the release
    nodes        how many nodes to wait for
    devices      how many devices they stand for
    deadline     seconds that a stage may take
    store        a folder, or postgresql://…
    log-key      file with the private key of the transparency log
    authority    file with the enrolment authority's public key
    witness      the witness's socket
    helper       the helper's file, as `fa helper init` writes it; empty: no sums by two aggregators
    leader       the leader's database, a file or postgresql://…
    leader-key   file with the leader's private key
    window       for how many hours a sum by two aggregators takes reports
    enough       how many devices counted end it before, 0 for none

A plan whose sum two aggregators form is drained once: the run ends, and its release may still be open.
How the run ended is in the store; an end without a release also ends the ServerApp with its error. Progress
and the end are reported on standard output as well (`fa_core.rounds.progress_events`).
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fa_core.collection.exchange import HelperClient, read_address
from fa_core.errors import BadInput
from fa_core.flower.transport import Grid, server_app
from fa_core.plan import load
from fa_core.rounds.drain import Collection, drain, leading
from fa_core.rounds.keys import Signers, signature_beside
from fa_core.rounds.progress_events import progress_reporter, report_end, standing_reporter
from fa_core.rounds.round import MonotonicClock, Pace, Watch
from fa_core.rounds.run import Job, RunContext, run
from fa_core.rounds.standing import Standing
from fa_core.store import open_store
from fa_core.trust.enrolment import read_hex, read_key
from fa_core.trust.witness_service import WitnessClient

POLL_SECONDS = 1.0

WITNESS_SECONDS = 60.0
"""How long a witness that does not answer is retried: it may be restarting."""

HELPER_SECONDS = 10.0
"""How long a helper that does not answer is asked again: the next drain asks it as well."""

KEYS: Mapping[str, str | int | float | bool] = {
    "plan": "",
    "release": "",
    "population": "",
    "until": "",
    "simulated": False,
    "synthetic": False,
    "engine": "",
    "nodes": 0,
    "devices": 0,
    "deadline": 0.0,
    "store": "",
    "log-key": "",
    "authority": "",
    "witness": "",
    "helper": "",
    "leader": "",
    "leader-key": "",
    "window": 0.0,
    "enough": 0,
}
"""The run configuration's keys, each with a value of its type: Flower wants them declared in the bundle."""


def main(grid: Grid, config: Mapping[str, Any]) -> None:
    """Run the plan that the run configuration names over a federation, and report how it ended."""
    try:
        text = _run(grid, config)
    except BaseException as error:
        report_end(error)
        raise
    report_end(None, text=text)


def _run(grid: Grid, config: Mapping[str, Any]) -> str:
    """Run the plan, and say how that ended: "released", or "open"."""
    if missing := [key for key in KEYS if key not in config]:
        raise BadInput(f"the run configuration lacks {', '.join(missing)}")
    file = Path(config["plan"])
    plan = load(file)
    signed = signature_beside(file, plan)
    if signed is None:
        raise BadInput(f"{file}: nobody signed it, so no device would answer; `fa plan sign` does")
    job = Job(
        plan=plan,
        signed=signed,
        population=str(config["population"]),
        until=_until(str(config["until"])),
        engine=str(config["engine"]),
        simulated=bool(config["simulated"]),
        synthetic=bool(config["synthetic"]),
        nodes=int(config["nodes"]),
        devices=int(config["devices"]),
        release=_release(str(config["release"])),
    )
    signers = Signers(
        log_key=read_key(Path(config["log-key"])),
        authority=read_hex(Path(config["authority"])),
        witness=WitnessClient(Path(config["witness"]), WITNESS_SECONDS),
    )
    pace = Pace(float(config["deadline"]), POLL_SECONDS)
    with open_store(str(config["store"])) as store:
        watch = Watch(progress_reporter(), lambda: False, standing_reporter())
        context = RunContext(store, signers, pace, MonotonicClock(), _now, watch)
        if plan.privacy.sum == "two_aggregators":
            return _drain(job, grid, config, context)
        run(job, grid, context)
    return "released"


def _drain(job: Job, grid: Grid, config: Mapping[str, Any], context: RunContext) -> str:
    """Drain the collection of a plan whose sum two aggregators form."""
    if not config["helper"]:
        raise BadInput("federation.toml: [collection] names no helper, so two aggregators form no sum here")
    address, key = read_address(Path(config["helper"])), read_key(Path(config["leader-key"]))
    helper = HelperClient(address, key, HELPER_SECONDS)
    window, enough = timedelta(hours=float(config["window"])), int(config["enough"])
    with leading(str(config["leader"]), key, context.signers.authority) as leader:
        found = drain(job, grid, Collection(leader, helper, window, enough), context)
    return "open" if isinstance(found, Standing) else "released"


def _until(text: str) -> datetime:
    """Return the end of the window. Raises BadInput for anything but a whole hour in UTC."""
    if not text:
        return _now().replace(minute=0, second=0, microsecond=0)
    try:
        until = datetime.fromisoformat(text)
    except ValueError:
        until = None
    if until is None or until.utcoffset() != timedelta(0) or until.timestamp() % 3600:
        raise BadInput(f"until: {text!r} is not a whole hour in UTC, such as 2026-11-22T07:00:00Z")
    return until.astimezone(UTC)


def _release(text: str) -> bytes:
    try:
        release = bytes.fromhex(text)
    except ValueError:
        release = b""
    if len(release) != 16:
        raise BadInput("release: expected an id of 32 hexadecimal digits")
    return release


def _now() -> datetime:
    return datetime.now(UTC)


app = server_app(main)
