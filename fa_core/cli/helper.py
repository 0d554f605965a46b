"""`fa helper`: the second aggregator of a sum, as a process with a key and a database of its own."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check and add reports with a leader that cannot read them.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The helper's folder.", show_default=False)]


def _key(whose: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        help=f"File with the {whose}'s public key.", show_default=False
    )
    return option


@app.command()
def init(
    folder: Folder,
    name: Annotated[str, typer.Option(help="HOST:PORT that the leader connects to.", show_default=False)],
    authority: Annotated[Path, _key("enrolment authority")],
    log: Annotated[Path, _key("transparency log")],
    witness: Annotated[Path, _key("witness")],
    leader: Annotated[Path, _key("leader")],
    socket: Annotated[Path, typer.Option(help="The witness's Unix socket.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a helper's folder: settings, key, TLS certificate, and helper.json, which the leader is given."""
    from fa_core.helper_service.settings import ADDRESS
    from fa_core.helper_service.setup import init as make

    trusted = {"authority": authority, "log": log, "witness": witness, "leader": leader}
    make(folder, name, trusted, socket.resolve())
    shown = folder / ADDRESS
    if as_json:
        key = json.loads(shown.read_text("ascii"))["public_key"]
        typer.echo(json.dumps({"helper": str(folder), "name": name, "public_key": key, "file": str(shown)}))
        return
    typer.echo(f"{folder}: made. `fa helper serve {folder}` runs it.")
    typer.echo(f"the leader is given {shown}: fa run PLAN --helper {shown}")


@app.command()
def serve(folder: Folder) -> None:
    """Answer the leader until stopped. Logs are JSON on standard error."""
    from fa_core.helper_service.process import serve as run
    from fa_core.helper_service.settings import read_home

    run(read_home(folder))
