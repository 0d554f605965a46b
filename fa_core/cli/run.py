"""`fa run`: one plan, one round, one release."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    plan: Annotated[Path, typer.Argument(help="A plan, in YAML.", show_default=False)],
    fleet: Annotated[
        Path | None, typer.Option(help="A fleet directory: the devices to ask.", show_default=False)
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local, simulation (Flower's), or the name of a federation.")
    ] = "local",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    seed: Annotated[
        int | None, typer.Option(help="Draw the events that count by this seed.", show_default=False)
    ] = None,
    store: Annotated[str, typer.Option(help="A folder, or postgresql://…")] = ".unheard",
) -> None:
    """Ask devices what a plan asks, and release the noised answer. The ledger is charged before."""
    # Imported here: Flower and the samplers take seconds, for which no other command should wait.
    from fa_core.cli.launch import Order, launch
    from fa_core.cli.results import show_release
    from fa_core.store import open_store

    release, estimates = launch(Order(plan, fleet, engine, seed, store))
    with open_store(store, create=False) as opened:
        synthetic = opened.find(release.id).synthetic
    show_release(release, estimates, synthetic=synthetic, as_json=as_json)
