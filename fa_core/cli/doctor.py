"""`fa doctor`: is this set-up sound, and if not, what mends it?"""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fa_core.errors import BadInput
from fa_core.store import DEFAULT

COLOURS = {"good": "green", "look": "yellow", "broken": "red"}


def doctor(
    place: Annotated[
        str,
        typer.Argument(help="A store (folder or postgresql://…), a federation, or a gateway's folder."),
    ] = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a set-up and say what to mend. Changes nothing. Exit code 2 where something is broken."""
    from fa_core.doctor.check import as_object, examine

    findings = list(examine(place))
    wrong = [each for each in findings if each.state == "broken"]
    if as_json:
        typer.echo(as_object(findings))
        raise typer.Exit(BadInput.exit_code if wrong else 0)
    console = Console(soft_wrap=True)
    if console.is_terminal:
        table = Table("", "check", "found", "mend")
        for each in findings:
            colour = COLOURS[each.state]
            table.add_row(f"[{colour}]{each.state}[/]", each.check, escape(each.found), escape(each.mend))
        console.print(table)
    else:
        for each in findings:
            mend = f" -> {each.mend}" if each.mend else ""
            typer.echo(f"{each.state:7} {each.check}: {each.found}{mend}")
    if wrong:
        raise BadInput(f"{len(wrong)} of {len(findings)} checks found something broken")
