"""Whether a device answers, and when, depends on nothing that its tables hold: row 2 of the privacy review.

Hostile rows are written past the store's own checks, as a store of before, or another program with its key,
may hold them, and the device then takes part in a whole round. What a server sees of it (who answers what,
how long it is, and when) is compared with a device whose tables are empty.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clients.device import counting, receipt
from clients.device.contribution import Clock, StoredDevice
from clients.device.counting import Counted, count
from clients.device.interface import Stage
from clients.device.journal import sentence
from clients.device.records import Records
from clients.device.rows import Cell, micros
from clients.device.store import MOST_ROWS, Store
from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.metrics import Rows
from fa_core.plan import Plan, parse
from fa_core.secagg import IN_ORDER
from fa_core.tables import DICTATION_EVENTS, SOURCES, Column
from fa_core.values import Int64Array
from tests.device.setup import NOW, POLICY, READY, Setup, World, drive, make_setup
from tests.metrics.samples import SAMPLES

WEEK, DELAY = timedelta(days=7), 2.0
YEARS = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]


def every_kind() -> Plan:
    """A plan with every kind of metric, over every table."""
    metrics = {name: {"source": sample.source, **sample.body} for name, sample in SAMPLES.items()}
    body = {
        "apiVersion": "fa/v1",
        "kind": "EvalPlan",
        "metadata": {
            "name": "every-kind",
            "revision": 1,
            "owner": "tests",
            "question": "Does it always answer?",
            "expires": "2026-12-31",
        },
        "source": "wake_events",
        "window": "7d",
        "segments": {
            "accent": {"device": "accent", "values": ["en-GB"]},
            "hour": {"event": "hour", "values": [0, 1]},
        },
        "group_by": [[], ["accent"], ["hour"]],
        "metrics": metrics,
        "privacy": {"epsilon": 1, "delta": 1e-8, "max_events": 6, "min_cohort": 3},
    }
    return parse(json.dumps(body).encode(), "every.yaml", today=NOW.date(), policy=None)


PLAN = every_kind()
LAYOUT = compile_plan(PLAN)
OTHERS = 8

Raw = Mapping[str, list[tuple[Cell | bytes, ...]]]
"""Rows by table, in the order of its columns; texts as bytes, which need not be UTF-8."""


def raw_cell(column: Column) -> st.SearchStrategy[Any]:
    """What SQLite takes for a column, sound or not."""
    if column.type == "time":
        inside = [micros(NOW - timedelta(hours=hours)) for hours in (1, 1, 2, 30, 300)]
        return st.sampled_from([*inside, *map(micros, YEARS), -(2**63), 2**63 - 1])
    if column.type == "label":
        texts = [b"", b"on", b"false_reject", b"true_accept", b"false_accept", b"x" * 100_000]
        return st.sampled_from([None, *texts, "\ud800".encode(errors="surrogatepass"), b"\xff\x00"])
    if column.type == "number":
        return st.sampled_from([None, 0.5, -0.0, float("inf"), float("-inf"), float("nan"), 1e308, -1e308])
    if column.type == "integer":
        return st.sampled_from([None, 0, 1, 60, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)])
    return st.sampled_from([None, 0, 1, 300, -(2**63)])


RAW: st.SearchStrategy[Raw] = st.fixed_dictionaries(
    {
        # Each row twice: equal hours of listening are added up.
        name: st.lists(st.tuples(*map(raw_cell, source.columns.values())), max_size=5).map(
            lambda rows: 2 * rows
        )
        for name, source in SOURCES.items()
    }
)
EMPTY: Raw = {}
OVERFLOWING: Raw = {
    "dictation_events": [
        (micros(NOW - timedelta(hours=1)), b"a", None, 2**53 + 1, 0, None, 2**63 - 1, None),
        (micros(NOW - timedelta(hours=1)), b"a", 2**53 + 1, None, 0, None, None, 0),
    ],
    "listening": [(micros(NOW - timedelta(hours=1)), b"a", b"a", 1.0, 0, 2**63 - 1)] * 2,
    "wake_events": [(micros(NOW - timedelta(hours=1)), b"\xff", b"a", 0.5, 1, b"true_accept", None, 1.0, 0)],
}


@dataclass
class Ticking:
    """A clock that moves by counting, a hundredth of a second for each row, and by sleeping."""

    seconds: float = 0.0

    def clock(self) -> Clock:
        return Clock(lambda: NOW, lambda: self.seconds, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


TICKING = Ticking()


class CountsAtMasked(StoredDevice):
    """The broken control: a device that counts when it is to send, and falls over what it cannot count."""

    def _count(self, *_: Any) -> Counted:
        return Counted(np.zeros(LAYOUT.length, np.int64), "")

    def _contribute(self, session: bytes, joined: int) -> Int64Array:
        entered, until = self._rounds[session], self._rounds[session].asked.invitation.until
        tables = {
            name: self._store.table(name, "quality_metrics", until - WEEK, until)
            for name in receipt.sources(PLAN)
        }
        entered.counted = Counted(count(PLAN, LAYOUT, tables, self._store.facts(), until), "")
        return super()._contribute(session, joined)


Kind = Callable[..., StoredDevice]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return make_setup(tmp_path, World(tmp_path), policy=replace(POLICY, reply_after=timedelta(seconds=DELAY)))


@pytest.fixture(autouse=True)
def counting_takes_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Counting takes a hundredth of a second for each row that it reads, by the clock of `Ticking`."""
    real = counting.count

    def slow(plan: Plan, layout: Any, tables: Any, facts: Any, until: datetime) -> Int64Array:
        TICKING.seconds += sum(table.num_rows for table in tables.values()) / 100
        return real(plan, layout, tables, facts, until)

    monkeypatch.setattr(counting, "count", slow)
    with np.errstate(all="ignore"):
        yield


def write(store: Store, tables: Raw) -> None:
    """Replace the store's rows, past every check of ours."""
    for name in ("contribution", "reply", *SOURCES):
        store.connection.execute(f"DELETE FROM {name}")
    store.connection.execute("DELETE FROM state WHERE name = 'joins'")
    for name, rows in tables.items():
        columns = SOURCES[name].columns
        places = ", ".join("CAST(? AS TEXT)" if each.type == "label" else "?" for each in columns.values())
        insert = f"INSERT INTO {name} (purpose, {', '.join(columns)}) VALUES ('quality_metrics', {places})"
        store.connection.executemany(insert, rows)


Seen = list[tuple[str, int | str, float]]
"""What a server sees of a device: at each stage the length of its reply and when it came; then "counted"."""


def seen(setup: Setup, tables: Raw, kind: Kind = StoredDevice) -> Seen:
    """Run a round, in which everybody else adds nothing; return what the server sees of the device."""
    store = setup.store()
    write(store, tables)
    ticking, found = TICKING, Seen()
    device = kind(store, setup.terms, Records(store).identity(), lambda _: READY, ticking.clock())

    class Watched:
        def handle(self, stage: Stage, request: bytes) -> bytes:
            before = ticking.seconds
            try:
                reply = device.handle(stage, request)
            except Exception as error:
                found.append((stage, type(error).__name__, 0.0))
                raise
            found.append((stage, len(reply), round(ticking.seconds - before, 6)))
            return reply

    invitation = setup.world.invite(PLAN, setup.world.release(), NOW, NOW)
    with suppress(Exception):
        result, _ = drive(setup.world, PLAN, Watched(), invitation, others=OTHERS)
        found.append(("counted", int(0 in result.counted), 0.0))
    store.close()
    return found


def whole(setup: Setup) -> Seen:
    """What is seen of a device with empty tables."""
    found = seen(setup, EMPTY)
    assert [(stage, when) for stage, _, when in found[:5]] == [(stage, DELAY) for stage in IN_ORDER]
    assert found[5:] == [("counted", 1, 0.0)]
    return found


def check(setup: Setup, kind: Kind = StoredDevice) -> None:
    """Hold a device with hostile tables against one with none, over and over."""
    same = whole(setup)

    @settings(max_examples=20, phases=[Phase.generate])
    @given(tables=RAW)
    def looks_the_same(tables: Raw) -> None:
        assert seen(setup, tables, kind) == same

    looks_the_same()


def test_whatever_the_tables_hold_the_server_sees_the_same(setup: Setup) -> None:
    check(setup)


def test_a_device_that_counts_at_masked_is_caught(setup: Setup) -> None:
    with pytest.raises(AssertionError):
        check(setup, CountsAtMasked)


def test_a_device_that_cannot_count_at_masked_drops_out_there(setup: Setup) -> None:
    """The review's attack, on the device as it was and as it is."""
    assert seen(setup, OVERFLOWING) == whole(setup)
    before = seen(setup, OVERFLOWING, CountsAtMasked)
    assert [(stage, isinstance(reply, int)) for stage, reply, _ in before] == [
        ("join", True), ("shares", True), ("confirm", True), ("masked", False),
    ]  # fmt: skip


def test_a_device_that_answers_when_it_is_done_is_caught(setup: Setup) -> None:
    """The broken control: without the delay, the time of the reply is the number of rows."""
    at, rows = micros(NOW - timedelta(hours=1)), (b"a", 10, 1, 0, None, None, None)
    tables: Raw = {"dictation_events": [(at, *rows)] * 40}
    assert seen(setup, tables) == whole(setup)
    setup.terms = replace(setup.terms, policy=replace(setup.terms.policy, reply_after=timedelta(0)))
    assert [when for _, _, when in seen(setup, tables)[:5]] == [0.4, 0, 0, 0, 0]
    assert [when for _, _, when in seen(setup, EMPTY)[:5]] == [0, 0, 0, 0, 0]


def test_three_hundred_thousand_rows_are_answered_like_none(setup: Setup) -> None:
    """As many as the review put in. No more are read than a table may hold now."""
    store = setup.store()
    write(store, EMPTY)
    store.close()
    same, store = whole(setup), setup.store()
    store.connection.execute("DELETE FROM contribution")
    store.connection.execute(
        "INSERT INTO dictation_events (purpose, time, model_version, words, word_errors) "
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 299999) "
        "SELECT 'quality_metrics', ? - i, 'a', 10, 1 FROM n",
        (micros(NOW) - 1,),
    )
    assert store.table("dictation_events", "quality_metrics", NOW - WEEK, NOW).num_rows == MOST_ROWS
    device = StoredDevice(
        store, setup.terms, Records(store).identity(), lambda _: READY, Ticking(TICKING.seconds).clock()
    )
    invitation = setup.world.invite(PLAN, setup.world.release(), NOW, NOW)
    result, said = drive(setup.world, PLAN, device, invitation, others=OTHERS)
    assert 0 in result.counted
    assert [len(reply) for _, reply in said.values()] == [length for _, length, _ in same[:5]]


def test_what_could_not_be_counted_is_charged_and_said_without_a_value(setup: Setup) -> None:
    seen(setup, OVERFLOWING)
    store = setup.store()
    assert [each.rho for each in Records(store).contributions()] == [receipt.cost(LAYOUT)]
    last = store.entries()[-1]
    assert last.body["zeros"] == counting.FAILED
    assert "counts of nothing: counting failed. It cost rho" in sentence(last)


def test_zeros_of_a_device_that_could_not_count_have_their_noise(setup: Setup) -> None:
    store = setup.store()
    write(store, OVERFLOWING)
    device = StoredDevice(store, setup.terms, Records(store).identity(), lambda _: READY, TICKING.clock())
    invitation = setup.world.invite(PLAN, setup.world.release(), NOW, NOW)
    result, _ = drive(setup.world, PLAN, device, invitation, others=OTHERS)
    assert np.mean(result.total != 0) > 0.5


# The store's entry.


def event_cell(column: Column) -> st.SearchStrategy[Any]:
    """What a program may hand to the store for a column, of any type."""
    numbers = [0, 1, -1, 2**53 - 1, 2**53, 2**53 + 1, -(2**53), 10**400, 0.5, 1e308]
    wild = [None, True, *numbers, float("nan"), float("inf"), float("-inf"), b"on", [1], {}, "on", ""]
    texts = ["okay_nabu", "false_reject", "\ud800", "x" * 1_000_000, "7 " * 50_000]
    times = [NOW, NOW - timedelta(hours=1), NOW.replace(tzinfo=None), NOW.date(), *YEARS]
    edges = [datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), datetime.max.replace(tzinfo=UTC)]
    sound = {
        "time": st.just(NOW - timedelta(hours=1)),
        "label": st.sampled_from([None, "okay_nabu", "false_reject", "true_accept"]),
        "number": st.sampled_from([None, 0.5, 1.0]),
        "integer": st.sampled_from([None, 0, 3]),
        "boolean": st.sampled_from([None, True, False]),
    }[column.type]
    return sound | st.sampled_from([*wild, *texts, *times, *edges])


@st.composite
def events(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    name = draw(st.sampled_from(sorted(SOURCES)))
    return name, {column: draw(event_cell(facts)) for column, facts in SOURCES[name].columns.items()}


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(handed=st.lists(events(), max_size=4))
def test_what_the_store_takes_can_be_counted(setup: Setup, handed: list[tuple[str, dict[str, Any]]]) -> None:
    """Anything else is refused by column, or dropped by its time; nothing in the store is out of bounds."""
    store = setup.store()
    write(store, EMPTY)
    for name, event in handed:
        with suppress(BadInput):
            store.record(name, [event], "quality_metrics", NOW)
    for name in SOURCES:
        for _, at, *cells in store.rows(name):
            assert abs(at - micros(NOW)) <= micros(NOW) - micros(NOW - timedelta(days=31))  # type: ignore[operator]
            assert all(abs(cell) < 2**53 for cell in cells if isinstance(cell, int | float))
            assert all(len(cell) < 20 for cell in cells if isinstance(cell, str))
    tables = {name: store.table(name, "quality_metrics", NOW - WEEK, NOW) for name in SOURCES}
    assert count(PLAN, LAYOUT, tables, store.facts(), NOW).shape == (LAYOUT.length,)
    store.close()


@pytest.mark.parametrize("value", [2**53, -(2**53), 10**400, float("inf"), float("nan")])
def test_a_number_past_the_bounds_is_refused(setup: Setup, value: float) -> None:
    store = setup.store()
    for name, column in (("dictation_events", "words"), ("command_events", "latency_ms")):
        with pytest.raises(BadInput, match=column):
            store.record(name, [{"time": NOW, column: value}], "quality_metrics", NOW)
    most = [{"time": NOW, "words": 2**53 - 1}]
    assert store.record("dictation_events", most, "quality_metrics", NOW) == 1


def test_a_time_without_an_offset_is_refused(setup: Setup) -> None:
    class Nowhere(tzinfo):
        def utcoffset(self, _: datetime | None) -> None:
            return None

    for at in (NOW.replace(tzinfo=None), NOW.replace(tzinfo=Nowhere())):
        with pytest.raises(BadInput, match="without a time zone"):
            setup.store().record("dictation_events", [{"time": at}], "quality_metrics", NOW)


def test_a_full_table_takes_no_more(setup: Setup) -> None:
    store = setup.store()
    write(store, EMPTY)
    store.connection.execute(
        "INSERT INTO dictation_events (purpose, time, model_version) "
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "SELECT 'quality_metrics', ?, 'a' FROM n",
        (MOST_ROWS - 1, micros(NOW)),
    )
    two = [{"time": NOW, "words": 3}] * 2
    assert store.record("dictation_events", two, "quality_metrics", NOW) == 1
    assert store.record("dictation_events", two, "quality_metrics", NOW) == 0
    assert store.counts()["dictation_events"] == {"quality_metrics": MOST_ROWS}


@pytest.mark.parametrize("value", ["x" * 65, "\ud800", 7, None])
def test_a_fact_that_could_not_be_counted_is_refused(setup: Setup, value: Any) -> None:
    with pytest.raises(BadInput, match=r"accent|is text"):
        setup.store().set_facts({"accent": value}, NOW)


def test_a_missing_value_beside_a_number_that_no_float_is_equal_to_is_counted() -> None:
    """The review's pair. A cast that raises here made the device fall silent."""
    schema = DICTATION_EVENTS.arrow_schema()
    rows = [{"time": NOW, "words": value} for value in (2**53 + 1, None, 3)]
    table = schema.empty_table().from_pylist(rows, schema)
    words = Rows(table, np.zeros(3, np.int64)).numbers("words")
    assert words.tolist()[0] == 2.0**53
    assert np.isnan(words[1])
