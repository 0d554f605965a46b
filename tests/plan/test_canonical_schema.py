"""The schema of the canonical form accepts every plan's own bytes, and nothing of another form."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fa_core.errors import BadInput
from fa_core.plan import canonical, from_canonical, load
from fa_core.plan.canonical_schema import canonical_schema, canonical_schema_text

ROOT = Path(__file__).parents[2]
SCHEMA = canonical_schema()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
DAY = date(2026, 11, 22)


def body_of(name: str) -> Any:
    return json.loads(canonical(load(ROOT / "eval_plans" / f"{name}.yaml", today=DAY)))


def test_the_file_in_docs_is_generated() -> None:
    """After a change to the language: `fa plan schema --canonical > docs/plan.canonical.schema.json`."""
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert (ROOT / "docs" / "plan.canonical.schema.json").read_text(
        encoding="utf-8"
    ) == canonical_schema_text()


@pytest.mark.parametrize("path", sorted((ROOT / "eval_plans").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_canonical_form_of_every_plan_to_start_from_is_valid(path: Path) -> None:
    VALIDATOR.validate(body_of(path.stem))


CHANGES: dict[str, Callable[[Any], object]] = {
    "a number as such": lambda plan: plan["privacy"].update(epsilon=1),
    "a trailing zero": lambda plan: plan["privacy"].update(epsilon="1.0"),
    "a leading zero": lambda plan: plan["privacy"].update(epsilon="01"),
    "a key left out": lambda plan: plan["privacy"].pop("min_cohort"),
    "a key that no plan has": lambda plan: plan.update(extra=1),
    "a preset by name": lambda plan: plan["metrics"].update(false_reject_rate="frr"),
    "a short condition": lambda plan: plan["where"].update(wake_word="okay_nabu"),
    "a metric without its table": lambda plan: plan["metrics"]["false_reject_rate"].update(source=None),
    "null where a key is left out": lambda plan: plan["privacy"].update(rho=None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_forms_are_invalid_and_no_device_reads_them(change: Callable[[Any], object]) -> None:
    plan = body_of("wake-word-weekly")
    change(plan)
    assert not VALIDATOR.is_valid(plan)
    with pytest.raises(BadInput):
        from_canonical(json.dumps(plan, sort_keys=True, separators=(",", ":")).encode())
