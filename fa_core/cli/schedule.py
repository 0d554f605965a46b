"""`fa schedule`: the plans that are due, running them, and a timer that does."""

import json
import shlex
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fa_core.errors import BadInput, UnheardError
from fa_core.store import DEFAULT

if TYPE_CHECKING:
    from fa_core.engines.schedule import Scheduled

UNIT: Final = "unheard-schedule"
SERVICE: Final = """\
[Unit]
Description=Ask the plans that are due
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
WorkingDirectory={folder}
ExecStart={command}
"""
TIMER: Final = f"""\
[Unit]
Description=Ask the plans that are due, DAYS

[Timer]
OnCalendar=WHEN
Persistent=true
Unit={UNIT}.service

[Install]
WantedBy=timers.target
"""


def schedule(
    plans: Annotated[Path, typer.Argument(help="A directory of plans.")] = Path("eval_plans"),
    run: Annotated[bool, typer.Option("--run", help="Run the plans that are due, in turn.")] = False,
    fleet: Annotated[Path | None, typer.Option(help="As of `fa run`.", show_default=False)] = None,
    engine: Annotated[str, typer.Option(help="As of `fa run`.")] = "local",
    store: Annotated[str | None, typer.Option(help="As of `fa run`.", show_default=False)] = None,
    systemd: Annotated[
        Path | None,
        typer.Option(
            help="Write a systemd service and timer that run this each day, or each hour on a federation.",
            show_default=False,
        ),
    ] = None,
    cron: Annotated[
        bool, typer.Option("--cron", help="Print a line for crontab that runs this as often.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List which plans are due by their `schedule`, run them, or write a timer that does.

    On a federation --run also drains every collection that is open, once, and waits for none: the timer comes
    again.
    """
    from fa_core.engines.schedule import scheduled
    from fa_core.plan.document import plan_files
    from fa_core.store import open_store
    from fa_core.values import HERE

    if not plans.is_dir():
        raise BadInput(f"{plans}: this is no directory; `fa schedule` takes a directory of plans")
    command = _command(plans, fleet, engine, store)
    if cron or systemd is not None:
        _write_timer(command, systemd, often=engine not in HERE)
        return
    place = _store_of(engine, store)
    there = "://" in place or (Path(place) / "store.db").exists()
    with open_store(place, create=False) if there else nullcontext() as opened:
        found = scheduled(plan_files(plans), opened, datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps([_row(each) for each in found], indent=2))
    else:
        _print(found, plans)
    worst = max((_refused(each) for each in found if each.state == "wrong"), default=0)
    if run:
        worst = max(
            worst,
            *(_drain(release, engine) for release in _open(engine)),
            *(_run(each.file, fleet, engine, store) for each in found if each.state == "due"),
        )
        if not any(each.state == "due" for each in found):
            from fa_core.cli.alerting import send_alerts

            send_alerts(place)  # what could not be sent before is tried again
    raise typer.Exit(worst)


def _refused(each: "Scheduled") -> int:
    typer.echo(each.problem, err=True)
    return BadInput.exit_code


def _run(file: Path, fleet: Path | None, engine: str, store: str | None) -> int:
    """Run one plan and return its exit code. What fails does not keep the next plan from being asked."""
    from fa_core.cli.run import run, show_on_federation
    from fa_core.values import HERE

    typer.echo(f"\n== {file} ==\n")
    if engine not in HERE:
        return _code(str(file), lambda: show_on_federation(engine, file, None, (fleet, store), wait=False))
    return _code(str(file), lambda: run(plan=file, fleet=fleet, engine=engine, store=store))


def _open(engine: str) -> list[str]:
    """Return the releases that a federation is collecting."""
    from fa_core.values import HERE

    if engine in HERE:
        return []
    from fa_core.federation.collections import open_collections
    from fa_core.federation.directory import open_federation

    return [each.run.release for each in open_collections(open_federation(Path(engine)))]


def _drain(release: str, engine: str) -> int:
    """Drain a collection once and return its exit code."""
    from fa_core.cli.run import show_on_federation

    typer.echo(f"\n== collection {release} ==\n")
    return _code(release, lambda: show_on_federation(engine, None, release, wait=False))


def _code(what: str, work: Callable[[], None]) -> int:
    """Work, and return the exit code."""
    try:
        work()
    except UnheardError as error:
        typer.echo(f"fa: {what}: {error}", err=True)
        return error.exit_code
    return 0


def _store_of(engine: str, store: str | None) -> str:
    from fa_core.values import HERE

    if engine in HERE:
        return store or DEFAULT
    from fa_core.federation.directory import open_federation

    return open_federation(Path(engine)).store


def _command(plans: Path, fleet: Path | None, engine: str, store: str | None) -> list[str]:
    """Return the command that runs what is due, with absolute paths: a timer starts somewhere else."""
    from fa_core.values import HERE

    program = Path(sys.executable).parent / "fa"
    start = [str(program)] if program.exists() else [sys.executable, "-m", "fa_core.cli"]
    options = [] if fleet is None else ["--fleet", str(fleet.absolute())]
    local = engine in HERE or not Path(engine).exists()
    options += ["--engine", engine if local else str(Path(engine).absolute())]
    if store is not None or engine in HERE:
        place = store or DEFAULT
        options += ["--store", place if "://" in place else str(Path(place).absolute())]
    return [*start, "schedule", str(plans.absolute()), "--run", *options]


def _write_timer(command: list[str], systemd: Path | None, *, often: bool) -> None:
    """Write a timer for each day at 6; or for each hour (`often`) where collections are to be drained."""
    if systemd is None:
        folder = shlex.quote(str(Path.cwd()))
        when = "0 *" if often else "0 6"
        # In a crontab a per cent sign ends the line.
        typer.echo(f"{when} * * * cd {folder} && {shlex.join(command)}".replace("%", "\\%"))
        return
    quoted = " ".join(map(_for_systemd, command))
    folder = str(Path.cwd()).replace("%", "%%")
    days, when = ("every hour", "hourly") if often else ("every day", "*-*-* 06:00:00 UTC")
    timer = TIMER.replace("DAYS", days).replace("WHEN", when)
    texts = {".service": SERVICE.format(command=quoted, folder=folder), ".timer": timer}
    try:
        systemd.mkdir(parents=True, exist_ok=True)
        for ending, text in texts.items():
            (systemd / f"{UNIT}{ending}").write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{systemd} cannot be written: {error.strerror}") from None
    typer.echo(f"{systemd}: {UNIT}.service and {UNIT}.timer. For your own user, in ~/.config/systemd/user:")
    typer.echo(f"systemctl --user daemon-reload && systemctl --user enable --now {UNIT}.timer")


def _for_systemd(word: str) -> str:
    """Return a word of a command as systemd reads it (systemd.service(5), "Command lines")."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _print(found: "list[Scheduled]", plans: Path) -> None:
    from fa_core.cli.text_table import table

    if not found:
        typer.echo(f"no plan in {plans} has a `schedule`; add `schedule: weekly` to its metadata")
        return
    rows = [
        (each.file.name, each.plan, each.schedule, each.state, _day(each.last), _day(each.next))
        for each in found
    ]
    table("", ("file", "plan", "schedule", "", "last asked", "next"), rows)


def _day(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _row(each: "Scheduled") -> dict[str, str | None]:
    moments = {"last": each.last, "next": each.next}
    return {
        "file": str(each.file),
        "plan": each.plan or None,
        "schedule": each.schedule or None,
        "state": each.state,
        **{name: None if at is None else at.isoformat() for name, at in moments.items()},
        "problem": each.problem or None,
    }
