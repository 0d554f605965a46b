"""`fa fleet`: build the device tables of many devices, or bring one's own."""

import json
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fa_core.errors import BadInput

app = typer.Typer(no_args_is_help=True, help="Build the device tables of many devices, or bring your own.")

SHIPPED = Path("eval_plans")
"""The plans to start from, where they are at hand."""

Out = Annotated[Path, typer.Option(help="The fleet directory to write; must not exist, or be empty.")]


class Steps:
    """Progress of one step: a bar on a terminal, a line at each quarter elsewhere."""

    def __init__(self, console: Console, what: str) -> None:
        self._bar = Progress(
            TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self._console, self._what, self._said = console, what, 0
        self._task = self._bar.add_task(what, total=None)

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done. The bar appears with the first."""
        if self._console.is_terminal:
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total)
        quarter = 4 * done // total
        if not self._console.is_terminal and quarter > self._said:
            self._said = quarter
            self._console.print(f"{self._what}: {done:,} of {total:,}", highlight=False)


@app.command()
def make(
    devices: Annotated[int, typer.Option(help="How many devices.")],
    out: Out,
    weeks: Annotated[int, typer.Option(min=1, max=12, help="How many weeks of events each device has.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and bank give the same fleet.")] = 1,
    bank: Annotated[
        Path | None,
        typer.Option(help="Scored utterances; built there if missing. Default: this user's cache."),
    ] = None,
    adapters: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of devices that learned their owner: rows of `personal`, too."
        ),
    ] = 0.0,
) -> None:
    """Build a synthetic fleet: real detectors over real audio, once; then as many devices as you like.

    The first run synthesises and scores some hundred utterances (about a minute); later ones reuse them.
    No audio is ever written. The accents are synthetic voices, not people.
    """
    from clients.fleet.bank import default_bank_path, open_bank
    from clients.fleet.make import make_fleet, require_devices, require_empty

    require_devices(devices)
    require_empty(out)
    console = Console(file=sys.stderr)
    with Steps(console, "utterances scored") as steps:
        scored = open_bank(bank or default_bank_path(), steps)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with Steps(console, "devices drawn") as steps:
        make_fleet(
            scored, devices, out, seed=seed, until=midnight, progress=steps, weeks=weeks, adapters=adapters
        )
    typer.echo(f"{out}: {devices:,} devices, {7 * weeks} days until {midnight:%Y-%m-%d %H:%M} UTC")


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(help="A directory of Parquet, JSON Lines, CSV or TSV tables.", show_default=False),
    ],
    out: Out,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE.THEIRS=OURS", help="A column of yours that has another name here."),
    ] = None,
    assume_utc: Annotated[
        bool, typer.Option("--assume-utc", help="Take times without a zone for UTC.")
    ] = False,
    drop_extra: Annotated[
        bool,
        typer.Option("--drop-extra", help="Leave out columns that no table has, rather than refuse them."),
    ] = False,
    plan: Annotated[
        list[Path] | None,
        typer.Option(
            help="Say how this plan fits the tables. Without one, labels are compared with eval_plans/*.yaml."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check your own device tables and write them as a fleet directory.

    SOURCE holds `devices` and each table that you have (wake_events, listening, command_events,
    dictation_events, detections), as a file or as a directory of files, each with a device_id: docs/data.md.
    All that is wrong is named, and then nothing is written.
    """
    from clients.fleet.importing import import_fleet
    from clients.fleet.problems import BadTables
    from clients.fleet.quality import quality
    from clients.fleet.sources import Accepting
    from fa_core.plan import load

    asked = [load(path, today=date.min) for path in plan or ()]
    plans = asked or [load(path, today=date.min) for path in sorted(SHIPPED.glob("*.yaml"))]
    accepting = Accepting(dict(map(_renamed, rename or ())), assume_utc, drop_extra)
    try:
        imported = import_fleet(source, out, accepting, datetime.now(UTC))
    except BadTables as error:
        raise BadInput(_for_person(str(error), error.shown)) from None
    found = quality(imported.fleet, plans, asked)
    if as_json:
        whole = {"fleet": str(out), "rows": imported.rows, "notes": imported.notes, **found.as_object()}
        typer.echo(json.dumps(whole, indent=2))
        return
    typer.echo(f"{out}: " + ", ".join(f"{rows:,} {name}" for name, rows in imported.rows.items()))
    for text in (*(f"note: {note}" for note in imported.notes), *found.sentences()):
        typer.echo(f"  {text}")


@app.command()
def template(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The directory to write.", show_default=False)],
) -> None:
    """Write a small, valid sample of every table as CSV, to write your own rows over."""
    from clients.fleet.columns import write_template

    write_template(out)
    typer.echo(f"{out}: a sample of every table; `fa fleet import {out} --out DIR` reads it")


@app.command("import-log")
def import_log(
    source: Annotated[
        Path,
        typer.Argument(help="A log, or a directory of logs (.log, .txt), one a device.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="The directory of tables to write; must not exist, or be empty.")],
    zone: Annotated[
        str | None, typer.Option(help="Zone of times that have none, such as Europe/Berlin or UTC.")
    ] = None,
    day: Annotated[
        datetime | None,
        typer.Option(
            "--date", formats=["%Y-%m-%d"], help="Day of the first line, where lines have the time alone."
        ),
    ] = None,
    model_version: Annotated[str, typer.Option(help="The wake word model that the devices ran.")] = "unknown",
) -> None:
    """Read when devices woke from logs of ESPHome, also through Home Assistant, as tables to import.

    A log does not say whether a device should have woken; the metrics wakes_per_hour and detection_scores do
    not ask. A device is taken to listen from the first line of its log to the last. Its facts are `unknown`:
    write them into devices.csv, then `fa fleet import`.
    """
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from clients.fleet.logs import logs_to_tables

    try:
        known = None if zone is None else ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadInput(f"--zone {zone}: write a time zone such as Europe/Berlin or UTC") from None
    rows = logs_to_tables(source, out, known, day.date() if day else None, model_version)
    typer.echo(f"{out}: " + ", ".join(f"{count:,} {name}" for name, count in rows.items()))
    typer.echo(f"  write each device's accent and class into {out}/devices.csv, then `fa fleet import {out}`")


@app.command()
def columns(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the text of docs/data.md.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the tables and columns of device data, what they may hold, and why they are there."""
    from rich.table import Table

    from clients.fleet.columns import markdown as whole_page
    from clients.fleet.columns import rows

    if markdown:
        typer.echo(whole_page(), nl=False)
        return
    listed = rows()
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
        return
    shown = ("table", "column", "type", "allowed", "example", "why")
    table = Table(*shown)
    for row in listed:
        table.add_row(*(str(row[name]) for name in shown))
    Console().print(table)


def _for_person(text: str, shown: str) -> str:
    """Return what to print of wrong tables. Values go to a terminal alone: a file may be a log."""
    if text == shown or _is_terminal():
        return shown
    return f"{text}\n(on a terminal the values are shown too)"


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def _renamed(text: str) -> tuple[tuple[str, str], str]:
    """Return TABLE.THEIRS=OURS as ((table, theirs), ours)."""
    theirs, equals, ours = text.rpartition("=")
    table, dot, column = theirs.partition(".")
    if not (equals and dot and table and column and ours):
        raise BadInput(f"--rename {text}: write TABLE.THEIRS=OURS, such as wake_events.ts=time")
    return (table, column), ours
