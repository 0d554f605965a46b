"""`fa`: the command line. Thin: each module is one noun, and the work is done in the rooms.

A command's module is imported when that command is named, so that `fa --help` imports none of them.

Exit codes: 0 done, 2 bad input, 3 refused by policy or budget, 4 the round failed and nothing was
released, 1 a defect of ours. 130 is Ctrl-C, 141 a pipe whose reader has gone away.
"""

import gc
import sys
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Final

import click
import typer

from fa_core.cli import output
from fa_core.cli.lazy import LazyGroup
from fa_core.errors import BadInput, UnheardError

VERBS: Final = {
    "run": "Ask devices what a plan asks, and release the noised answer. The ledger is charged before.",
    "schedule": "List which plans are due by their `schedule`, run them, or write a timer that does.",
    "compare": "Say what changed from one release to another, by metric and group, and whether the evidence "
    "is enough.",
    "report": "Write a release as one page: what was asked, signed, spent, found and hidden, and how to "
    "verify.",
    "audit": "Audit the noise: try to distinguish two fleets that differ in one device; broken noise must be "
    "caught.",
    "conformance": "Drive a foreign device through the published vectors, a round and a collection with a "
    "hostile server.",
    "dashboard": "Open the results in a browser: on this machine alone, unless you say who else may come in.",
    "demo": "Build a fleet, look before asking, ask six plans, read the answers, leave the dashboard "
    "running.",
    "doctor": "Check a set-up and say what to mend. Changes nothing. Exit code 2 where something is broken.",
}
"""Single commands, one module each, with a function of that name. The text is how its help begins."""

NOUNS: Final = {
    "plan": "Check, show and sign evaluation plans.",
    "fleet": "Build the device tables of many devices, or bring your own.",
    "testset": "Make controlled test sets, and score models on them offline.",
    "results": "List, show and export what was released.",
    "ledger": "Show the privacy ledger, verify it, and set budgets.",
    "log": "Show the transparency log, prove entries, and verify it.",
    "device": "See what this device stores and what was sent in your name; consent, forget, verify, serve.",
    "enrol": "Make an enrolment authority and admit devices to it.",
    "witness": "Sign one roster and one survivor list a release, so that no server chooses them alone.",
    "helper": "Check and add reports with a leader that cannot read them.",
    "gateway": "Stand in front of many devices that connect over HTTPS.",
    "federation": "Make a federation's keys and units; start, look at and stop a lab of it.",
    "alerts": "Send a webhook or an e-mail when a guardrail breaks, a round fails or a budget runs low.",
    "rollout": "Take a candidate model to devices in stages, behind a gate that the witness computes again.",
    "model": "Sign, keep and publish what devices load: heads, adapters, thresholds, policies.",
    "vault": "Keep donated samples that two reviewers open together.",
    "train": "Train adapters from many devices: check, preview, run, and see what came of it.",
    "store": "Back up, restore and verify the whole store.",
}
"""Groups of commands, one module each, with a Typer called `app`. The text is its help."""


class Stopped(UnheardError):
    """Ctrl-C ended the command."""

    exit_code: ClassVar[int] = 130


class Commands(LazyGroup):
    """The top level."""

    texts = VERBS | NOUNS

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Stopped("stopped") from None  # Typer would end without a word


def build() -> typer.Typer:
    """Return the whole command line."""
    app = typer.Typer(
        name="fa",
        cls=Commands,
        help="Unheard: measure how a speech model does for everyone, and listen to no one.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    return app


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"unheard {version('unheard')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the name and version.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Options of `fa` itself."""


def main() -> None:
    """Run the command line, and turn every error that is not a defect into a sentence and its exit code."""
    gc.disable()  # until the command is imported: `load` switches it on
    sys.exit(_run())


def _run() -> int:
    """Run the command line once and return its exit code. Whatever it prints is written when this returns."""
    try:
        output.prepare()
        code = build()(standalone_mode=False)
        output.finish()
    except output.OutputClosed as error:
        return error.exit_code
    except UnheardError as error:
        output.say(_sentence(error))
        return error.exit_code
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        return BadInput.exit_code
    except (click.Abort, KeyboardInterrupt):
        output.say("fa: stopped")
        return Stopped.exit_code
    return code if isinstance(code, int) else 0


def _sentence(error: UnheardError) -> str:
    """Return an error as it is printed. Each line begins alike: with `fa: `, or with the place in a file."""
    start = "" if error.located else "fa: "
    return "\n".join(start + line for line in str(error).split("\n"))
