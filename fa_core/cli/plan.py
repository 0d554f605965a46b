"""`fa plan`: check a plan, show what it says, sign it, and write the JSON Schema for editors."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from fa_core.cli.lazy import LazyGroup
from fa_core.errors import BadInput
from fa_core.plan import BadPlan, SignedPlan, canonical, load


class Commands(LazyGroup):
    """`fa plan`: the preview needs the estimators and the store, for which a check should not wait."""

    texts: ClassVar = {
        "preview": "Say what a plan costs each device, how wide its intervals will be, and what it overlaps "
        "with."
    }


app = typer.Typer(cls=Commands, help="Check, show and sign evaluation plans.", no_args_is_help=True)

PlanPath = Annotated[Path, typer.Argument(help="A plan, in YAML.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def check(
    plans: Annotated[list[Path], typer.Argument(help="Plans, in YAML.", show_default=False)],
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices to be asked, to check that they can fill the groups.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say everything that is wrong with plans, by file, line and column. Exit code 2 if anything is."""
    errors: list[BadInput] = []
    rows: list[dict[str, object]] = []
    today = datetime.now(UTC).date()
    for path in plans:
        try:
            plan = load(path, today=today, fleet=devices)
        except BadInput as error:
            errors.append(error)
            rows.append({"file": str(path), "good": False, "problems": _problems(error)})
        else:
            rows.append(
                {"file": str(path), "good": True, "plan": plan.name, "hash": plan.hash, "problems": []}
            )
            if not as_json:
                typer.echo(f"{path}: good, {plan.name} {plan.hash[:12]}")
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        raise typer.Exit(BadInput.exit_code if errors else 0)
    if errors:
        raise BadInput("\n".join(map(str, errors)))


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
def schema() -> None:
    """Print the JSON Schema of plans, which gives completion in an editor (docs/eval-plan.schema.json)."""
    from fa_core.plan.editor import schema_text

    typer.echo(schema_text(), nl=False)


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
