"""`fa results coverage`: who was counted, beside who is registered."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from fa_core.cli import render
from fa_core.errors import BadInput
from fa_core.estimate.coverage import Counted, Shares, read_registry
from fa_core.estimate.coverage import coverage as counted_devices
from fa_core.estimate.measure import SHARE
from fa_core.store import DEFAULT, open_store


def coverage(
    release: Annotated[
        str, typer.Argument(help="A release: `latest`, its id or its first digits.", metavar="RELEASE")
    ] = "latest",
    registry: Annotated[
        Path | None,
        typer.Option(
            help="Public shares of registered devices: JSON {segment: {label: share}}, or CSV of "
            "segment,label,share. Nothing private belongs there.",
            show_default=False,
        ),
    ] = None,
    store: Annotated[str, typer.Option("--store", help="A folder, or postgresql://…")] = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show how the devices counted differ from those registered, and warn of who is under-represented."""
    shares = None if registry is None else registered(registry)
    with open_store(store, create=False) as opened:
        found = opened.release(release)
    facts, counted = found.participation, counted_devices(found, shares)
    if as_json:
        took_part = {name: getattr(facts, name) for name in ("invited", "joined", "dropped", "counted")}
        shown: dict[str, Any] = {"release": found.id, "devices": took_part, "registry": shares is not None}
        shown["labels"] = [{n: render.finite(v) for n, v in asdict(each).items()} for each in counted]
        render.as_json(shown | {"warnings": warnings(counted)})
        return
    typer.echo(
        f"{facts.counted:,} devices counted of {facts.invited:,} invited ({facts.joined:,} joined, "
        f"{facts.dropped:,} dropped out)"
    )
    headers = ("fact", "value", "devices with something to count", "share", "95 % interval", "registered")
    if counted:
        render.table("", headers, [row(each) for each in counted])
    else:
        typer.echo("The plan breaks no metric down by a fact of the device: there is nothing more to show.")
    if shares is None:
        typer.echo("Without --registry there is nothing to hold this against, and no claim is made.")
    for warning in warnings(counted):
        typer.echo(f"WARNING: {warning}")


def registered(path: Path) -> Shares:
    """Return the public shares in a file. Raises BadInput where it cannot be read or is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    return read_registry(data, str(path))


def warnings(counted: tuple[Counted, ...]) -> list[str]:
    """Return what a person is warned of."""
    return [each.sentence for each in counted if each.sentence]


def row(each: Counted) -> tuple[str, str, str, str, str, str]:
    """Return one label as a row of a table for a person."""
    half = None if each.low is None or each.high is None else (each.high - each.low) / 2
    return (
        each.segment,
        each.label,
        render.devices(each.devices, each.devices_sd),
        SHARE.text(each.share, half) if each.share is not None else "hidden by noise",
        SHARE.interval(each.low, each.high) if each.share is not None else "",
        SHARE.text(each.reference, half) if each.reference is not None else "",
    )
