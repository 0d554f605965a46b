"""Labels in a plan: the same rule as in tables, and other spellings of a value as its aliases."""

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from clients.evaluate import cohort_of_fleet, device_vectors
from fa_core.layout import compile_plan
from fa_core.plan import Plan, canonical, from_canonical
from fa_core.plan.prose import describe
from fa_core.privacy.differencing import questions
from fa_core.tables import WAKE_EVENTS
from tests.plan.samples import broken, complaints, good

ACCENTS = "values: [en-US, en-GB, en-IN, es-en]}"
ALIASED = broken(
    ACCENTS, ACCENTS.replace("}", ', aliases: {en-GB: [scottish english, "Scots, broad"], en-US: [EN-us]}}')
)


def test_a_plan_without_aliases_has_the_bytes_of_before() -> None:
    assert b"aliases" not in canonical(good())


def test_aliases_are_part_of_what_is_signed() -> None:
    plan = good(ALIASED)
    assert plan.hash != good().hash
    assert json.loads(canonical(plan))["segments"]["accent"]["aliases"] == {
        "en-GB": ["scottish english", "Scots, broad"],
        "en-US": ["EN-us"],
    }
    assert from_canonical(canonical(plan)) == plan
    assert "en-GB (or scottish english, Scots, broad), en-IN" in describe(plan)


def test_what_a_plan_isolates_counts_the_aliases() -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    (asked, *_) = questions(json.loads(canonical(good(ALIASED))), "", now, now)
    named = [box["accent"].named for box in asked.boxes if "accent" in box and not box["accent"].others]
    assert {"en-GB", "scottish english", "Scots, broad"} in named
    others = [box["accent"] for box in asked.boxes if "accent" in box and box["accent"].others]
    assert all("scottish english" not in each for each in others)


COUNTED = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: counted, revision: 1, owner: tests, question: How many?, expires: 2099-01-01}
source: wake_events
window: 1d
segments:
  accent: {device: accent, values: [en-GB, en-US], aliases: {en-GB: [scots]}}
  wake_word: {event: wake_word, values: [okay, hey], aliases: {hey: [hey there, hi]}}
group_by: [[SEGMENT]]
metrics: {wakes: {kind: count}}
privacy: {epsilon: 2, max_events: 8}
"""


def counts(segment: str) -> list[int]:
    """Return the devices' counts by label of a segment, summed, for three devices of two wake events each."""
    at = datetime(2026, 11, 20, 7, tzinfo=UTC)
    row = {"time": at, "model_version": "1", "score": 0.5, "accepted": True, "outcome": "true_accept"}
    row |= {"label_source": "retry", "snr_db": 3.0, "playback": False}
    words = {"a": ("okay", "hi"), "b": ("hey there", "hey"), "c": ("okay", "HEY")}
    rows = [{**row, "device_id": name, "wake_word": word} for name, each in words.items() for word in each]
    table = pa.Table.from_pylist(rows, schema=WAKE_EVENTS.arrow_schema(device_id=True))
    devices = pa.table({"device_id": ["a", "b", "c"], "accent": ["scots", "en-GB", "Scots"]})
    other = {"accent": "  wake_word:", "wake_word": "  accent:"}[segment]
    text = "\n".join(line for line in COUNTED.split("\n") if not line.startswith(other))
    plan: Plan = good(text.replace("SEGMENT", segment))
    layout = compile_plan(plan)
    cohort = cohort_of_fleet(devices, {"wake_events": table})
    block = layout.blocks[0]
    found = device_vectors(plan, layout, cohort, datetime(2026, 11, 21, tzinfo=UTC))
    return [int(each) for each in found[:, block.slice].sum(axis=0)]


def test_an_alias_of_a_fact_counts_as_its_label() -> None:
    assert [each > 0 for each in counts("accent")] == [True, False, True]
    assert counts("accent")[0] == 2 * counts("accent")[2]


def test_an_alias_of_a_column_counts_as_its_label() -> None:
    okay, hey, other = counts("wake_word")
    assert (hey, other) == (3 * other, okay - other)


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        ("{en-GBB: [x]}", "`en-GBB` is no value of this segment; did you mean `en-GB`?"),
        ("{other: [x]}", "`other` is no value of this segment"),
        ("{en-GB: [en-US]}", "`en-US` is a label of this segment already; take it out"),
        ("{en-GB: [other]}", "`other` is a label of this segment already"),
        ("{en-GB: [x], en-US: [x]}", "`x` is an alias of `en-GB` already"),
        ("{en-GB: []}", "this is empty; write something"),
        ("{}", "this is empty; write something"),
        ("{en-GB: [EN-US]}", "`EN-US` looks like `en-US`: only case, width or spaces differ"),
        ('{en-GB: [" x"]}', "` x` begins or ends with a space; take it out"),
        ("[en-GB]", "a list stands here; write a mapping"),
    ],
)
def test_a_wrong_alias_is_named(aliases: str, message: str) -> None:
    found = complaints(broken(ACCENTS, ACCENTS.replace("}", f", aliases: {aliases}}}")))
    assert len(found) == 1
    assert message in found[0]


def test_only_labels_have_aliases() -> None:
    text = broken("# playback: ", "playback: ")
    text = broken("values: [true, false]", 'values: [true, false], aliases: {"true": ["yes"]}', text)
    assert any("aliases of what is no label" in line for line in complaints(text))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("en-IN, es-en]", "en-IN, EN-us]", "`EN-us` looks like `en-US`"),
        ("en-IN, es-en]", 'en-IN, "es-en "]', "`es-en ` begins or ends with a space"),
        ("en-IN, es-en]", r'en-IN, "a\u200c"]', "contains the control or invisible character U+200C"),
        ("[noisy, moderate, quiet]", "[noisy, moderate, Noisy]", "`Noisy` looks like `noisy`"),
        ("wake_word: okay_nabu", 'wake_word: " okay_nabu"', "begins or ends with a space"),
    ],
)
def test_labels_of_a_plan_keep_the_rule(old: str, new: str, message: str) -> None:
    found = complaints(broken(old, new))
    assert len(found) == 1
    assert message in found[0]


def test_labels_of_a_confusion_keep_the_rule() -> None:
    text = broken(
        "  score:\n", "  words: {kind: confusion, source: command_events, labels: [a, A]}\n  score:\n"
    )
    assert any("`A` looks like `a`" in line for line in complaints(text))


def test_a_label_is_the_same_however_it_was_typed() -> None:
    assert good(broken("es-en]", "café]")).hash == good(broken("es-en]", "cafe\u0301]")).hash


def test_a_persian_label_is_a_label() -> None:
    plan = good(broken("es-en]", "می\u200cخواهم]"))
    assert "می\u200cخواهم" in plan.segments["accent"].labels


def test_canonical_bytes_of_before_are_read_whatever_their_labels() -> None:
    body = json.loads(canonical(good()))
    body["segments"]["accent"]["values"][:2] = ["en-US ", "EN-us "]
    data = json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")
    assert canonical(from_canonical(data)) == data
