"""`fa compare`: two releases beside each other."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from itertools import groupby
from typing import Annotated, Any

import typer

from fa_core.cli import render
from fa_core.errors import BadInput
from fa_core.estimate.compare import HIGHER_IS_BETTER, Difference, unlike_metrics
from fa_core.estimate.compare import compare as differences
from fa_core.estimate.integrity import about_difference, plan_of
from fa_core.estimate.measure import difference, measure
from fa_core.estimate.sentences import about_estimand
from fa_core.store import DEFAULT, Entry, open_store


def compare(
    before: Annotated[str, typer.Argument(help="The first release: `latest`, its id or first digits.")],
    after: Annotated[str, typer.Argument(help="The second release.")],
    margin: Annotated[
        str,
        typer.Option(
            help="A difference whose interval is within this is none; in the metric's unit, or 1 %."
        ),
    ] = "0",
    higher_is_better: Annotated[
        list[str] | None, typer.Option(help="A metric of which more is better; may be repeated.")
    ] = None,
    store: Annotated[str, typer.Option(help="A folder, or postgresql://…")] = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what changed from one release to another, by metric and group, and whether the evidence is enough.

    The two are taken as unpaired: interval half-widths add. For two models on the same speech a plan with a
    `paired_difference` metric says more.
    """
    with open_store(store, create=False) as opened:
        entries = opened.find(before), opened.find(after)
        read = [opened.read(entry) for entry in entries]
    releases, estimates = zip(*read, strict=True)
    of = [render.estimands_of(release) for release in releases]
    more = (*HIGHER_IS_BETTER, *(higher_is_better or ()))
    unlike = unlike_metrics(*(json.loads(release.plan) for release in releases))
    found = differences(estimates[0], estimates[1], _exact(margin), more, unlike)
    if not found:
        raise BadInput(
            f"releases {entries[0].id[:12]} of {entries[0].plan} and {entries[1].id[:12]} of "
            f"{entries[1].plan} have no metric and group in common"
        )
    integrity = about_difference([(plan_of(release), each) for release, each in read])
    if as_json:
        shown = {"before": entries[0].id, "after": entries[1].id, "margin": margin}
        rows = [
            _object(each) | {"estimand": {"before": of[0].get(each.metric), "after": of[1].get(each.metric)}}
            for each in found
        ]
        render.as_json(shown | {"differences": rows, "integrity": integrity})
        return
    _print(entries, found, of[0], of[1])
    typer.echo(integrity)


def _exact(text: str) -> Fraction:
    try:
        share = text.strip().endswith("%")
        value = Fraction(text.strip().removesuffix("%").strip()) / (100 if share else 1)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if value < 0:
        raise BadInput(f"--margin {text}: a number of at least 0 is expected, such as 0.01 or 1%")
    return value


def _print(
    entries: tuple[Entry, Entry],
    found: tuple[Difference, ...],
    first: Mapping[str, str],
    second: Mapping[str, str],
) -> None:
    for name, entry in zip(("before", "after"), entries, strict=True):
        marks = ", simulation" * entry.simulated + ", synthetic voice" * entry.synthetic
        typer.echo(f"{name}: {entry.id[:12]} {entry.plan}, made {entry.created:%Y-%m-%d %H:%M}{marks}")
    for (metric, names, axes), changes in groupby(found, _by_grouping):
        rows = [_row(each) for each in changes]
        headers = (*(names or ("group",)), *axes, "before", "after", "difference", "interval", "change")
        render.table(f"{metric} by {', '.join(names)}" if names else f"{metric}, everyone", headers, rows)
        if sentence := about_estimand(first.get(metric, ""), second.get(metric, "")):
            typer.echo(sentence)
    typer.echo("\nChange is judged by intervals that hold for all groups of a grouping together.")


def _by_grouping(each: Difference) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    return each.metric, tuple(name for name, _ in each.group), tuple(name for name, _ in each.cell)


def _row(each: Difference) -> tuple[str, ...]:
    labels = [label for _, label in each.group] or ["everyone"]
    labels += [label for _, label in each.cell]
    of, apart = measure(each.kind, each.unit, each.cell), difference(each.kind, each.unit, each.cell)
    half = None if each.low is None or each.high is None else (each.high - each.low) / 2
    change = f"{each.change}: {each.reason}" if each.reason else each.change
    return (
        *labels,
        "not shown" if each.before is None else of.text(each.before, half),
        "not shown" if each.after is None else of.text(each.after, half),
        "" if each.difference is None else apart.text(each.difference, half),
        "" if each.difference is None else apart.interval(each.low, each.high),
        change,
    )


def _object(each: Difference) -> dict[str, Any]:
    shown = {key: render.finite(value) for key, value in asdict(each).items()}
    return shown | {"group": dict(each.group), "cell": dict(each.cell)}
