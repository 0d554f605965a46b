"""`fa enrol`: the enrolment authority, which admits devices. The aggregator has no part in it."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fa_core.trust import enrolment

app = typer.Typer(help="Make an enrolment authority and admit devices to it.", no_args_is_help=True)

Directory = Annotated[Path, typer.Option("--authority", help="The authority's directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Where to make it.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Make an authority: a private key, readable by its owner only, and the public key that devices pin."""
    public = enrolment.create(directory).public_key.hex()
    typer.echo(json.dumps({"authority": str(directory), "public_key": public}) if as_json else public)


@app.command()
def device(
    public_key: Annotated[
        str,
        typer.Argument(help="The device's Ed25519 public key, 64 hexadecimal digits.", show_default=False),
    ],
    directory: Directory,
    name: Annotated[str, typer.Option(help="What the register calls it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Certify a device's key, write it into the register, and print the certificate for the device."""
    key = enrolment.parse_hex(public_key)
    certificate = enrolment.register(directory, key, name).hex()
    typer.echo(
        json.dumps({"device": key.hex(), "name": name, "certificate": certificate})
        if as_json
        else certificate
    )


@app.command("list")
def list_devices(directory: Directory, as_json: AsJson = False) -> None:
    """List the devices that were admitted."""
    rows = enrolment.registered(directory)
    if as_json:
        typer.echo(json.dumps([{"device": key.hex(), "name": name} for key, name in rows], indent=2))
        return
    table = Table("device", "name", title=f"{len(rows)} devices")
    for key, name in rows:
        table.add_row(key.hex(), name)
    Console().print(table)
