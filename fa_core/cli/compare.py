"""`fa compare`: two releases beside each other."""

import json
from dataclasses import asdict
from fractions import Fraction
from itertools import groupby
from typing import Annotated, Any

import typer

from fa_core.cli import render
from fa_core.errors import BadInput
from fa_core.estimate.compare import HIGHER_IS_BETTER, Difference, unlike_metrics
from fa_core.estimate.compare import compare as differences
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
        releases, estimates = zip(*(opened.read(entry) for entry in entries), strict=True)
    more = (*HIGHER_IS_BETTER, *(higher_is_better or ()))
    unlike = unlike_metrics(*(json.loads(release.plan) for release in releases))
    found = differences(estimates[0], estimates[1], _exact(margin), more, unlike)
    if not found:
        raise BadInput(
            f"releases {entries[0].id[:12]} of {entries[0].plan} and {entries[1].id[:12]} of "
            f"{entries[1].plan} have no metric and group in common"
        )
    if as_json:
        shown = {"before": entries[0].id, "after": entries[1].id, "margin": margin}
        render.as_json(shown | {"differences": [_object(each) for each in found]})
        return
    _print(entries, found)


def _exact(text: str) -> Fraction:
    try:
        share = text.strip().endswith("%")
        value = Fraction(text.strip().removesuffix("%").strip()) / (100 if share else 1)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if value < 0:
        raise BadInput(f"--margin {text}: a number of at least 0 is expected, such as 0.01 or 1%")
    return value


def _print(entries: tuple[Entry, Entry], found: tuple[Difference, ...]) -> None:
    for name, entry in zip(("before", "after"), entries, strict=True):
        marks = ", simulation" * entry.simulated + ", synthetic voice" * entry.synthetic
        typer.echo(f"{name}: {entry.id[:12]} {entry.plan}, made {entry.created:%Y-%m-%d %H:%M}{marks}")
    for (metric, names, axes), changes in groupby(found, _by_grouping):
        rows = [_row(each) for each in changes]
        headers = (*(names or ("group",)), *axes, "before", "after", "difference", "interval", "change")
        render.table(f"{metric} by {', '.join(names)}" if names else f"{metric}, everyone", headers, rows)
    typer.echo("\nChange is judged by intervals that hold for all groups of a grouping together.")


def _by_grouping(each: Difference) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    return each.metric, tuple(name for name, _ in each.group), tuple(name for name, _ in each.cell)


def _row(each: Difference) -> tuple[str, ...]:
    labels = [label for _, label in each.group] or ["everyone"]
    labels += [label for _, label in each.cell]
    unit = render.unit_of(each, each.cell)
    bounds = (render.difference(bound, unit) for bound in (each.low, each.high))
    change = f"{each.change}: {each.reason}" if each.reason else each.change
    return (
        *labels,
        render.number(each.before, unit) or "not shown",
        render.number(each.after, unit) or "not shown",
        render.difference(each.difference, unit),
        " to ".join(filter(None, bounds)).replace(" points to", " to"),
        change,
    )


def _object(each: Difference) -> dict[str, Any]:
    shown = {key: render.finite(value) for key, value in asdict(each).items()}
    return shown | {"group": dict(each.group), "cell": dict(each.cell)}
