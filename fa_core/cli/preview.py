"""`fa plan preview`: what a plan costs each device and how wide its intervals will be, before it is sent."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from clients.device.forecast import forecast, sentences
from fa_core.cli.earlier import earlier
from fa_core.estimate.preview import TYPICAL_EVENTS, Expectation, Preview
from fa_core.estimate.preview import preview as preview_plan
from fa_core.plan import Plan, load
from fa_core.privacy.differencing import Overlap, sentence
from fa_core.store import DEFAULT, open_store
from fa_core.store.database import FILE

OVERLAPS_SHOWN = 5


def preview(
    plan: Annotated[Path, typer.Argument(help="A plan, in YAML.", show_default=False)],
    devices: Annotated[int, typer.Option(min=1, help="Devices in the fleet, a public number.")] = 5000,
    events: Annotated[
        float, typer.Option(min=1, help="Events that one device has in the window, a public guess.")
    ] = TYPICAL_EVENTS,
    width: Annotated[
        float | None, typer.Option(help="A 95% half-width that you wish for: how many devices would it take?")
    ] = None,
    store: Annotated[
        str, typer.Option(help="Where earlier releases are: a folder, or postgresql://…")
    ] = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a plan costs each device, how wide its intervals will be, and what it overlaps with."""
    checked = load(plan, fleet=devices)
    found = preview_plan(checked, devices, events, width)
    default_device = forecast(checked, found.layout, datetime.now(UTC))
    overlaps = _overlaps(checked, devices, store)
    if as_json:
        listed = [{"release": each.release, "plan": each.plan, "told": sentence(each)} for each in overlaps]
        more = {"default_device": asdict(default_device), "overlaps": listed}
        typer.echo(json.dumps(_as_object(found) | more, indent=2))
        return
    console = Console()
    layout = found.layout
    console.print(
        f"Each device sends {found.bytes_per_device:,} bytes ({found.cells:,} cells) and spends "
        f"epsilon {float(layout.epsilon):g}"
        + (f" at delta {float(layout.delta):g}." if layout.delta else ".")
    )
    console.print(f"Noise is {layout.noise}, {layout.reason}.")
    for line in sentences(checked, default_device):
        console.print(line)
    console.print(
        f"Guessed from the plan alone, for {devices:,} devices of {events:g} events each "
        f"(of which it invites {float(checked.eligibility.sample):.0%}):"
    )
    table = Table("metric", "by", "groups", "± (95%)", "shown")
    if width is not None:
        table.add_column(f"devices for ± {width:g}")
        table.add_column("or windows")
    for item in found.expectations:
        row = [
            item.metric,
            " × ".join(item.grouping) or "everyone",
            str(item.groups),
            _width(item),
            f"{item.shown:.0%}",
        ]
        if width is not None:
            row += [_count(item.devices_for), _count(item.windows_for)]
        table.add_row(*row)
    console.print(table)
    if found.suggestions:
        console.print("What would narrow the rest most:")
    for suggestion in found.suggestions:
        console.print(f"  {suggestion.change}: intervals {1 - suggestion.factor:.0%} narrower")
    for overlap in overlaps[:OVERLAPS_SHOWN]:
        console.print(f"If run now, it {sentence(overlap)}.")
    if len(overlaps) > OVERLAPS_SHOWN:
        console.print(f"{len(overlaps) - OVERLAPS_SHOWN} more releases overlap; --json names them.")


def _overlaps(plan: Plan, devices: int, store: str) -> tuple[Overlap, ...]:
    """Return the earlier releases that a run about the time until now would overlap with."""
    if not _has_history(store):
        return ()
    until = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with open_store(store, create=False) as opened:
        return earlier(opened, plan, until, devices)


def _has_history(store: str) -> bool:
    """Return whether there is a store; a first preview is made before there is one."""
    return "://" in store or (Path(store) / FILE).exists()


def _width(item: Expectation) -> str:
    return "none shown" if item.half_width is None else f"{item.half_width:.3g} {item.unit}".strip()


def _count(number: int | None) -> str:
    return "out of reach" if number is None else f"{number:,}"


def _as_object(found: Preview) -> dict[str, object]:
    layout = found.layout
    return {
        "devices": found.devices,
        "events": found.events,
        "cells": found.cells,
        "bytes_per_device": found.bytes_per_device,
        "privacy": {
            "unit": "device",
            "accounting": layout.accounting,
            "epsilon": float(layout.epsilon),
            "delta": float(layout.delta),
            "cost": str(layout.cost),
            "mechanism": layout.mechanism,
            "noise": layout.noise,
            "reason": layout.reason,
        },
        "expectations": [asdict(item) for item in found.expectations],
        "suggestions": [asdict(item) for item in found.suggestions],
    }
