"""What a command imports before it does anything, and that the top level knows its commands without them."""

import inspect
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from typer.testing import CliRunner

from fa_core.cli import Commands, build
from fa_core.cli.lazy import LazyGroup, load
from fa_core.cli.plan import Commands as PlanCommands

ROOT = Path(__file__).resolve().parents[1]
PLAN = "eval_plans/wake-word-weekly.yaml"
OF_HELP = {"attr", "click", "fa_core", "markdown_it", "mdurl", "pygments", "rich", "shellingham", "typer"}
"""All that `fa --help` imports besides the standard library: Typer, and what Typer draws with."""

HEAVY = {
    "alembic", "altair", "cryptography", "diffprivlib", "dp_accounting", "fastapi", "flwr", "grpc", "numpy",
    "opendp", "pandas", "pyarrow", "ray", "scipy", "sklearn", "sqlalchemy", "streamlit", "uvicorn",
}  # fmt: skip
"""What costs a command more than all the rest. A module of metrics that needs numpy for its arrays takes `np`
from `fa_core.arrays`; whatever else is heavy is imported in the function that uses it."""

RUN = """
import json, sys
before, sys.argv[0] = set(sys.modules), "fa"
from fa_core.cli import main
try:
    main()
except SystemExit as ended:
    code = ended.code
new = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
print(json.dumps([code, sorted(new)]), file=sys.stderr)
"""


def imports_of(*arguments: str) -> tuple[int, set[str]]:
    """Run `fa` in a process of its own; return its exit code and the top-level modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    code, names = json.loads(done.stderr.splitlines()[-1])
    return code, set(names)


def test_help_imports_the_command_line_library_alone() -> None:
    assert imports_of("--help") == (0, OF_HELP)


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [(("--version",), 0), (("plan", "check", PLAN), 0), (("plan", "check", "nowhere.yaml"), 2)],
)
def test_a_check_imports_no_heavy_library(arguments: tuple[str, ...], exit_code: int) -> None:
    code, names = imports_of(*arguments)
    assert (code, names & HEAVY) == (exit_code, set())


def test_heavy_libraries_are_seen_where_they_are_used(tmp_path: Path) -> None:
    code, names = imports_of("plan", "preview", PLAN, "--store", str(tmp_path / "none"))
    assert code == 0
    assert names >= {"numpy", "scipy"}


@pytest.mark.parametrize("group", [Commands, PlanCommands])
def test_commands_are_listed_by_the_beginning_of_their_own_help(group: type[LazyGroup]) -> None:
    for name, text in group.texts.items():
        command = load(name, group.modules.get(name, name))
        own = inspect.cleandoc(command.help or "").partition("\n\n")[0].replace("\n", " ")
        assert own == text, name


def test_an_unknown_command_is_answered_with_the_nearest_one_once() -> None:
    for arguments, nearest in (
        (["pln"], "plan"),
        (["plan", "chekc"], "check"),
        (["plan", "previw"], "preview"),
    ):
        found = CliRunner().invoke(build(), arguments)
        assert found.exit_code == 2
        assert found.output.count(f"Did you mean '{nearest}'?") == 1


def test_version_is_the_installed_one() -> None:
    assert CliRunner().invoke(build(), ["--version"]).output == f"unheard {version('unheard')}\n"


@pytest.mark.parametrize(
    ("words", "completions"), [("fa pl", {"plan"}), ("fa plan pre", {"preview"}), ("fa doc", {"doctor"})]
)
def test_the_shell_completes_commands_imported_or_not(words: str, completions: set[str]) -> None:
    asked = {"_FA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    script = "import sys; sys.argv[0] = 'fa'; from fa_core.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=os.environ | asked, capture_output=True, text=True
    )
    assert set(done.stdout.split()) == completions


def test_a_group_that_is_imported_answers_as_click_does() -> None:
    found = CliRunner().invoke(build(), ["log", "--help"])
    assert found.exit_code == 0
    assert "verify" in click.unstyle(found.output)
