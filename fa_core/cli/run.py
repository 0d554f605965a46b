"""`fa run`: one plan, one round, one release."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fa_core.cli.alerting import alerting
from fa_core.errors import BadInput
from fa_core.values import HERE

if TYPE_CHECKING:
    from fa_core.federation.directory import Federation
    from fa_core.federation.runs import Outcome

DETACHED = 130


def run(
    plan: Annotated[Path | None, typer.Argument(help="A plan, in YAML.", show_default=False)] = None,
    fleet: Annotated[
        Path | None, typer.Option(help="A fleet directory: the devices to ask.", show_default=False)
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="local; simulation (Flower's); tables (counted without messages, for large fleets); or a "
            "federation: its directory or name."
        ),
    ] = "local",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    seed: Annotated[
        int | None, typer.Option(help="Draw the events that count by this seed.", show_default=False)
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="A folder, or postgresql://…  [.unheard; a federation has its own]", show_default=False
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            show_default=False,
            help="End of the window, to which the engine tables sets its clock. Left out: the fleet's end.",
        ),
    ] = None,
    helper: Annotated[
        Path | None,
        typer.Option(
            show_default=False,
            help="helper.json of a `fa helper serve`, for a plan with `sum: two_aggregators`; left out: one "
            "within this process.",
        ),
    ] = None,
    attach: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", show_default=False, help="Come back to a federation's run: `latest` or its id."
        ),
    ] = None,
) -> None:
    """Ask devices what a plan asks, and release the noised answer. The ledger is charged before."""
    # Imported here: Flower and the samplers take seconds, for which no other command should wait.
    from clients.fleet.tables import parse_until
    from fa_core.cli.results import show_release
    from fa_core.engines.launch import Order, launch
    from fa_core.store import DEFAULT, open_store

    if engine not in HERE:
        federation, found = on_federation(engine, plan, attach, (fleet, seed, store, until, helper))
        kept = federation.store
        show_release(found.release, found.estimates, synthetic=found.synthetic, as_json=as_json, store=kept)
        if not as_json:
            typer.echo(f"stored in {kept}")
        return
    if attach is not None:
        raise BadInput("--attach comes back to a run on a federation: name it with --engine")
    if plan is None:
        raise BadInput("which plan? `fa run PLAN`")
    place = store or DEFAULT
    end = None if until is None else parse_until(until, "--until")
    with alerting(place):
        release, estimates = launch(Order(plan, fleet, engine, seed, place, end, helper))
    with open_store(place, create=False) as opened:
        synthetic = opened.find(release.id).synthetic
    show_release(release, estimates, synthetic=synthetic, as_json=as_json, store=place)


def on_federation(
    engine: str, plan: Path | None, attach: str | None, not_here: tuple[object, ...]
) -> "tuple[Federation, Outcome]":
    """Launch a plan on a federation, or come back to a run there; return how it ended.

    `not_here`: options that a federation does not have; none may be given. Raises what the run ended with.
    """
    from rich.console import Console

    from fa_core.database.connection import Unavailable
    from fa_core.federation import runs
    from fa_core.federation.directory import open_federation
    from fa_core.flower.superlink import Unanswered
    from fa_core.rounds.progress import progress_display

    federation = open_federation(Path(engine))
    if (plan is None) == (attach is None):
        raise BadInput("either a plan to launch, or --attach RUN to come back to one")
    if any(each is not None for each in not_here):
        raise BadInput(
            "a federation has its own devices, store, helper and randomness: "
            "no --fleet, --seed, --store, --until or --helper"
        )
    if plan is not None:
        run = runs.launch(federation, plan)
        typer.echo(f"run {run.release}: {runs.tolerance(federation, plan)}", err=True)
    else:
        assert attach is not None
        run = runs.find(federation, attach)
    back = f"fa run --attach {run.release} --engine {engine}"
    try:
        with progress_display(Console(stderr=True)) as report:
            ended = runs.follow(federation, run, report)
        with alerting(federation.store):
            return federation, runs.outcome(federation, run, ended)
    except KeyboardInterrupt:
        typer.echo(f"detached; the run goes on. Come back with: {back}", err=True)
        raise typer.Exit(DETACHED) from None
    except (Unanswered, Unavailable) as error:
        raise type(error)(f"{error}; how the run ends is not known here. Come back with: {back}") from None
