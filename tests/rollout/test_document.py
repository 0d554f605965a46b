"""A rollout's file: every mistake at its place, one canonical form, and what its plans must be."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import jsonschema
import pytest

from fa_core.errors import BadInput
from fa_core.plan import BadPlan
from fa_core.rollout.controlled import ControlledResult, read_result
from fa_core.rollout.decision import Decision, manifest_of
from fa_core.rollout.document import Rollout, canonical, from_canonical, load, parse
from fa_core.rollout.editor import editor_schema, schema_text
from fa_core.rollout.floor import above_models, against_log
from fa_core.rollout.judging import margins_of
from fa_core.rollout.reach import check_plans, exposure
from tests.plan.test_editor_schema import as_editor_sees
from tests.rollout.rolling import FOLDER, RESULT, Rolling, plan_of, plans, rollout

FILE = FOLDER / "embed-2.yaml"
TEXT = FILE.read_text(encoding="utf-8")
TODAY = date(2026, 12, 1)
ROOT = Path(__file__).parents[2]


def complaints(text: str) -> list[str]:
    try:
        parse(text.encode(), "r.yaml", today=TODAY)
    except BadPlan as error:
        return str(error).splitlines()
    return []


def test_the_shipped_rollout_is_good_and_so_are_its_plans() -> None:
    found = load(FILE, today=TODAY).rollout
    assert list(check_plans(found, plans())) == []
    assert from_canonical(canonical(found)) == found
    assert found.hash.hex() == "8cbf18bd6df241c7c96ffa4238dea3ab7f6008ed1364277c1a0424ecfc02ceaf"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: Rollout", "kind: Rolout", "did you mean `Rollout`?"),
        ("lease: 7d", "leese: 7d", "unknown key `leese`; did you mean `lease`?"),
        ("  looks: 4", "  loks: 4", "unknown key `loks`; did you mean `looks`?"),
        ("looks: 4", "looks: 0", "`0` is out of range; write at least 1"),
        ("looks: 4", "looks: 40", "write at most 26"),
        ("alpha: 0.05", "alpha: 0.5", "write less than 0.5"),
        ("alpha: 0.05", "alpha: 5%", "write 0.05: a share, not a percentage"),
        ("when_unmeasured: hold", "when_unmeasured: ship", "`hold`"),
        ("every: 7d", "every: a week", "a length of time such as 7d"),
        ("expires: 2027-03-31", "expires: 2026-03-31", "this rollout expired on 2026-03-31"),
        ("wake_word: okay_nabu\n", "", "`wake_word` is missing"),
        ("test_set: c9a1d4", "test_set: xyz", "write a SHA-256, 64 small hex digits"),
        ("version: embed-2", "version: micro-1", "baseline and candidate have the same version"),
        ("{shadow: 1}, ", "", "the first stage is not shadow"),
        ("{live: 0.5}", "{shadow: 1}", "shadow after the first stage"),
        ("{shadow: 1}", "{shadow: 0.5}", "write 1: shadow exposes nobody"),
        ("{live: 0.5}", "{live: 0.1}", "`0.1` is not more than the stage before"),
        (", {live: 1}]", "]", "the last stage is not for all devices"),
        ("{live: 0.5}", "{live: 0.5, shadow: 1}", "either `shadow` or `live`"),
        ("{live: 0.5}", "{}", "either `shadow` or `live`"),
        ("lease: 7d", "lease: 60d", "write at most 30d"),
        ("below: 0.05, sd: 0.012", "below: 0.05", "`sd` is missing"),
        ("apiVersion", "# a\n- apiVersion", "r.yaml:"),
        (TEXT, "", "this file is empty"),
    ],
)
def test_a_mistake_is_answered_at_its_place(old: str, new: str, message: str) -> None:
    assert old in TEXT
    found = complaints(TEXT.replace(old, new, 1))
    assert any(message in line for line in found), found
    place = found[0].split(":")
    assert place[0] == "r.yaml"
    assert all(each.isdigit() for each in place[1:3])


def test_the_place_is_the_line_and_column() -> None:
    (line,) = complaints(TEXT.replace("  looks: 4", "  loks: 4"))
    wanted = TEXT.replace("  looks: 4", "  loks: 4").splitlines()
    row = next(number for number, each in enumerate(wanted, 1) if "loks" in each)
    assert line.startswith(f"r.yaml:{row}:3: ")


def test_other_bytes_are_no_canonical_form() -> None:
    data = canonical(rollout())
    for bad in (data + b" ", data[:-1], b"[]", b"\xff", data.replace(b'"looks":4', b'"looks":0')):
        with pytest.raises(BadInput):
            from_canonical(bad)


def test_a_plan_that_does_not_fit_is_named() -> None:
    about, both = rollout(), plans()
    gate, live = plan_of("gate"), plan_of("live")

    def found(**changed: object) -> list[str]:
        return [f"{each.loc[0]}: {each.found}" for each in check_plans(rollout(**changed), both)]

    assert found() == []
    swapped = about.gate.model_copy(update={"plan": live.hash})
    assert found(gate=swapped) == ["gate: embed-2-live@1 is no plan of a gate"]
    swapped_live = about.live.model_copy(update={"plan": gate.hash})
    assert len(found(live=swapped_live)) == 3
    assert found(gate=about.gate.model_copy(update={"plan": "0" * 64}))[0].startswith(
        "gate: there is no plan"
    )
    short = about.gate.model_copy(update={"every": about.gate.every / 2})
    assert "counts events of more time" in found(gate=short)[0]
    other = about.models.candidate.model_copy(update={"version": "embed-3"})
    renamed = about.models.model_copy(update={"candidate": other})
    assert "compares micro-1 and embed-2" in found(models=renamed)[0]
    later = about.metadata.model_copy(update={"expires": date(2028, 1, 1)})
    assert "before the rollout" in found(metadata=later)[0]


def of_models(baseline: str, candidate: str, floor: str, **changed: object) -> Rollout:
    body = rollout(**changed)
    old, new = body.models.baseline, body.models.candidate
    named = {
        "baseline": old.model_copy(update={"version": baseline}),
        "candidate": new.model_copy(update={"version": candidate}),
        "floor": floor,
    }
    return body.model_copy(update={"models": body.models.model_copy(update=named)})


@pytest.mark.parametrize(
    ("models", "places"),
    [
        (("embed-2", "embed-3", "embed-2"), []),
        (("embed-2", "embed-3", "embed-1.9"), []),
        (("embed-2", "embed-10", "embed-3"), ["baseline"]),
        (("embed-2", "embed-3", "embed-4"), ["baseline", "candidate"]),
        (("embed-2", "embed-1", "embed-2"), ["candidate"]),
        (("micro-1", "embed-2", "micro-2"), ["baseline"]),
        (("micro-1", "embed-2", "embed-2"), []),
    ],
)
def test_a_floor_is_not_above_a_model(models: tuple[str, str, str], places: list[str]) -> None:
    found = list(above_models(of_models(*models)))
    assert all(each.loc == ("models", "floor") for each in found)
    assert [
        role for role in ("baseline", "candidate") if any(f"the {role}," in e.found for e in found)
    ] == places


def test_a_floor_is_compared_with_the_log() -> None:
    """A name that nobody has, and what is below an earlier floor of the population and wake word."""

    def found(about: Rollout, *earlier: Rollout) -> list[str]:
        return [".".join(map(str, each.loc)) for each in against_log(about, {"micro-1"}, earlier)]

    first = of_models("embed-4", "embed-5", "embed-3")
    again = of_models("embed-5", "embed-6", "embed-2")
    assert found(first) == found(first, first) == found(again) == []
    assert found(of_models("embed-4", "embed-5", "embde-3")) == ["models.floor"]
    assert found(of_models("embed-4", "embed-5", "micro-1")) == [], "the floor of another model in the log"
    assert found(again, first) == ["models.floor"]
    assert found(of_models("embed-2", "embed-6", "embed-3"), first) == ["models.baseline.version"]
    for elsewhere in ({"population": "offices"}, {"wake_word": "alexa"}):
        assert found(again, of_models("embed-4", "embed-5", "embed-3", **elsewhere)) == []


def test_a_small_stage_is_exposure() -> None:
    """The standard deviation between two halves is scaled to the stage's share."""
    assert exposure(rollout()) == []
    tiny = rollout().stages[1].model_copy(update={"live": type(rollout().stages[1].share)(1, 1000)})
    about = rollout(stages=(rollout().stages[0], tiny, *rollout().stages[2:]))
    assert exposure(about) == [1]
    half = margins_of(rollout(), 2).planned_sd["false_reject_rate"]
    assert half == pytest.approx(float(rollout().live.measures["false_reject_rate"].sd))
    assert margins_of(rollout(), 1).planned_sd["false_reject_rate"] == pytest.approx(half / 0.6)


def test_a_decision_and_its_manifest_are_read_back(fleet: Rolling) -> None:
    decision = fleet.start().decision
    assert decision is not None
    entry = decision.entry()
    assert Decision.from_entry(entry) == decision
    assert manifest_of(rollout(), Decision.from_entry(entry)) == fleet.history().manifest
    for bad in (entry + b" ", entry.replace(b'"expand"', b'"ship"'), b"", entry.replace(b"start", b"begin")):
        with pytest.raises(BadInput):
            Decision.from_entry(bad)


def test_a_result_of_a_test_set_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(RESULT.document() + b"\n")
    assert read_result(file) == RESULT
    assert RESULT.failures() == []
    over = replace(RESULT, candidate_bases=("ab" * 32,))
    assert ControlledResult.from_document(over.document()) == over
    assert b"bases" not in RESULT.document(), "heads have the hash that they had before"
    for bad in (b"{}", RESULT.document()[:-1], RESULT.document().replace(b'"clips":400', b'"clip":400')):
        with pytest.raises(BadInput, match="no result"):
            ControlledResult.from_document(bad)
    nothing = json.loads(RESULT.document()) | {"conditions": []}
    with pytest.raises(BadInput):
        ControlledResult.from_document(json.dumps(nothing, sort_keys=True, separators=(",", ":")).encode())


def test_the_schema_in_docs_is_generated_and_takes_the_shipped_rollout() -> None:
    """After a change to the document: `fa rollout schema > docs/rollout.schema.json`."""
    assert (ROOT / "docs" / "rollout.schema.json").read_text(encoding="utf-8") == schema_text()
    validator = jsonschema.Draft7Validator(editor_schema())
    validator.validate(as_editor_sees(TEXT))
    for old, new in (
        ("looks: 4", "loks: 4"),
        ("kind: Rollout", "kind: EvalPlan"),
        ("lease: 7d", "lease: long"),
    ):
        assert not validator.is_valid(as_editor_sees(TEXT.replace(old, new)))
