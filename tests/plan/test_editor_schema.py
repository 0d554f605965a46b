"""The schema in docs/ is the language's own, and says what an author needs at each key."""

import json
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fa_core.metrics import KINDS, PRESETS
from fa_core.plan.editor import editor_schema, schema_text, training_schema, training_schema_text
from fa_core.plan.problems import Problems
from fa_core.plan.reader import read
from fa_core.plan.scalars import tree_of
from tests.plan.samples import GOOD, broken, complaints

ROOT = Path(__file__).parents[2]
SCHEMA = editor_schema()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
TRAINING = jsonschema.Draft7Validator(training_schema())


def as_editor_sees(text: str) -> Any:
    """Return a plan's values as a YAML 1.2 editor has them: JSON types only."""
    root = read(text.encode(), problems := Problems())
    assert root is not None, problems

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, Fraction):
            return float(value)
        return value.isoformat() if isinstance(value, date) else value

    return plain(tree_of(root, problems))


def test_the_file_in_docs_is_generated() -> None:
    """After a change to the language: `fa plan schema > docs/eval-plan.schema.json`."""
    assert (ROOT / "docs" / "eval-plan.schema.json").read_text(encoding="utf-8") == schema_text()
    assert (ROOT / "docs" / "train-plan.schema.json").read_text(encoding="utf-8") == training_schema_text()


def test_it_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", sorted((ROOT / "eval_plans").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_plan_to_start_from_is_valid(path: Path) -> None:
    seen = as_editor_sees(path.read_text(encoding="utf-8"))
    (TRAINING if seen["kind"] == "TrainPlan" else VALIDATOR).validate(seen)


def test_what_follows_from_a_training_plan_is_no_key_of_its_file() -> None:
    path = ROOT / "eval_plans" / "hear-every-accent.yaml"
    seen = as_editor_sees(path.read_text(encoding="utf-8"))
    for key, value in (("metrics", {}), ("where", {}), ("clips", 1)):
        assert not TRAINING.is_valid({**seen, key: value})


@pytest.mark.parametrize(
    "old,new",
    [
        ("window: 7d", "window: 7 days"),
        ("window: 7d", "windows: 7d"),
        ("source: wake_events", "source: wake"),
        ("revision: 3", "revision: '3'"),
        ("wake_word: okay_nabu", "wakeword: okay_nabu"),
        ('model_version: ["2.1"]', "model_version: 2.1"),
        ("kind: rate\n", "kind: rates\n"),
        ("    of: {outcome: false_accept}\n", ""),
        ("of: {outcome: false_accept}", "of: {outcome: false_accepted}"),
        ("expect: 0.05", "guess: 0.05"),
        ("edges: [8, 18], ", ""),
        ("{device: accent,", "{device: accents,"),
        ("epsilon: 1.0", "epsilon: -1"),
        ("noise: distributed", "noise: local"),
        ("charging, idle]", "charging, asleep]"),
        ("by: accent, max: 0.08", "by: accent, maximum: 0.08"),
    ],
)
def test_an_editor_marks_what_the_check_refuses(old: str, new: str) -> None:
    VALIDATOR.validate(as_editor_sees(GOOD))
    text = broken(old, new)
    assert complaints(text)
    assert not VALIDATOR.is_valid(as_editor_sees(text))


def test_every_key_has_its_sentence() -> None:
    def walk(schema: Any, path: str) -> None:
        if isinstance(schema, list):
            for index, item in enumerate(schema):
                walk(item, f"{path}/{index}")
        elif isinstance(schema, dict):
            for key, body in schema.get("properties", {}).items():
                target = body
                if "$ref" in body:
                    target = SCHEMA["$defs"][body["$ref"].rpartition("/")[2]]
                assert target.get("description"), f"{path}/{key} says nothing"
            for key, body in schema.items():
                walk(body, f"{path}/{key}")

    walk(SCHEMA, "")


def test_no_object_takes_unknown_keys() -> None:
    def walk(schema: Any, path: str) -> None:
        if isinstance(schema, list):
            for index, item in enumerate(schema):
                walk(item, f"{path}/{index}")
        elif isinstance(schema, dict):
            if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
                assert schema.get("additionalProperties") is False, path
            for key, body in schema.items():
                walk(body, f"{path}/{key}")

    walk(SCHEMA, "")


def test_every_kind_and_preset_is_offered() -> None:
    text = json.dumps(SCHEMA["$defs"])
    assert all(f'"const": "{kind}"' in text for kind in KINDS)
    names = SCHEMA["$defs"]["Metric"]["oneOf"][0]["enum"]
    assert names == list(PRESETS)
