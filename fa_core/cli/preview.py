"""`fa plan preview`: what a plan costs each device and how wide its intervals will be, before it is sent."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.device.forecast import Forecast, forecast, sentences
from fa_core.cli import render
from fa_core.cli.earlier import earlier
from fa_core.errors import BadInput
from fa_core.estimate import estimands
from fa_core.estimate.choices import Choice
from fa_core.estimate.expect import Expectation
from fa_core.estimate.measure import measure
from fa_core.estimate.preview import TYPICAL_EVENTS, Preview, choices_of
from fa_core.estimate.preview import preview as preview_plan
from fa_core.plan import Plan, load
from fa_core.privacy.differencing import Overlap, sentence
from fa_core.store import DEFAULT, open_store
from fa_core.store.database import FILE

if TYPE_CHECKING:
    from fa_core.cli.pilot import Pilot

DEVICES = 5000
"""Devices that a preview is for where neither their number nor a fleet is given."""

OVERLAPS_SHOWN = 5


def preview(
    plan: Annotated[Path, typer.Argument(help="A plan, in YAML.", show_default=False)],
    devices: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Devices in the fleet, a public number: {DEVICES:,}, or as many as --fleet has."
        ),
    ] = None,
    events: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Events of one device in the window that pass the plan's filters, a public guess: "
            f"{TYPICAL_EVENTS:g}.",
        ),
    ] = None,
    fleet: Annotated[
        Path | None,
        typer.Option(
            help="A fleet directory whose events are used in place of the guess. They are read as they are: "
            "what is printed is no more private than the directory.",
            show_default=False,
        ),
    ] = None,
    width: Annotated[
        float | None, typer.Option(help="A 95% half-width that you wish for: how many devices would it take?")
    ] = None,
    store: Annotated[
        str, typer.Option(help="Where earlier releases are: a folder, or postgresql://…")
    ] = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a plan costs each device, how wide its intervals will be, and what it overlaps with."""
    if fleet is not None and events is not None:
        raise BadInput("--events and --fleet: give one of them, a fleet has its own events")
    pilot = None if fleet is None else _pilot(fleet)
    size = devices or (DEVICES if pilot is None else pilot.devices)
    checked = load(plan, fleet=size)
    sources = None if pilot is None else pilot.sources
    found = preview_plan(checked, size, events, width, sources)
    choices = choices_of(checked, found, sources)
    fitted = [] if pilot is None else pilot.fit(checked)
    default_device = forecast(checked, found.layout, datetime.now(UTC))
    overlaps = _overlaps(checked, size, store)
    if as_json:
        listed = [{"release": each.release, "plan": each.plan, "told": sentence(each)} for each in overlaps]
        more = {"default_device": asdict(default_device), "overlaps": listed, "fleet": fitted}
        typer.echo(json.dumps(_as_object(checked, found, choices) | more, indent=2))
        return
    _print(checked, found, default_device, fleet, width)
    _print_choices(choices)
    for line in fitted:
        typer.echo(f"In {fleet}: {line}.")
    for overlap in overlaps[:OVERLAPS_SHOWN]:
        typer.echo(f"If run now, it {sentence(overlap)}.")
    if len(overlaps) > OVERLAPS_SHOWN:
        typer.echo(f"{len(overlaps) - OVERLAPS_SHOWN} more releases overlap; --json names them.")


def _pilot(folder: Path) -> "Pilot":
    # Imported here: what counts a device's tables takes as long to import as all the rest.
    from fa_core.cli.pilot import read_pilot

    return read_pilot(folder)


def _print(
    plan: Plan, found: Preview, default_device: Forecast, fleet: Path | None, width: float | None
) -> None:
    layout = found.layout
    typer.echo(
        f"Each device sends {found.bytes_per_device:,} bytes ({found.cells:,} cells) and spends "
        f"epsilon {float(layout.epsilon):g}"
        + (f" at delta {float(layout.delta):g}." if layout.delta else ".")
    )
    if layout.kappa is not None:
        typer.echo(
            "Each of two aggregators adds its own noise: intervals are "
            f"{math.sqrt(1 + layout.kappa):.3f} times as wide in noise as with the helper's alone."
        )
    typer.echo(f"Noise is {layout.noise}, {layout.reason}.")
    for line in sentences(plan, default_device):
        typer.echo(line)
    those = f"like those in {fleet}" if fleet is not None else f"of {found.events:g} events each"
    source = "From the fleet's own events" if fleet is not None else "Guessed from the plan alone"
    typer.echo(
        f"{source}, for {found.devices:,} devices {those} (of which it invites "
        f"{float(plan.eligibility.sample):.0%}):"
    )
    _print_expectations(found.expectations, width)
    for name, words in estimands(plan).items():
        typer.echo(f"Numbers of {name} are {words}.")
    for warning in found.warnings:
        typer.echo(f"Note: {warning}.")
    for item in found.expectations:
        if item.shown < 1:
            part = "nothing" if item.half_width is None else f"only {item.shown:.0%}"
            by = " × ".join(item.grouping) or "everyone"
            typer.echo(f"Of {item.metric} by {by}, {part} would be shown: {item.reason}.")
    if found.suggestions:
        typer.echo("What would narrow the rest most, or show more:")
    for suggestion in found.suggestions:
        typer.echo(f"  {suggestion.change}: {suggestion.gain}")


def _print_expectations(found: Sequence[Expectation], width: float | None) -> None:
    headers = ["metric", "by", "groups", "half-width (95%)", "shown"]
    if width is not None:
        headers += [f"devices for ± {width:g}", "or windows"]
    rows = []
    for item in found:
        row = [item.metric, " × ".join(item.grouping) or "everyone", str(item.groups), _width(item)]
        row.append(f"{item.shown:.0%}")
        if width is not None:
            row += [_count(item.devices_for), _count(item.windows_for)]
        rows.append(row)
    render.table("", headers, rows)


def _print_choices(found: Sequence[Choice]) -> None:
    """Print what each limit would give, and other shares of the budget: a table for each key."""
    for key, alike in groupby(found, lambda choice: choice.key):
        tried = list(alike)
        headers = ["value", *(_named(item) for item in tried[0].expectations), ""]
        rows = [[each.value, *map(_shown, each.expectations), _marks(each)] for each in tried]
        render.table(f"Half-widths for other values of {key}:", headers, rows)
        for each in tried:
            if each.proposed:
                typer.echo(f"Proposed: {each.written}")
    if found:
        typer.echo("A lower limit changes what the numbers are of; see docs/results.md.")


def _named(item: Expectation) -> str:
    return f"{item.metric} by {' × '.join(item.grouping) or 'everyone'}"


def _shown(item: Expectation) -> str:
    return _width(item) + (f" ({item.shown:.0%} shown)" if 0 < item.shown < 1 else "")


def _marks(choice: Choice) -> str:
    return ", ".join(mark for mark, on in (("now", choice.current), ("proposed", choice.proposed)) if on)


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
    if item.half_width is None:
        return "none shown"
    return measure(item.kind, item.unit).width(item.half_width)


def _count(number: int | None) -> str:
    return "out of reach" if number is None else f"{number:,}"


def _as_object(plan: Plan, found: Preview, choices: Sequence[Choice]) -> dict[str, object]:
    layout, of = found.layout, estimands(plan)
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
            "sum": plan.privacy.sum,
            "kappa": None if layout.kappa is None else float(layout.kappa),
            "reason": layout.reason,
        },
        "expectations": [asdict(item) | {"estimand": of[item.metric]} for item in found.expectations],
        "suggestions": [asdict(item) for item in found.suggestions],
        "choices": [asdict(item) for item in choices],
        "warnings": list(found.warnings),
    }
