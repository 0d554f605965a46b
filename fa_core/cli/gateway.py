"""`fa gateway`: a hub whose devices are far away."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Stand in front of many devices that connect over HTTPS.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The gateway's folder.", show_default=False)]


@app.command()
def init(
    folder: Folder,
    name: Annotated[str, typer.Option(help="HOST:PORT that devices connect to.", show_default=False)],
    authority: Annotated[
        Path, typer.Option(help="File with the enrolment authority's public key.", show_default=False)
    ],
    database: Annotated[
        str, typer.Option(help="A file, for one worker; or postgresql://… for several.")
    ] = "gateway.db",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a gateway's folder: its settings, and a certificate that its own authority (ca.crt) signs."""
    from fa_core.gateway.setup import init as make

    home = make(folder, name, authority, database, workers)
    ca, relay = folder / "ca.crt", folder.resolve() / home.settings.relay.socket
    if as_json:
        typer.echo(json.dumps({"gateway": str(folder), "name": name, "ca": str(ca), "door": str(relay)}))
        return
    typer.echo(f"{folder}: made. `fa gateway serve {folder}` runs it.")
    typer.echo(f"a device connects with: fa device connect https://{name} --ca {ca}")
    typer.echo(f"a SuperNode on this machine is started with: --node-config 'gateway=\"{relay}\" seconds=60'")


@app.command()
def serve(folder: Folder) -> None:
    """Serve devices, and the SuperNodes on this machine, until stopped. Logs are JSON on standard error."""
    from fa_core.gateway.process import serve as run
    from fa_core.gateway.settings import read_home

    run(read_home(folder))
