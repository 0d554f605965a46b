"""A device from the specification alone: the vectors, the plain device that passes, and those that do not."""

import ast
import json
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.cli import build
from fa_core.collection.report import open_share
from fa_core.collection.task import Task as CollectionTask
from fa_core.conformance import live, uploads
from fa_core.conformance.adapter import Device, NoAnswer, Process, Row
from fa_core.conformance.vectors import FILES, difference, files, run
from fa_core.conformance.world import NOW
from fa_core.errors import BadInput
from fa_core.plan import from_canonical, parse
from fa_core.prio.blocks import ALGORITHM, PROOFS, circuit
from fa_core.prio.xof import HmacAes
from fa_core.secagg.task import Reason
from fa_core.trust.hpke import OpeningKey
from tests.conformance import broken_uploads, make_reports, make_vectors, samples
from tests.conformance.broken import FAULTS, FOLDER, NAMES, Fault, Inside, foreign
from tests.conformance.product import Product, count
from tests.prio.gates import gates_of
from tests.prio.reference import P64, Reference

VECTORS = make_vectors.FOLDER
STEPS = dict(files(VECTORS))


def rows_of(part: str, device: Device) -> Iterator[Row]:
    """Return the rows of one file of vectors, or of one round."""
    if part in STEPS:
        return run(part, STEPS[part], device)
    if part == uploads.PART:
        # The vectors `tasks` have every offer that must be declined; here is what follows.
        with patch.object(uploads, "faults", lambda *rest: iter(())):
            return iter(list(uploads.run(device)))
    return (row for row in live.run(device) if row.part == part)


def not_passed(rows: Iterator[Row]) -> list[Row]:
    return [row for row in rows if row.outcome != "passed"]


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("reports", "rollouts")])
def test_the_package_answers_the_vectors_as_published(name: str) -> None:
    assert not_passed(run(name, STEPS[name], Product())) == []


@pytest.mark.parametrize(
    "name", [name for name in FILES if name not in ("rounds", "refusals", "reports", "rollouts")]
)
def test_the_script_makes_the_published_questions(name: str) -> None:
    made = list(getattr(make_vectors, name)())
    assert [each["ask"] for each in made] == [each["ask"] for each in STEPS[name]]


@pytest.mark.parametrize("name", ["reports", "rollouts"])
def test_the_script_makes_the_published_questions_and_answers(name: str) -> None:
    """Those of which the package's answers take long. Leader and helper verify each report that is made."""
    assert list(getattr(make_vectors, name)()) == STEPS[name]


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
    assert set(parts) == {*FILES, "a complaint", "a whole round", uploads.PART}
    assert parts.count("a whole round") > 80
    assert parts.count(uploads.PART) > 50


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


@pytest.mark.parametrize("fault", [*FAULTS, *broken_uploads.FAULTS], ids=lambda fault: fault.name)
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
        "EXPIRED", "REVISION", "WINDOW", "LIMITS", "SUM",
    }  # fmt: skip
    assert {each["answer"].get("refused", "") for each in STEPS["tasks"]} == {"", "COLLECTION", "SUM"}


def test_the_rounds_have_fewer_neighbours_an_odd_number_and_more_than_eight_devices() -> None:
    opened = [each["ask"] for each in STEPS["rounds"] if each["ask"]["op"] == "open"]
    neighbours = [len(ask["secrets"]["shares"]) for ask in opened]
    assert neighbours == [26, 9, 8]
    assert all({"share_private", "mask_private", "seed"} <= set(ask["secrets"]) for ask in opened)


SMALL_REPORTS = ("command-success-floor", "dictation-errors-apart", "command-latency")


@pytest.mark.parametrize("name", SMALL_REPORTS)
def test_a_published_report_is_that_of_the_plain_reference(name: str) -> None:
    """Every byte of both shares, and the verdict; over the package's gates, one by one."""
    (step,) = (each for each in STEPS["reports"] if each["name"] == name)
    ask, answer = step["ask"], step["answer"]
    task, number = CollectionTask.parse(ask["task"].encode()), bytes.fromhex(ask["id"])
    found = circuit(from_canonical(ask["plan"].encode()))
    plain = Reference(gates_of(found.system, found.chunk), ALGORITHM, HmacAes(), PROOFS)
    public, (leader, helper) = plain.shard(task.id, step["elements"], number, bytes.fromhex(ask["random"]))
    assert (public.hex(), leader.hex(), helper.hex()) == (answer["public"], step["leader"], answer["helper"])
    assert sha256(leader).hexdigest() == answer["leader"]
    key, device = bytes(range(32)), Ed25519PrivateKey.from_private_bytes(bytes.fromhex(ask["identity"]))
    begun = [
        plain.begin(role, key, task.id, number, public, share) for role, share in enumerate((leader, helper))
    ]
    assert plain.decide(task.id, [verifier for verifier, _, _ in begun]) == begun[0][2]
    shares = zip(*(share for _, share, _ in begun), strict=True)
    assert [sum(pair) % P64 for pair in shares] == step["elements"]
    private = OpeningKey(bytes.fromhex(step["private"])).private()
    about = (number, device.public_key().public_bytes_raw(), public)
    assert open_share(task.id, private, *about, bytes.fromhex(ask["box"])) == helper


def test_there_is_a_report_for_each_shipped_plan_and_none_for_training() -> None:
    names = [each["name"] for each in STEPS["reports"]]
    training = {path.stem for path in make_reports.PLANS.glob("*.yaml")} - set(names)
    assert training == {"hear-every-accent", "moment-norms"}
    for name in training:
        text = (make_reports.PLANS / f"{name}.yaml").read_text(encoding="utf-8")
        summed = text.replace("privacy:\n", "privacy:\n  sum: two_aggregators\n", 1)
        assert summed != text
        with pytest.raises(BadInput, match="leader and helper together"):
            parse(summed.encode(), name, today=NOW.date(), policy=None)
        with pytest.raises(BadInput, match="not summed by two aggregators"):
            circuit(parse(text.encode(), name, today=NOW.date(), policy=None))
    reports = [each for each in STEPS["reports"] if each["ask"]["op"] == "report"]
    assert all(each["accepted"] and any(each["vector"]) for each in reports)
    small = [each for each in reports if each["name"] in SMALL_REPORTS]
    assert [count(each["ask"])["vector"] for each in small] == [each["vector"] for each in small]


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
    assert [row.outcome for row in uploads.run(Poor())] == ["not supported"]


def test_the_command_says_what_failed_and_ends_with_4_or_2(tmp_path: Path) -> None:
    # The device is started anew for each question.
    few = tmp_path / "few"
    few.mkdir()
    for name, steps in STEPS.items():
        (few / f"device-{name}.json").write_text(json.dumps({"steps": steps[:1]}), encoding="utf-8")
    failing = CliRunner().invoke(
        build_command(), ["conformance", "--vectors", str(few), "--", sys.executable, "-c", BABBLES]
    )
    assert getattr(failing.exception, "exit_code", None) == 4
    assert "no JSON object" in failing.output
    for arguments in (
        ["--vectors", str(tmp_path), "--", sys.executable],
        ["--vectors", str(VECTORS), "--", str(tmp_path / "nothing")],
    ):
        result = CliRunner().invoke(build_command(), ["conformance", *arguments])
        assert isinstance(result.exception, BadInput)
