"""The Flower ServerApp that a deployment runs, as `[tool.flwr.app]` names it.

Its run configuration (`flwr run --run-config`) says what the run is about and where the others are:

    plan         file of the plan; what `fa plan sign` left beside it says who vouches for it
    population   whose budget is charged
    engine       what the release calls this federation
    nodes        how many nodes to wait for
    devices      how many devices they stand for
    deadline     seconds that a stage may take
    store        a folder, or postgresql://…
    log-key      file with the private key of the transparency log
    authority    file with the enrolment authority's public key
    witness      the witness's socket

The window ends with the last full hour. How the run ended is in the store; an end without a release also ends
the ServerApp with its error.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from fa_core.enrolment import read_hex, read_key
from fa_core.errors import BadInput
from fa_core.plan import load
from fa_core.rounds.narrate import narrator
from fa_core.rounds.parties import Parties, signature_beside
from fa_core.rounds.round import MonotonicClock, Pace, Watch
from fa_core.rounds.run import Job, Surroundings, run
from fa_core.store import open_store
from fa_core.transport import Grid, server_app
from fa_core.witness_socket import WitnessClient

POLL_SECONDS = 1.0

KEYS = (
    "plan",
    "population",
    "engine",
    "nodes",
    "devices",
    "deadline",
    "store",
    "log-key",
    "authority",
    "witness",
)


def main(grid: Grid, config: Mapping[str, Any]) -> None:
    """Run the plan that the run configuration names over the nodes of a federation."""
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
        until=_now().replace(minute=0, second=0, microsecond=0),
        engine=str(config["engine"]),
        simulated=False,
        synthetic=False,
        nodes=int(config["nodes"]),
        devices=int(config["devices"]),
    )
    parties = Parties(
        log_key=read_key(Path(config["log-key"])),
        authority=read_hex(Path(config["authority"])),
        witness=WitnessClient(Path(config["witness"])),
    )
    pace = Pace(float(config["deadline"]), POLL_SECONDS)
    with open_store(str(config["store"])) as store, narrator(Console(stderr=True)) as report:
        watch = Watch(report, lambda: False)
        run(job, grid, Surroundings(store, parties, pace, MonotonicClock(), _now, watch))


def _now() -> datetime:
    return datetime.now(UTC)


app = server_app(main)
