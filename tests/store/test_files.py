"""Parquet keeps releases and estimates exactly, and says so in a sentence when it is not ours."""

import io
import math
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa_core.errors import BadInput
from fa_core.store.files import (
    ESTIMATES_SCHEMA,
    estimates_bytes,
    estimates_table,
    read_estimates,
    read_release,
    release_bytes,
)
from fa_core.values import Block, Cell, Estimate, Estimates, Judgement, Layout, Participation, Release
from tests.store.samples import make_estimates, make_release, same

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
FLOAT = st.one_of(st.none(), st.floats())
INT64 = st.integers(-(2**63), 2**63 - 1)
BIG = st.integers(0, 2**200)
FRACTION = st.fractions()
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30))])
TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=ZONES)
PAIRS = st.dictionaries(TEXT, TEXT, max_size=3).map(lambda each: tuple(each.items()))


@st.composite
def releases(draw: st.DrawFn) -> Release:
    blocks, start = [], 0
    for _ in range(draw(st.integers(0, 4))):
        cells = draw(st.integers(0, 5))
        grouping = tuple(draw(st.lists(TEXT, max_size=3)))
        texts = (draw(TEXT), grouping, draw(TEXT))
        blocks.append(
            Block(*texts, start, cells, draw(BIG), draw(BIG), draw(BIG), draw(FRACTION), draw(FRACTION))
        )
        start += cells

    def array(values: st.SearchStrategy[float], size: int, dtype: type) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=size, max_size=size)), dtype=dtype)

    layout = Layout(
        draw(TEXT), tuple(blocks), draw(st.sampled_from(["zcdp", "pure"])), "geometric", "central",
        draw(FRACTION), draw(FRACTION), draw(FRACTION), draw(st.sampled_from([32, 64])), draw(TEXT),
    )  # fmt: skip
    facts = Participation(*draw(st.tuples(*[st.integers(0, 2**62)] * 4)))
    return Release(
        draw(TEXT), draw(TEXT).encode(), layout, draw(TEXT), draw(TEXT), draw(st.booleans()),
        draw(TIMES), draw(TIMES), draw(TIMES), facts, array(INT64, start, np.int64),
        array(INT64, len(blocks), np.int64), array(st.floats(), len(blocks), np.float64), draw(st.booleans()),
    )  # fmt: skip


CELLS = st.builds(Cell, PAIRS, *[FLOAT] * 5, st.booleans(), TEXT, FLOAT, FLOAT)
RESULTS = st.builds(
    Estimate, TEXT, TEXT, TEXT, PAIRS, *[FLOAT] * 7, st.floats(), st.booleans(), TEXT, *[FLOAT] * 4, TEXT,
    st.lists(CELLS, max_size=3).map(tuple),
)  # fmt: skip
JUDGEMENTS = st.builds(
    Judgement, TEXT, st.lists(TEXT, max_size=2).map(tuple), TEXT, st.sampled_from(["met", "broken"]),
    st.one_of(st.none(), PAIRS), FLOAT, FLOAT, TEXT,
)  # fmt: skip


@given(releases())
@settings(deadline=None, max_examples=60)
def test_a_release_comes_back_equal(release: Release) -> None:
    assert same(read_release(release_bytes(release), "it"), release)


@given(
    st.builds(
        Estimates,
        TEXT,
        st.floats(),
        st.lists(RESULTS, max_size=4).map(tuple),
        st.lists(JUDGEMENTS).map(tuple),
    )
)
@settings(deadline=None, max_examples=60)
def test_estimates_come_back_equal(estimates: Estimates) -> None:
    assert same(read_estimates(estimates_bytes(estimates), "it"), estimates)


def test_the_comparison_of_these_tests_can_fail() -> None:
    """The broken control: values that differ in one bit, one type or one digit are not the same."""
    assert not same(0.0, 0)
    assert not same(Fraction(1, 3), Fraction(1, 3) + Fraction(1, 10**30))
    assert not same(np.array([1.0]), np.array([math.nextafter(1.0, 2.0)]))
    assert not same(make_release(0), make_release(1))


def test_every_prefix_of_a_file_is_refused_with_its_name() -> None:
    data = release_bytes(make_release())
    for length in [*range(0, len(data), 97), len(data) - 1]:
        with pytest.raises(BadInput, match=r"x\.parquet is not a file of this store"):
            read_release(data[:length], "x.parquet")


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def test_parquet_of_something_else_is_refused() -> None:
    foreign = parquet(pa.table({"estimate": [1.0]}))
    with pytest.raises(BadInput, match="Parquet of something else"):
        read_estimates(foreign, "x.parquet")
    with pytest.raises(BadInput, match="Parquet of something else"):
        estimates_table(foreign, "x.parquet", ["estimate"])
    with pytest.raises(BadInput, match="Parquet of something else"):
        read_release(estimates_bytes(make_estimates()), "x.parquet")


@pytest.mark.parametrize("facts", [b"{}", b"[]", b"null", b'{"release": 1, "level": 2, "judgements": [{}]}'])
def test_metadata_of_something_else_is_refused(facts: bytes) -> None:
    rows = estimates_table(estimates_bytes(make_estimates()), "x").replace_schema_metadata(
        {b"unheard": facts}
    )
    with pytest.raises(BadInput, match="does not hold estimates"):
        read_estimates(parquet(rows), "x.parquet")


def test_estimates_are_read_by_column() -> None:
    rows = estimates_table(estimates_bytes(make_estimates()), "it", ["group", "estimate"])
    assert rows.column_names == ["group", "estimate"]
    assert set(ESTIMATES_SCHEMA.names) > {"grouping", "cell", "suppressed"}
