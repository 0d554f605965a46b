"""Output that cannot be written, terminals without a character, and Ctrl-C: a sentence, for each command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAN = "eval_plans/wake-word-weekly.yaml"
FA = (sys.executable, "-m", "fa_core.cli")
FULL = Path("/dev/full")

COMMANDS = [
    ("--help",),
    ("--version",),
    ("plan", "show", PLAN),
    ("plan", "schema"),
    ("plan", "check", "--json", PLAN),
]
PRINTS = """
import json, sys
from fa_core.cli import output
from fa_core.cli.output import prepare
prepare()
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_sentence_and_exit_code_2(command: tuple[str, ...]) -> None:
    with FULL.open("wb") as full:
        done = subprocess.run([*FA, *command], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "fa: the output cannot be written: No space left on device\n",
    )


def test_bytes_that_cannot_be_written_are_one_sentence_too() -> None:
    """`fa results export` writes bytes, past the text."""
    script = PRINTS + (
        "sys.stdout.buffer.write(b'x' * 100_000)\n"
        "try:\n    output.finish()\nexcept output.OutputFailed as error:\n    sys.exit(str(error))\n"
    )
    with FULL.open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert "No space left on device" in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_closed_standard_output_is_one_sentence() -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *FA, "plan", "show", PLAN]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "fa: the output cannot be written: it is closed\n")


def test_a_reader_that_has_gone_away_ends_the_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*FA, "plan", "schema"], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_closed_standard_error_hides_no_exit_code() -> None:
    with FULL.open("wb") as full:
        done = subprocess.run([*FA, "plan", "check", "nowhere.yaml"], cwd=ROOT, stdout=full, stderr=full)
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("charset", "shown"),
    [("ascii", "+/- 3 x rho |\n"), ("latin-1", "± 3 × rho |\n"), ("utf-8", "± 3 × ρ │\n")],
)
def test_a_terminal_without_a_character_gets_the_nearest(charset: str, shown: str) -> None:
    """However a command prints: by click, by rich, or by itself."""
    script = PRINTS + (
        "import typer\nfrom rich.console import Console\n"
        "text = '± 3 × ρ │'\n"
        "print(text)\ntyper.echo(text)\nConsole().print(text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": charset},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(charset) == 3 * shown


def test_json_stays_json_in_ascii() -> None:
    script = PRINTS + "sys.stdout.write(json.dumps(['5 ± 1', 'Čapek', '🎤'], ensure_ascii=False))\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert json.loads(done.stdout.decode("ascii")) == ["5 +/- 1", "Čapek", "🎤"]


def test_ctrl_c_is_one_sentence_and_exit_code_130() -> None:
    """The signal arrives while the command is imported, and so before anything of its own could catch it."""
    script = (
        "import fa_core.cli.lazy as lazy, signal, os\n"
        # A run of tests in the background ignores the signal, and hands that on.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def load(*names):\n    os.kill(os.getpid(), signal.SIGINT)\n    signal.pause()\n"
        "lazy.load = load\n"
        "from fa_core.cli import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "plan", "show", "x"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (130, "fa: stopped\n")


def test_each_line_of_an_error_begins_alike(tmp_path: Path) -> None:
    """FIELD 18: lines with a place begin with it, so that an editor jumps there, and no line with `fa: `."""
    bad = tmp_path / "bad.yaml"
    text = (ROOT / PLAN).read_text()
    bad.write_text(text.replace("window: 7d", "window: soon").replace("EvalPlan", "Plan"))
    missing = tmp_path / "missing.yaml"
    done = subprocess.run(
        [*FA, "plan", "check", str(bad), str(missing), str(bad)], cwd=ROOT, capture_output=True, text=True
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert len(lines) == 5
    assert all(line.startswith((f"{bad}:", f"{missing}:")) for line in lines), lines


def test_each_line_of_an_error_without_a_place_begins_with_the_name_of_the_command() -> None:
    script = (
        "from fa_core import cli\nfrom fa_core.errors import BadInput\n"
        "print(cli._sentence(BadInput('one\\ntwo')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "fa: one\nfa: two\n"
