"""`fa store`: the store as a whole, backed up, restored and verified."""

from pathlib import Path
from typing import Annotated

import typer

from fa_core.cli import render
from fa_core.errors import BadInput
from fa_core.store import DEFAULT, Store, open_store
from fa_core.trust.checkpoint import parse

app = typer.Typer(help="Back up, restore and verify the whole store.", no_args_is_help=True)

Where = Annotated[str, typer.Option("--store", help="A folder, or postgresql://…")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="A new file.", show_default=False)],
    store: Where = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Write ledger, log, catalogue, releases and artefacts into one file, verified. Keys are not in it."""
    with open_store(store, create=False) as opened:
        contents = opened.backup(file)
        _say(file, opened, contents.rows, contents.parts, as_json, f"written to {file}")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A backup.", show_default=False)],
    store: Where = DEFAULT,
    earlier: Annotated[
        Path | None,
        typer.Option(help="A checkpoint kept elsewhere, which the backup must contain.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fill a new, empty store from a backup; everything is verified before it is kept.

    What was charged after the backup was made is not in it: such a store believes that budget is left which
    is spent. The witness has seen the later log, and refuses to cosign the shorter one.
    """
    note = None if earlier is None else _read(earlier)
    with open_store(store) as opened:
        contents = opened.restore(file)
        problems = [] if note is None else opened.verify_log(earlier=(note,))
        if problems:
            listing = "\n".join(f"  {each}" for each in problems)
            raise BadInput(f"{file} was restored, but is older than what {earlier} shows:\n{listing}")
        _say(file, opened, contents.rows, contents.parts, as_json, f"restored from {file} and verified")


@app.command()
def verify(store: Where = DEFAULT, as_json: AsJson = False) -> None:
    """Verify ledger, log, catalogue and the bytes of every release and artefact."""
    with open_store(store, create=False) as opened:
        problems = [*opened.verify_ledger(), *opened.verify_log()]
    if as_json:
        render.as_json({"good": not problems, "problems": problems})
    if problems:
        raise BadInput("the store does not verify:\n" + "\n".join(f"  {each}" for each in problems))
    if not as_json:
        typer.echo("ledger, log, catalogue, releases and artefacts agree")


def _say(file: Path, opened: Store, rows: dict[str, int], parts: int, as_json: bool, done: str) -> None:
    note = opened.note()
    root = "" if note is None else parse(note).root.hex()
    if as_json:
        render.as_json({"file": str(file), "store": opened.name, "rows": rows, "parts": parts, "root": root})
        return
    typer.echo(f"{opened.name}: {done}")
    typer.echo(
        f"{rows['log']} log entries, {rows['ledger']} ledger rows, {rows['releases']} releases, "
        f"{rows['failures']} failures"
    )
    if root:
        typer.echo(f"the newest checkpoint's root is {root}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
