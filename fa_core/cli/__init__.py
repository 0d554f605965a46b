"""`fa`: the command line. Thin: each module is one noun, and the work is done in the rooms.

Exit codes: 0 done, 2 bad input, 3 refused by policy or budget, 4 the round failed and nothing was
released, 1 a defect of ours.
"""

import sys
from importlib import import_module
from typing import Final

import click
import typer

from fa_core.cli.preview import preview
from fa_core.errors import UnheardError
from fa_core.plan import BadPlan

NOUNS: Final = (
    "plan",
    "fleet",
    "results",
    "ledger",
    "log",
    "device",
    "enrol",
    "witness",
    "gateway",
    "federation",
    "store",
)
"""Groups of commands, one module each."""

VERBS: Final = ("run", "compare", "report", "audit", "dashboard", "demo", "doctor")
"""Single commands, one module each, with a function of that name."""


def build() -> typer.Typer:
    """Return the whole command line."""
    app = typer.Typer(
        name="fa",
        help="Unheard: measure how a speech model does for everyone, and listen to no one.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    for noun in NOUNS:
        app.add_typer(import_module(f"fa_core.cli.{noun}").app, name=noun)
    import_module("fa_core.cli.plan").app.command("preview")(preview)
    for verb in VERBS:
        app.command(name=verb)(getattr(import_module(f"fa_core.cli.{verb}"), verb))
    return app


def main() -> None:
    """Run the command line, and turn every error that is not a defect into a sentence and its exit code."""
    try:
        code = build()(standalone_mode=False)
    except BadPlan as error:
        # Without a prefix: editors jump to a line that begins with file:line:column.
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except UnheardError as error:
        typer.echo(f"fa: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        typer.echo("fa: stopped", err=True)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
