"""Every command that a document, a message or a comment prints is one that `fa` has, with those options.

What the demo prints is run in tests/end_to_end/test_demo.py, what empty pages print in tests/dashboard.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.printed import ROOT, in_code_blocks, in_spans, problem

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def sources() -> Iterator[Path]:
    for folder in ("fa_core", "clients", "dashboard", "eval_plans"):
        yield from sorted(
            file for kind in ("py", "yaml", "toml") for file in (ROOT / folder).rglob(f"*.{kind}")
        )


def test_commands_of_code_blocks_can_be_typed() -> None:
    commands = [(file.name, each) for file in DOCUMENTS for each in in_code_blocks(file.read_text())]
    assert len(commands) > 40
    assert [found for found in commands if problem(found[1], whole=True)] == []


def test_commands_that_texts_and_messages_name_are_there() -> None:
    commands = [(file.name, each) for file in (*DOCUMENTS, *sources()) for each in in_spans(file.read_text())]
    assert len(commands) > 150
    assert [found for found in commands if problem(found[1], whole=False)] == []


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("fa rum plan.yaml", "No such command"),
        ("fa results shew latest", "No such command"),
        ("fa run plan.yaml --fleets DIR", "no option --fleets"),
        ("fa run eval_plans/no-such-plan.yaml", "there is no eval_plans/no-such-plan.yaml"),
        ("fa fleet make --devices 10", "Missing option"),
        ("fa fleet make --devices many --out DIR", "many"),
        ("fa run plan.yaml and what it does", "unexpected extra arguments"),
        ("python -m scripts.bench.no_such_bench", "there is no scripts/bench/no_such_bench.py"),
        ("scripts/demo --device 900", "no option --device"),
    ],
)
def test_a_command_that_cannot_be_typed_is_noticed(command: str, why: str) -> None:
    assert why in problem(command, whole=True)


def test_commands_are_found_in_every_form() -> None:
    text = "`fa run\nPLAN` and\n```\n$ fa plan check \\\n  x.yaml   # why\nfoo\n```\n\n    fa log show\n"
    assert list(in_spans(text)) == ["fa run PLAN"]
    assert [each.split("#")[0].split() for each in in_code_blocks(text)] == [
        ["fa", "plan", "check", "x.yaml"],
        ["fa", "log", "show"],
    ]
