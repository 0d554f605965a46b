"""`fa plan new`: asks on a terminal for what no option says, and writes a plan that checks."""

import sys
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Final

import typer

from fa_core.errors import BadInput
from fa_core.metrics import PRESETS, exact
from fa_core.plan import parse
from fa_core.plan.new import Answers, plan_text, question_of
from fa_core.plan.problems import suggestion
from fa_core.tables import DEVICE_FACTS

EXPIRES: Final = timedelta(days=90)
METRICS: Final = f"Usual metrics, with commas between: {', '.join(PRESETS)}"
SCHEDULES: Final = ("daily", "weekly", "monthly")


def new(
    file: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    metric: Annotated[
        list[str] | None, typer.Option(help="A usual metric by name; may be repeated.", show_default=False)
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help=f"Group by {', '.join(DEVICE_FACTS)}; '' for none.", show_default=False),
    ] = None,
    values: Annotated[
        str | None, typer.Option(help="Its values, with commas between them.", show_default=False)
    ] = None,
    owner: Annotated[str | None, typer.Option(help="The team that answers.", show_default=False)] = None,
    question: Annotated[
        str | None, typer.Option(help="What it answers, in one sentence.", show_default=False)
    ] = None,
    limit: Annotated[
        str | None, typer.Option(help="A limit for the first metric, such as 0.1.", show_default=False)
    ] = None,
    window: Annotated[str, typer.Option(help="How far back events count.")] = "7d",
    epsilon: Annotated[str, typer.Option(help="Privacy loss of one release for each device.")] = "1",
    min_cohort: Annotated[int, typer.Option(help="Groups of fewer devices are not shown.")] = 100,
    expires: Annotated[
        str | None, typer.Option(help="Its last day; in 90 days where left out.", show_default=False)
    ] = None,
    schedule: Annotated[
        str, typer.Option(help=f"How often it is asked: {', '.join(SCHEDULES)}.", show_default=False)
    ] = "",
) -> None:
    """Write a new plan, commented and checked. Asks on a terminal for what no option says."""
    if file.exists():
        raise BadInput(f"{file} exists already; a plan is never written over another file")
    ask = _ask if _on_a_terminal() else _missing
    metrics = tuple(_metric(name) for name in metric or _list(ask("--metric", METRICS, "")))
    if not metrics:
        raise BadInput("--metric: name at least one usual metric, such as false_reject_rate")
    fact = ask("--by", f"Group by {', '.join(DEVICE_FACTS)}, or leave it empty", "") if by is None else by
    if fact and fact not in DEVICE_FACTS:
        raise BadInput(f"--by {fact}: {suggestion(fact, DEVICE_FACTS)}")
    named = _list(values or ask("--values", f"Values of {fact}, with commas between", "")) if fact else ()
    usual = question_of(metrics, fact)
    text = plan_text(
        Answers(
            name=file.stem,
            owner=ask("--owner", "Which team answers for it", "") if owner is None else owner,
            question=ask("--question", "The question, in one sentence", usual)
            if question is None
            else question,
            metrics=metrics,
            fact=fact,
            values=named,
            window=window,
            epsilon=_number("--epsilon", epsilon),
            min_cohort=min_cohort,
            expires=_day(expires),
            limit=None if limit is None else _number("--limit", limit),
            schedule=schedule,
        )
    )
    plan = parse(text.encode(), str(file))
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file} cannot be written: {error.strerror}") from None
    typer.echo(f"{file}: {plan.name}, good until {plan.metadata.expires}")
    typer.echo(f"before it is run: fa plan preview {file} --devices N")


def _on_a_terminal() -> bool:
    return sys.stdin.isatty()


def _ask(option: str, text: str, default: str) -> str:
    return str(typer.prompt(text, default=default, show_default=bool(default))).strip()


def _missing(option: str, text: str, default: str) -> str:
    if default or option == "--by":
        return default
    raise BadInput(f"{option} is missing: {text[:1].lower()}{text[1:]}")


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _metric(name: str) -> str:
    if name not in PRESETS:
        raise BadInput(f"--metric {name}: {suggestion(name, PRESETS)}")
    return name


def _number(option: str, text: str) -> Fraction:
    try:
        return exact(text)
    except ValueError:
        raise BadInput(f"{option} {text}: write a number, such as 0.1") from None


def _day(text: str | None) -> date:
    today = datetime.now(UTC).date()
    if text is None:
        return today + EXPIRES
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadInput(f"--expires {text}: write a day, such as {today + EXPIRES}") from None
