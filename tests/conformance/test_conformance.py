"""A device from the specification alone: the vectors, the plain device that passes, and those that do not."""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fa_core.cli import build
from fa_core.conformance import live
from fa_core.conformance.adapter import Device, NoAnswer, Process, Row
from fa_core.conformance.vectors import FILES, difference, files, run
from fa_core.errors import BadInput
from fa_core.secagg.task import Reason
from tests.conformance import make_vectors, samples
from tests.conformance.broken import FAULTS, FOLDER, NAMES, Fault, Inside, foreign
from tests.conformance.product import Product

VECTORS = make_vectors.FOLDER
STEPS = dict(files(VECTORS))


def rows_of(part: str, device: Device) -> Iterator[Row]:
    """Return the rows of one file of vectors, or of one round."""
    if part in STEPS:
        return run(part, STEPS[part], device)
    return (row for row in live.run(device) if row.part == part)


def not_passed(rows: Iterator[Row]) -> list[Row]:
    return [row for row in rows if row.outcome != "passed"]


@pytest.mark.parametrize("name", FILES)
def test_the_package_answers_the_vectors_as_published(name: str) -> None:
    assert not_passed(run(name, STEPS[name], Product())) == []


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("rounds", "refusals")])
def test_the_script_makes_the_published_questions(name: str) -> None:
    made = list(getattr(make_vectors, name)())
    assert [each["ask"] for each in made] == [each["ask"] for each in STEPS[name]]


def test_the_plain_device_passes_everything() -> None:
    """As a process, over its transport, through the command."""
    command = [
        "conformance",
        "--json",
        "--vectors",
        str(VECTORS),
        "--",
        sys.executable,
        str(FOLDER / "device.py"),
    ]
    result = CliRunner().invoke(build_command(), command)
    assert result.exception is None, result.output
    said = json.loads(result.output)
    assert said["passed"]
    assert not [row for row in said["rows"] if row["outcome"] != "passed"]
    parts = [row["part"] for row in said["rows"]]
    assert set(parts) == {*FILES, "a complaint", "a whole round"}
    assert parts.count("a whole round") > 80


def build_command() -> Any:
    import typer

    return typer.main.get_command(build())


def test_the_plain_device_shares_no_code_with_the_package() -> None:
    for name in NAMES:
        tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for each in names:
                first = each.split(".")[0]
                assert first in sys.stdlib_module_names or first in (*NAMES, "cryptography"), (name, each)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_device_with_one_fault_fails_in_the_row_of_that_fault(fault: Fault) -> None:
    with foreign() as modules:
        fault.make(modules)
        failed = not_passed(rows_of(fault.part, Inside(modules)))
    assert fault.rows <= {row.name for row in failed}
    assert all(row.outcome == "failed" and row.detail for row in failed)


def test_each_code_of_a_refusal_and_each_reason_at_join_has_a_vector() -> None:
    codes = {each["answer"].get("refused") for each in STEPS["refusals"]}
    assert codes >= {reason.value for reason in Reason}
    reasons = {each["answer"].get("refused") for each in STEPS["invitations"]}
    assert reasons >= {
        "MALFORMED", "REVOKED", "SIGNATURE", "COST", "NOT_LOGGED", "NOT_CHARGED", "LOG_FORKED", "CLOCK",
        "EXPIRED", "REVISION", "WINDOW", "LIMITS",
    }  # fmt: skip


def test_the_rounds_have_fewer_neighbours_an_odd_number_and_more_than_eight_devices() -> None:
    opened = [each["ask"] for each in STEPS["rounds"] if each["ask"]["op"] == "open"]
    neighbours = [len(ask["secrets"]["shares"]) for ask in opened]
    assert neighbours == [26, 9, 8]
    assert all({"share_private", "mask_private", "seed"} <= set(ask["secrets"]) for ask in opened)


def test_every_kind_has_a_layout_and_a_count() -> None:
    kinds = {*samples.METRICS, "one_shot_means", "norm_histogram"}
    for name in ("layouts", "counts"):
        plans = [json.loads(each["ask"]["plan"]) for each in STEPS[name]]
        assert {metric["kind"] for plan in plans for metric in plan["metrics"].values()} == kinds


def test_answers_are_compared_exactly_but_for_the_variance_of_a_share() -> None:
    assert difference({"a": [1, {"b": "2"}]}, {"a": [1, {"b": "2"}], "more": 0}) == ""
    for wrong in ({}, {"a": 1}, {"a": True}, {"a": [1, 2]}, {"refused": "LIMITS"}):
        assert difference({"a": [1]}, wrong)
    assert (
        difference({"refused": "LIMITS"}, {"refused": "WINDOW"})
        == "expected the refusal LIMITS, got the refusal WINDOW"
    )
    right = {"shares": [{"variance": "4"}]}
    assert difference(right, {"shares": [{"variance": "4.000001"}]}) == ""
    for wrong in ("3.99", "4.1", "x", None, 0):
        assert difference(right, {"shares": [{"variance": wrong}]})


ENDS = "import sys; sys.stdin.readline()"
BABBLES = "import sys\nfor line in sys.stdin: print('[]', flush=True)"
SLEEPS = "import sys, time\nfor line in sys.stdin: time.sleep(60)"


@pytest.mark.parametrize(
    "program, why", [(ENDS, "ended"), (BABBLES, "no JSON object"), (SLEEPS, "no answer in 0.3 s")]
)
def test_a_device_that_gives_no_answer_fails_and_is_started_anew(program: str, why: str) -> None:
    device = Process([sys.executable, "-c", program], seconds=0.3 if program is SLEEPS else 30.0)
    for _ in range(2):
        with pytest.raises(NoAnswer, match=why):
            device.ask({"op": "hello"})
    device.close()


def test_what_a_device_does_not_support_is_said_and_is_no_failure() -> None:
    class Poor:
        def ask(self, question: dict[str, Any]) -> dict[str, Any]:
            return {"unsupported": True}

    assert {row.outcome for row in run("costs", STEPS["costs"], Poor())} == {"not supported"}
    assert [row.outcome for row in live.run(Poor())] == ["not supported"] * 2


def test_the_command_says_what_failed_and_ends_with_4_or_2(tmp_path: Path) -> None:
    failing = CliRunner().invoke(
        build_command(), ["conformance", "--vectors", str(VECTORS), "--", sys.executable, "-c", BABBLES]
    )
    assert getattr(failing.exception, "exit_code", None) == 4
    assert "no JSON object" in failing.output
    for arguments in (
        ["--vectors", str(tmp_path), "--", sys.executable],
        ["--vectors", str(VECTORS), "--", str(tmp_path / "nothing")],
    ):
        result = CliRunner().invoke(build_command(), ["conformance", *arguments])
        assert isinstance(result.exception, BadInput)
