"""`fa enrol`: the enrolment authority, which admits devices. The aggregator has no part in it."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fa_core.cli.limits import Accounting, Limit, budgets_text, limits
from fa_core.privacy.ledger import DEFAULT_POLICIES
from fa_core.privacy.ledger_rows import Declaration
from fa_core.trust import budgets, enrolment

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
    population: Annotated[
        str, typer.Option(help="The population whose budget is charged.", show_default=False)
    ],
    name: Annotated[str, typer.Option(help="What the register calls it.")] = "",
    owner: Annotated[
        str, typer.Option(help="Who holds it; devices of one owner count together. By default, it alone.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Certify a device's key, write it into the register, and print the certificate for the device."""
    key = enrolment.parse_hex(public_key)
    enrolled = enrolment.Enrolled(key, name, population, owner or key.hex())
    certificate = enrolment.register(directory, enrolled).hex()
    typer.echo(json.dumps({**_line(enrolled), "certificate": certificate}) if as_json else certificate)


@app.command("list")
def list_devices(directory: Directory, as_json: AsJson = False) -> None:
    """List the devices that were admitted."""
    rows = enrolment.registered(directory)
    if as_json:
        typer.echo(json.dumps([_line(each) for each in rows], indent=2))
        return
    table = Table("device", "name", "population", "owner", title=f"{len(rows)} devices")
    for each in rows:
        table.add_row(*_line(each).values())
    Console().print(table)


@app.command()
def population(
    name: Annotated[str, typer.Argument(help="The population.", show_default=False)],
    directory: Directory,
    out: Annotated[
        Path, typer.Option(help="Where to write the signed budgets, for the aggregator.", show_default=False)
    ],
    release: Limit = None,
    window: Limit = None,
    week: Limit = None,
    year: Limit = None,
    family: Limit = None,
    accounting: Annotated[Accounting, typer.Option(help="The kind of its ledger.")] = Accounting.zcdp,
) -> None:
    """Sign a population's privacy budgets; what is left out is the default. Devices accept no others."""
    given = {"release": release, "window": window, "week": week, "year": year, "family": family}
    policy = replace(DEFAULT_POLICIES[accounting.value], **limits(given))
    declared = Declaration(name, accounting.value, policy, datetime.now(UTC))
    budgets.write_file(out, budgets.sign(declared, enrolment.load(directory).key))
    typer.echo(f"{out}: {budgets_text(declared)}")


def _line(device: enrolment.Enrolled) -> dict[str, str]:
    return {
        "device": device.device.hex(),
        "name": device.name,
        "population": device.population,
        "owner": device.owner,
    }
