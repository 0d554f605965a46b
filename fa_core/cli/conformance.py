"""`fa conformance`: does a device in another language keep to the specification?"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fa_core.cli.text_table import table
from fa_core.errors import RoundFailed

VECTORS = Path("tests/vectors")


class NotConformant(RoundFailed):
    """The device did not do what the specification says."""


def conformance(
    command: Annotated[
        list[str],
        typer.Argument(help="How the device's adapter is started, after `--`.", show_default=False),
    ],
    vectors: Annotated[Path, typer.Option(help="The folder of vectors, of a checkout.")] = VECTORS,
    every: Annotated[bool, typer.Option("--all", help="Print what passed, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a row for each thing tried.")] = False,
) -> None:
    """Drive a foreign device through the published vectors, a round and a collection with a hostile server.

    The device is a process that answers JSON lines (docs/conformance.md). Exit code 0 where it passed
    everything that it supports, 4 where it failed anything, 2 where it cannot be started or the vectors
    cannot be read.
    """
    from fa_core.conformance import live, uploads
    from fa_core.conformance.adapter import Process
    from fa_core.conformance.vectors import files, run

    found = files(vectors)
    device = Process(command)
    try:
        rows = [row for name, steps in found for row in run(name, steps, device)]
        rows += [*live.run(device), *uploads.run(device)]
    finally:
        device.close()
    failed = [row for row in rows if row.outcome == "failed"]
    if as_json:
        typer.echo(json.dumps({"passed": not failed, "rows": [asdict(row) for row in rows]}))
    else:
        shown = rows if every else [row for row in rows if row.outcome != "passed"]
        if shown:
            texts = [(row.part, row.name, row.outcome, row.detail) for row in shown]
            table("", ("part", "what was tried", "outcome", "detail"), texts)
        parts = dict.fromkeys(row.part for row in rows)
        summary = [
            (part, *(str(sum(r.part == part and r.outcome == o for r in rows)) for o in OUTCOMES))
            for part in parts
        ]
        table("", ("part", *OUTCOMES), summary)
    if failed:
        raise NotConformant(f"the device failed {len(failed)} of {len(rows)} checks")


OUTCOMES = ("passed", "failed", "not supported")
