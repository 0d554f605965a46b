"""`fa results`: what was released, as tables, JSON or files."""

import io
import json
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import typer

from fa_core.canonical_json import utc_text
from fa_core.cli import render
from fa_core.cli.coverage import coverage
from fa_core.errors import BadInput
from fa_core.estimate.integrity import about_integrity, plan_of
from fa_core.estimate.measure import measure
from fa_core.estimate.sentences import WHICH_DECIDES, about_estimand, about_groups
from fa_core.privacy.guarantee import guarantee
from fa_core.store import DEFAULT, Entry, Failure, Query, Store, open_store, shown_as
from fa_core.values import Cell, Estimate, Estimates, Release

app = typer.Typer(help="List, show and export what was released.", no_args_is_help=True)
app.command()(coverage)

CELLS_SHOWN = 12
SUPPRESSED_SHOWN = 10
"""Suppressed groups that a table names; more of them are counted below it."""

Where = Annotated[str, typer.Option("--store", help="A folder, or postgresql://…")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Wanted = Annotated[
    str, typer.Argument(help="A release: `latest`, its id or its first digits.", metavar="RELEASE")
]


class Format(StrEnum):
    """What a release can be exported as."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"


@app.command("list")
def list_releases(
    plan: Annotated[str | None, typer.Option(help="Only releases of this plan.")] = None,
    population: Annotated[str | None, typer.Option(help="Only releases about this population.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to list.")] = 20,
    page: Annotated[int, typer.Option(min=1, help="Which page of so many.")] = 1,
    store: Where = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List releases, newest first, and the rounds that failed."""
    query, offset = Query(plan=plan, population=population), (page - 1) * limit
    with open_store(store, create=False) as opened:
        entries, total = opened.releases(query, limit, offset), opened.count(query)
        failures = [
            each
            for each in opened.failures(limit, offset)
            if plan in (None, each.plan) and population in (None, each.population)
        ]
    if as_json:
        found = [_listed(entry) for entry in entries]
        render.as_json({"releases": found, "total": total, "failures": [_failed(each) for each in failures]})
        return
    headers = ("release", "made", "plan", "devices", "shown", "guardrails", "")
    render.table(f"{render.plural(total, 'release')} in {store}", headers, [_row(entry) for entry in entries])
    if failures:
        rows = [(each.release[:12], _moment(each.at), each.plan, each.reason) for each in failures]
        render.table(
            "Rounds that failed (nothing was released, the charge stands)",
            ("round", "ended", "plan", "why"),
            rows,
        )


@app.command()
def show(release: Wanted = "latest", store: Where = DEFAULT, as_json: AsJson = False) -> None:
    """Show what a release says, with its intervals, what is suppressed and why, and what it promises."""
    with open_store(store, create=False) as opened:
        entry = opened.find(release)
        found, estimates = opened.read(entry)
    show_release(found, estimates, synthetic=entry.synthetic, as_json=as_json, store=store)


@app.command()
def export(
    release: Wanted,
    form: Annotated[Format, typer.Option("--format", help="csv, parquet or json.")] = Format.CSV,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; standard output where left out.")
    ] = None,
    store: Where = DEFAULT,
) -> None:
    """Write the numbers of a release, one row each, or its whole JSON object."""
    with open_store(store, create=False) as opened:
        data = _exported(opened, opened.find(release), form)
    if out is None:
        sys.stdout.buffer.write(data)
        return
    try:
        out.write_bytes(data)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error.strerror}") from None
    typer.echo(f"{out}: {len(data):,} bytes")


def show_release(
    release: Release, estimates: Estimates, *, synthetic: bool, as_json: bool, store: str
) -> None:
    """Print a release of a store as one JSON object or for a person."""
    if as_json:
        render.as_json(render.release_object(release, estimates, synthetic=synthetic))
        return
    _print_head(release, synthetic)
    more = shlex.join(["fa", "results", "show", release.id[:12], "--store", shown_as(store), "--json"])
    of = render.estimands_of(release)
    for (metric, names), results in groupby(estimates.results, _by_grouping):
        _print_results(metric, names, list(results), of.get(metric, ""), more)
    if estimates.judgements:
        verdicts = {"met": "met", "broken": "BROKEN", "not_enough_evidence": "not enough evidence"}
        rows = [
            (each.metric, ", ".join(each.by) or "everyone", limit, verdicts[each.verdict], sentence)
            for each, (limit, sentence) in render.verdicts(estimates)
        ]
        render.table("Guardrails", ("metric", "by", "limit", "verdict", ""), rows)
    typer.echo(f"\n{WHICH_DECIDES}")
    typer.echo(about_integrity(plan_of(release), estimates))
    for sentence in guarantee(release):
        typer.echo(sentence)


def _print_head(release: Release, synthetic: bool) -> None:
    metadata, facts = json.loads(release.plan)["metadata"], release.participation
    typer.echo(f"{metadata['name']}@{metadata.get('revision')}: {metadata.get('question')}")
    typer.echo(
        f"release {release.id}, made {_moment(release.created)} on {release.engine}, about "
        f"{_moment(release.window_start)} to {_moment(release.window_end)}"
    )
    typer.echo(
        f"{facts.counted:,} devices counted of {facts.invited:,} invited ({facts.joined:,} joined, "
        f"{facts.dropped:,} dropped out) in {release.population}"
    )
    if release.simulated:
        typer.echo(render.SIMULATION)
    if synthetic:
        typer.echo(render.SYNTHETIC)


def _by_grouping(result: Estimate) -> tuple[str, tuple[str, ...]]:
    return result.metric, tuple(name for name, _ in result.group)


def _print_results(
    metric: str, names: tuple[str, ...], results: list[Estimate], estimand: str, more: str
) -> None:
    """Print one metric in one grouping. `more` is the command that prints all of it."""
    first = results[0]
    axis = measure(first.kind, first.unit).axis
    title = f"{metric} by {', '.join(names)} ({axis})" if names else f"{metric}, everyone ({axis})"
    if any(result.cells for result in results):
        _print_cells(title, names, results, more)
        if estimand:
            typer.echo(about_estimand(estimand))
        return
    headers = (
        *(names or ("group",)),
        "estimate",
        f"{100 * first.level:g} % interval",
        "noise alone",
        "devices",
        "",
    )
    hidden = [result for result in results if result.suppressed]
    if len(hidden) <= SUPPRESSED_SHOWN:
        hidden = []
    rows = []
    for result in results:
        if result not in hidden:
            group = [label for _, label in result.group] or ["everyone"]
            rows.append((*group, *_numbers(result), _devices(result), result.reason))
    render.table(title, headers, rows)
    if hidden:
        _print_hidden(hidden, len(results), more)
    for sentence in filter(None, (about_estimand(estimand), about_groups(results, brief=True))):
        typer.echo(sentence)


def _print_hidden(hidden: Sequence[Estimate], of: int, more: str) -> None:
    """Say in a few lines how many groups are not shown, and why."""
    typer.echo(f"{len(hidden)} of {of} groups are not shown (`{more}` names them):")
    for reason, count in Counter(result.reason for result in hidden).most_common():
        typer.echo(f"  {count}: {reason}")


def _devices(result: Estimate) -> str:
    return render.devices(result.devices, result.devices_sd)


def _numbers(result: Estimate) -> tuple[str, str, str]:
    if result.suppressed:
        return "not shown", "", ""
    of = measure(result.kind, result.unit)
    return (
        of.estimate(result),
        of.interval(result.low, result.high),
        of.interval(result.noise_low, result.noise_high),
    )


def _print_cells(title: str, names: tuple[str, ...], results: list[Estimate], more: str) -> None:
    """Print the tables of a histogram, DET or confusion: of each group the cells that say most."""
    axes = next(tuple(axis for axis, _ in cell.labels) for result in results for cell in result.cells)
    level = f"{100 * results[0].level:g} % interval"
    headers = (*(names or ("group",)), *axes, "estimate", level, "devices", "")
    rows, hidden = [], 0
    for result in results:
        group = [label for _, label in result.group] or ["everyone"]
        if result.suppressed:
            rows.append(
                (
                    *group,
                    *("" for _ in axes),
                    "not shown",
                    "",
                    _devices(result),
                    result.reason,
                )
            )
            continue
        shown = _most_informative(result)
        hidden += len(result.cells) - len(shown)
        rows += [(*group, *_cell(cell, result), _devices(result), cell.reason) for cell in shown]
    render.table(title, headers, rows)
    if hidden:
        typer.echo(f"{hidden} more cells: `{more}` has them")


def _most_informative(result: Estimate) -> list[Cell]:
    """Return the cells that a person is shown: of a DET every few thresholds, of a confusion the largest
    mistakes, of anything else the largest cells; in their order."""
    cells = [cell for cell in result.cells if not cell.suppressed]
    if result.kind == "det":
        return cells[:: max(1, -(-len(cells) // CELLS_SHOWN))]
    if result.kind == "confusion":
        cells = [cell for cell in cells if cell.labels[0][1] != cell.labels[1][1]]
    kept = sorted(cells, key=lambda cell: cell.estimate or 0.0, reverse=True)[:CELLS_SHOWN]
    return [cell for cell in cells if cell in kept]


def _cell(cell: Cell, result: Estimate) -> tuple[str, ...]:
    of = measure(result.kind, result.unit, cell.labels)
    shown = of.estimate(cell), of.interval(cell.low, cell.high)
    return (*(label for _, label in cell.labels), *shown)


def _exported(store: Store, entry: Entry, form: Format) -> bytes:
    if form is Format.JSON:
        found, estimates = store.read(entry)
        shown = render.release_object(found, estimates, synthetic=entry.synthetic)
        return json.dumps(shown, indent=2, allow_nan=False, ensure_ascii=False).encode() + b"\n"
    rows = store.results([entry])
    facts: dict[str, Any] = {
        "plan": entry.plan,
        "population": entry.population,
        "created": utc_text(entry.created),
        "simulated": entry.simulated,
        "synthetic_voice": entry.synthetic,
    }
    for place, (name, value) in enumerate(facts.items(), start=1):
        rows = rows.add_column(place, name, pa.array([value] * len(rows)))
    plain = [
        field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in rows.schema
    ]
    rows, sink = rows.cast(pa.schema(plain)), io.BytesIO()
    if form is Format.CSV:
        pa.csv.write_csv(rows, sink)
    else:
        pq.write_table(rows, sink, compression="zstd")
    return sink.getvalue()


def _listed(entry: Entry) -> dict[str, Any]:
    return {
        "release": entry.id,
        "plan": entry.plan,
        "plan_hash": entry.plan_hash,
        "population": entry.population,
        "engine": entry.engine,
        "simulated": entry.simulated,
        "synthetic_voice": entry.synthetic,
        "created": utc_text(entry.created),
        "window": {"start": utc_text(entry.window_start), "end": utc_text(entry.window_end)},
        "devices": {name: getattr(entry, name) for name in ("invited", "joined", "dropped", "counted")},
        "accounting": entry.accounting,
        "cost": str(entry.cost),
        "results": entry.results,
        "suppressed": entry.suppressed,
        "guardrails_broken": entry.broken,
    }


def _failed(failure: Failure) -> dict[str, str]:
    return {
        "release": failure.release,
        "plan": failure.plan,
        "population": failure.population,
        "stage": failure.stage,
        "reason": failure.reason,
        "at": utc_text(failure.at),
    }


def _row(entry: Entry) -> tuple[str, ...]:
    marks = [name for name, on in (("simulation", entry.simulated), ("synthetic", entry.synthetic)) if on]
    shown = f"{entry.results - entry.suppressed} of {entry.results}"
    broken = f"{entry.broken} broken" if entry.broken else ""
    made = _moment(entry.created)
    return (entry.id[:12], made, entry.plan, f"{entry.counted:,}", shown, broken, ", ".join(marks))


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
