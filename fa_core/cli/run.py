"""`fa run`: one plan, one round, one release."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fa_core.cli.alerting import alerting
from fa_core.errors import BadInput
from fa_core.values import HERE

if TYPE_CHECKING:
    from fa_core.federation.directory import Federation
    from fa_core.federation.runs import Outcome, Run
    from fa_core.rounds.progress import Event
    from fa_core.rounds.standing import Standing

DETACHED = 130
LEAST_PAUSE = 1.0
"""Seconds between the end of a collection's window and the drain that closes it."""

_HOURS = {"m": Fraction(1, 60), "h": Fraction(1), "d": Fraction(24)}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a collection: for how many hours, and how many counted end it; None: not said."""

    hours: float | None = None
    enough: int | None = None


def parse_window(text: str) -> float:
    """Return the hours that a text such as 72h, 3d or 90m says. Raises BadInput for any other.

    >>> parse_window("3d")
    72.0
    """
    from fa_core.federation.directory import LONGEST_HOURS

    number, unit = text[:-1], text[-1:]
    if unit in _HOURS and number.isascii() and number.isdigit():
        hours = float(int(number) * _HOURS[unit])
        if 0 < hours <= LONGEST_HOURS:
            return hours
    raise BadInput(
        f"--window: {text!r} is not a time such as 72h, 3d or 90m, of at most {LONGEST_HOURS // 24} days"
    )


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
    window: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            show_default=False,
            help="With `sum: two_aggregators` on a federation: for how long reports are taken, such as 72h, "
            "3d or 90m.  [what the federation says]",
        ),
    ] = None,
    enough: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default=False,
            help="With `sum: two_aggregators` on a federation: so many counted end it before.",
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
        wanted = Wanted(None if window is None else parse_window(window), enough)
        not_here = (fleet, seed, store, until, helper)
        show_on_federation(engine, plan, attach, not_here, wanted, as_json=as_json)
        return
    if window is not None or enough is not None:
        raise BadInput(
            "--window and --enough are for a federation; the devices of a fleet directory are here"
        )
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


def show_on_federation(
    engine: str,
    plan: Path | None,
    attach: str | None,
    not_here: tuple[object, ...] = (),
    wanted: Wanted = Wanted(),
    *,
    as_json: bool = False,
    wait: bool = True,
) -> None:
    """As `on_federation`, and show what was released."""
    from fa_core.cli.results import show_release

    federation, found = on_federation(engine, plan, attach, not_here, wanted, wait=wait)
    if found is None:
        return
    kept = federation.store
    show_release(found.release, found.estimates, synthetic=found.synthetic, as_json=as_json, store=kept)
    if not as_json:
        typer.echo(f"stored in {kept}")


def on_federation(
    engine: str,
    plan: Path | None,
    attach: str | None,
    not_here: tuple[object, ...],
    wanted: Wanted = Wanted(),
    *,
    wait: bool = True,
) -> "tuple[Federation, Outcome | None]":
    """Launch a plan on a federation, or come back to a run there; return how it ended.

    A collection is drained until its release is there; without `wait` once, and it may be None: open.
    `not_here`: options that a federation does not have; none may be given. Raises what the run ended with.
    """
    from rich.console import Console

    from fa_core.database.connection import Unavailable
    from fa_core.federation import runs
    from fa_core.federation.collections import drain_late, open_collections
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
        run = runs.launch(federation, plan, wanted.hours, wanted.enough)
        typer.echo(f"run {run.release}: {runs.tolerance(federation, plan)}", err=True)
    else:
        assert attach is not None
        if wanted != Wanted():
            raise BadInput("--window and --enough are said when a run is launched, not to --attach")
        run = runs.find(federation, attach)
        if any(each.run == run for each in open_collections(federation)):
            run = runs.drain(federation, run)
    back = f"fa run --attach {run.release} --engine {engine}"
    try:
        drain_late(federation, _now(), besides=run.release)
        with progress_display(Console(stderr=True)) as report, alerting(federation.store):
            found = _followed(federation, run, report, wait=wait)
    except KeyboardInterrupt:
        if run.collects:
            text = f"the collection stays open. `fa schedule --run` drains it, as does: {back}"
        else:
            text = f"the run goes on. Come back with: {back}"
        typer.echo(f"detached; {text}", err=True)
        raise typer.Exit(DETACHED) from None
    except (Unanswered, Unavailable) as error:
        raise type(error)(f"{error}; how the run ends is not known here. Come back with: {back}") from None
    if found is None:
        typer.echo(f"run {run.release} is open; `fa schedule --run` drains it, as does: {back}", err=True)
    return federation, found


def _followed(
    federation: "Federation", run: "Run", report: "Callable[[Event], None]", *, wait: bool
) -> "Outcome | None":
    """Follow a run to its end, and start one drain after another of a collection; None where it is open."""
    from fa_core.federation import runs
    from fa_core.rounds.standing import Standing

    last: list[Standing] = []

    def kept(event: "Event") -> None:
        if isinstance(event, Standing):
            last[:] = [event]
        report(event)

    while True:
        ended = runs.follow(federation, run, kept)
        found = runs.outcome(federation, run, ended)
        if found is not None or not wait:
            return found
        if ended is None or ended.code:
            text = ended.text if ended else "the ServerApp ended without a report"
            typer.echo(f"{text}; the collection is open, and the next drain goes on with it", err=True)
        time.sleep(_pause(federation, last))
        run = runs.drain(federation, run)


def _pause(federation: "Federation", last: "list[Standing]") -> float:
    """Return the seconds until the next drain: as the federation says, or when the window is over."""
    pause = federation.settings.collection.seconds
    if last and last[-1].open:
        left = (last[-1].closes - _now()).total_seconds()
        return min(pause, max(left, 0.0) + LEAST_PAUSE)
    return pause


def _now() -> datetime:
    return datetime.now(UTC)
