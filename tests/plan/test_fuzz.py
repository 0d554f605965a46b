"""Any bytes at all, and any damage to a good plan, end in a plan or in complaints. Never in a traceback."""

import json
import string

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fa_core.errors import BadInput
from fa_core.plan import Plan, canonical, from_canonical, parse
from tests.plan.samples import GOOD, TODAY

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
YAML_LIKE = st.text(alphabet=string.ascii_lowercase[:6] + "019.-+:,[]{}#&*!|>'\"%@`? \n\t\\é", max_size=200)


def outcome(data: bytes) -> Plan | list[str]:
    """Return the plan, or the lines of the complaint. Anything else is an error of the language."""
    try:
        return parse(data, "x.yaml", today=TODAY)
    except BadInput as error:
        lines = str(error).split("\n")
        assert all(line.startswith("x.yaml:") and line.isprintable() for line in lines), lines
        assert 1 <= len(lines) <= 51
        return lines


@QUICK
@given(st.binary(max_size=300))
@example(b"\xef\xbb\xbf")
def test_any_bytes(data: bytes) -> None:
    outcome(data)


@QUICK
@given(YAML_LIKE)
@example('"\\')
@example("a: !<")
@example("%TAG ! !")
@example("a: &")
@example("- ? - ? :")
def test_text_that_looks_like_yaml(text: str) -> None:
    outcome(text.encode())


DAMAGED = st.builds(
    lambda start, length, splinter: (GOOD[:start] + splinter[:30] + GOOD[start + length :]).encode(),
    st.integers(0, len(GOOD)),
    st.integers(0, 40),
    YAML_LIKE,
)


@QUICK
@given(DAMAGED)
def test_a_plan_with_a_hole_or_a_splinter(data: bytes) -> None:
    outcome(data)


@pytest.mark.long
@settings(QUICK, max_examples=5000)
@given(st.binary(max_size=300) | YAML_LIKE.map(str.encode) | DAMAGED)
def test_anything_for_long(data: bytes) -> None:
    outcome(data)


SCALARS = st.sampled_from(
    [
        "0",
        "1",
        "-1",
        "1.5",
        "1e-8",
        "1e400",
        ".nan",
        ".inf",
        "2.10",
        "1_0",
        "0x1",
        "010",
        "1:30",
        "~",
        "null",
        "yes",
        "no",
        "true",
        "2026-11-22",
        "2026-13-01",
        "x",
        "other",
        "''",
        "[]",
        "{}",
        "[[]]",
        "[a]",
        "{a: 1}",
        "{lt: 1}",
        "{not: []}",
        "[1, x]",
        "[true, 1]",
        "outcome",
        "accent",
        "99999999999999999999",
    ]
)
VALUES = [
    (index, line) for index, line in enumerate(GOOD.split("\n")) if ": " in line and not line.startswith("#")
]


@QUICK
@given(st.lists(st.tuples(st.sampled_from(VALUES), SCALARS), min_size=1, max_size=4))
def test_a_plan_with_other_values(changes: list[tuple[tuple[int, str], str]]) -> None:
    lines = GOOD.split("\n")
    for (index, line), value in changes:
        lines[index] = line.partition(": ")[0] + ": " + value
    outcome("\n".join(lines).encode())


@QUICK
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["metrics", "privacy", "where", "segments", "kind", "a"]), inner
            )
        ),
        max_leaves=10,
    )
)
def test_any_json_is_no_canonical_plan(value: object) -> None:
    try:
        from_canonical(json.dumps(value).encode())
    except BadInput:
        return
    raise AssertionError("this became a plan")


NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40).filter(str.strip)
LABELS = st.lists(TEXTS.map(str.strip), min_size=1, max_size=5, unique_by=str.casefold)
NUMBERS = st.decimals("0.001", "4", places=6)


@QUICK
@given(NAMES, TEXTS, NUMBERS, st.integers(1, 1000), LABELS)
def test_a_good_plan_survives_its_canonical_form(
    name: str, question: str, epsilon: object, events: int, accents: list[str]
) -> None:
    quoted = ", ".join("'" + text.replace("'", "''") + "'" for text in accents if text != "other") or "x"
    asked = "Does any accent or device class miss the wake word more than the rest?"
    text = (
        GOOD.replace("name: wake-word-weekly", f"name: {'x' + name}")
        .replace(asked, repr_yaml(question))
        .replace("epsilon: 1.0", f"epsilon: {epsilon}")
        .replace("max_events: 64", f"max_events: {events}")
        .replace("[en-US, en-GB, en-IN, es-en]", f"[{quoted}]")
    )
    plan = parse(text.encode(), "x.yaml", today=TODAY)
    assert from_canonical(canonical(plan)) == plan
    assert canonical(plan).isascii()


def repr_yaml(text: str) -> str:
    """Return a text in YAML's single quotes."""
    return "'" + text.replace("'", "''") + "'"
