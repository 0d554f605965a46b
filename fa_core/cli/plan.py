"""`fa plan`: check a plan, show what it says, sign it, and write the JSON Schema for editors."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from fa_core.cli.lazy import LazyGroup
from fa_core.errors import BadInput
from fa_core.plan import BadPlan, Plan, SignedPlan, canonical, load
from fa_core.plan.document import plan_files


class Commands(LazyGroup):
    """`fa plan`: a check should not wait for the estimators and the store of the preview."""

    texts: ClassVar = {
        "preview": "Say what a plan costs each device, how wide its intervals will be, and what it overlaps "
        "with.",
        "new": "Write a new plan, commented and checked. Asks on a terminal for what no option says.",
    }

    modules: ClassVar = {"new": "new_plan"}


app = typer.Typer(cls=Commands, help="Check, show and sign evaluation plans.", no_args_is_help=True)

PlanPath = Annotated[Path, typer.Argument(help="A plan, in YAML.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class BadPlans(BadInput):
    """Something is wrong with one or more plans. Each line begins with a file."""

    located: ClassVar[bool] = True


@app.command()
def check(
    plans: Annotated[
        list[Path], typer.Argument(help="Plans, in YAML, or directories of them.", show_default=False)
    ],
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices to be asked, to check that they can fill the groups.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say everything that is wrong with plans, by file, line and column. Exit code 2 if anything is."""
    found = [_checked(path, devices) for path in _files(plans)]
    errors = [each for _, each in found if isinstance(each, BadInput)]
    if as_json:
        typer.echo(json.dumps([_row(path, each) for path, each in found], indent=2))
        raise typer.Exit(BadInput.exit_code if errors else 0)
    if any(path.is_dir() for path in plans):
        _print_table(found)
    else:
        for path, each in found:
            if isinstance(each, Plan):
                typer.echo(f"{path}: good, {each.name} {each.hash[:12]}")
    if errors:
        raise BadPlans("\n".join(map(str, errors)))


def _files(paths: list[Path]) -> list[Path]:
    """Return the files named, with the plans in a directory in its place, sorted by name."""
    found = []
    for path in paths:
        inside = plan_files(path) if path.is_dir() else [path]
        if not inside:
            raise BadInput(f"{path}: there is no plan in this directory: no file ends in .yaml or .yml")
        found += inside
    return found


def _checked(path: Path, devices: int | None) -> tuple[Path, Plan | BadInput]:
    try:
        return path, load(path, today=datetime.now(UTC).date(), fleet=devices)
    except BadInput as error:
        return path, error


def _row(path: Path, found: Plan | BadInput) -> dict[str, object]:
    if isinstance(found, BadInput):
        return {"file": str(path), "good": False, "problems": _problems(found)}
    return {"file": str(path), "good": True, "plan": found.name, "hash": found.hash, "problems": []}


def _print_table(found: list[tuple[Path, Plan | BadInput]]) -> None:
    from fa_core.cli.text_table import table

    rows = []
    for path, each in found:
        if isinstance(each, Plan):
            rows.append((path.name, each.name, str(each.metadata.expires), each.hash[:12], "good"))
        else:
            count = len(_problems(each))
            rows.append((path.name, "", "", "", f"{count} problem{'' if count == 1 else 's'}"))
    table("", ("file", "plan", "expires", "hash", ""), rows)


def _problems(error: BadInput) -> list[dict[str, object]]:
    if not isinstance(error, BadPlan):
        return [{"line": None, "column": None, "found": str(error), "right": None}]
    return [
        {"line": p.position.line, "column": p.position.column, "found": p.found, "right": p.right}
        for p in error.problems
    ]


@app.command()
def show(plan: PlanPath, as_json: AsJson = False) -> None:
    """Show a plan as it will be sent, presets and defaults written out. --json prints what is signed."""
    from fa_core.plan.prose import describe

    loaded = load(plan, today=date.min)
    if as_json:
        typer.echo(canonical(loaded), nl=False)
    else:
        typer.echo(describe(loaded))


@app.command()
def schema(
    canonical_form: Annotated[
        bool,
        typer.Option("--canonical", help="Of the form that is signed (docs/plan.canonical.schema.json)."),
    ] = False,
) -> None:
    """Print the JSON Schema of plans, which gives completion in an editor (docs/eval-plan.schema.json)."""
    from fa_core.plan.canonical_schema import canonical_schema_text
    from fa_core.plan.editor import schema_text

    typer.echo(canonical_schema_text() if canonical_form else schema_text(), nl=False)


@app.command()
def sign(
    plan: PlanPath,
    key: Annotated[Path, typer.Option(help="The private key, from `fa plan keygen`.", show_default=False)],
) -> None:
    """Sign a plan: checks it, and writes PLAN.sig beside it."""
    from fa_core.trust.enrolment import read_key

    loaded = load(plan)
    signed = SignedPlan.of(loaded, read_key(key))
    beside = plan.with_name(plan.name + ".sig")
    _write(beside, signed.text())
    typer.echo(f"{beside}: {loaded.name} {loaded.hash} signed by {signed.key.hex()}")


@app.command()
def keygen(
    key: Annotated[Path, typer.Argument(help="Where to write the private key.", show_default=False)],
) -> None:
    """Make a key to sign plans with: KEY, readable by you only, and KEY.pub, which devices are to trust."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from fa_core.trust.enrolment import write_key

    made = Ed25519PrivateKey.generate()
    try:
        write_key(key, made)
    except OSError as error:
        raise BadInput(f"{key}: cannot be written: {error.strerror}") from None
    public = key.with_name(key.name + ".pub")
    _write(public, made.public_key().public_bytes_raw().hex() + "\n")
    typer.echo(f"{key}: private, keep it; {public}: for the devices")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from None
