"""What viewers ran into (FIELD 19), and the pages that they asked for: each kind is a case here."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import settings
from dashboard.auth import session
from dashboard.auth.users import User
from dashboard.charts.base import spread
from dashboard.charts.det import det
from dashboard.charts.forest import forest
from dashboard.charts.heat_map import heat_map
from dashboard.charts.matrix import matrix
from dashboard.charts.trend import trend
from dashboard.data import reading
from dashboard.data.numbers import day, minute, span
from dashboard.launch import launch_page
from dashboard.launch.run_folder import Fleet
from dashboard.style import theme
from dashboard.style.theme import LIGHT
from fa_core.estimate.measure import measure
from fa_core.estimate.thresholds import curve
from fa_core.plan import Plan, canonical
from fa_core.store import Annotation, Query, open_store
from fa_core.values import Cell
from tests.dashboard.fleet_tables import START, WEEK
from tests.dashboard.rendering import markup, render, words
from tests.dashboard.stores import plan_of, plan_text, release_id
from tests.dashboard.test_sentences import det as det_result
from tests.dashboard.test_sentences import number

MARKS = {"simulated": True, "synthetic": True}


def marks_of(spec: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return the layers of a chart that have one kind of mark."""
    return [layer for layer in spec["layer"] if layer["mark"]["type"] == kind]


def two_way(accent: str, kind: str, value: float | None, half: float = 0.01) -> Any:
    group = (("accent", accent), ("device_class", kind))
    return replace(number(accent, value, half), group=group)


# Launch


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(Path("fleet"), "homes", 300, True, START + 3 * WEEK)


def _offer(plan: "Plan", fleet: "Fleet") -> None:
    from dashboard.launch import launch_page

    launch_page.offer(plan, "", [fleet])


def launch(plan: Plan, fleet: Fleet) -> AppTest:
    page = AppTest.from_function(_offer, args=(plan, fleet), default_timeout=600).run()
    assert not page.exception, page.exception
    return page


def test_a_disabled_launch_button_says_why(
    opened: Path, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(plan_text("first-look"))
    assert not launch(plan, fleet).button(key="launch").disabled
    monkeypatch.setattr(session, "current_user", lambda: User("guest", frozenset()))
    for short, why in (
        ("", "needs the operator role"),
        ("week: 0 is left", "budgets of homes do not allow it"),
    ):
        monkeypatch.setattr(launch_page, "exceeded_budgets", lambda *_, short=short: short)
        page = launch(plan, fleet)
        button = page.button(key="launch")
        assert button.disabled
        assert why in button.help
        assert button.help in words(markup(page))


def test_a_disabled_button_is_not_drawn_in_the_colour_of_the_page() -> None:
    style = theme.STYLE.read_text(encoding="utf-8")
    assert '[data-testid="stBaseButton-primary"]:disabled { color: var(--muted)' in style


# Charts


def test_the_heat_map_hatches_wide_intervals_and_its_colour_is_the_value_alone() -> None:
    cells = [
        two_way("a", "x", 0.1),
        two_way("a", "y", 0.2, 0.09),
        two_way("b", "x", 0.3),
        two_way("b", "y", None),
    ]
    spec = heat_map(cells, measure("rate", ""), LIGHT, **MARKS).spec(LIGHT)
    filled, hidden = marks_of(spec, "rect")
    assert filled["encoding"]["color"]["field"] == "estimate"
    assert "opacity" not in filled["encoding"]
    stripes = marks_of(spec, "rule")
    assert {row["group"] for each in stripes for row in spec["datasets"][each["data"]["name"]]} == {"a · y"}
    assert {row["group"] for row in spec["datasets"][hidden["data"]["name"]]} == {"b · y"}


def test_the_heat_map_has_a_legend(opened: Path) -> None:
    text = words(markup(render("segments", plan="accent-by-device", by="accent,device_class")))
    assert "hatched: the 95% interval is wider than half the difference" in text
    assert "stronger colour: higher" in text
    assert "not shown: the reason is in the tooltip and below" in text


def test_the_matrix_outlines_what_is_significant_and_fades_nothing() -> None:
    def cell(actual: str, predicted: str, low: float) -> Cell:
        labels = (("actual", actual), ("predicted", predicted))
        return Cell(labels, 0.4, 0.3, 0.5, low, 0.6, False, "", 1.0, 0.1)

    cells = [cell("a", "a", 0.2), cell("a", "b", -0.1)]
    spec = matrix(cells, measure("confusion", ""), LIGHT, **MARKS).spec(LIGHT)
    assert all("opacity" not in layer["encoding"] for layer in marks_of(spec, "rect"))
    (outlined,) = (layer for layer in marks_of(spec, "rect") if layer["mark"].get("fillOpacity") == 0)
    assert outlined["transform"] == [{"filter": "datum.significant"}]


def test_det_curves_never_run_backwards_and_have_their_names_and_their_scale() -> None:
    results = [det_result("noisy", [0.05, 0.4, 0.1, 0.3]), det_result("good", [0.02, 0.1, 0.2, 0.5])]
    curves = {each.group[0][1]: curve(each) for each in results}
    spec = det(curves, LIGHT, chosen="noisy", threshold=0.2, weight=0.2, **MARKS).spec(LIGHT)
    lines = [layer for layer in marks_of(spec, "line") if layer["mark"].get("strokeWidth", 0) > 1]
    for layer in lines:
        rows = spec["datasets"][layer["data"]["name"]]
        assert [row["rejects"] for row in rows] == sorted(row["rejects"] for row in rows)
        assert [row["accepts"] for row in rows] == sorted((row["accepts"] for row in rows), reverse=True)
    names = {row.get("name") for rows in spec["datasets"].values() for row in rows}
    assert {"noisy", "good", "half the cost", "equal cost"} <= names
    assert lines[0]["encoding"]["x"]["title"] == "false accepts per hour (square-root scale)"
    assert lines[0]["encoding"]["x"]["scale"]["type"] == "sqrt"


def test_names_beside_lines_do_not_overlap() -> None:
    found = spread([0.0, 0.1, 0.1, 5.0, 9.9, 10.0], 1.0, 0.0, 10.0)
    assert found == sorted(found)
    assert all(after - before > 0.999 for before, after in pairwise(found))
    assert found[0] >= 0
    assert found[-1] <= 10
    assert found[3] == 5.0, "a name that is alone stays beside its line"


def test_a_reason_is_not_cut_off_on_a_narrow_plot() -> None:
    spec = forest(
        [number("a", 0.1), number("b", None)], measure("rate", ""), LIGHT, limit=Fraction(1, 40), everyone=None, **MARKS
    ).spec(LIGHT)  # fmt: skip
    (reason,) = (
        layer for layer in marks_of(spec, "text") if layer["encoding"]["text"].get("field") == "seen"
    )
    assert "limit" not in reason["mark"]
    assert "'not shown, see the table'" in reason["transform"][0]["calculate"]
    words_ = {row.get("words") for rows in spec["datasets"].values() for row in rows}
    assert "limit 2.5%" in words_, "a limit has the digits that the guardrail's sentence has"


def test_a_trend_has_the_days_of_its_windows_and_the_annotations() -> None:
    ends = [START + week * WEEK for week in (3, 2, 1)]
    rows = [
        {
            "group": "a",
            "at": end.isoformat(),
            "estimate": 0.1,
            "low": 0.05,
            "high": 0.2,
            "text": "",
            "release": "",
        }
        for end in ends
    ]
    noted = [Annotation("ab", ends[1].date(), None, "model 5")]
    spec = trend(
        rows, measure("rate", ""), LIGHT, chosen="a", limit=0.025, annotations=noted, **MARKS
    ).spec(LIGHT)  # fmt: skip
    axis = next(layer["encoding"]["x"]["axis"] for layer in marks_of(spec, "area"))
    days = [(each["month"], each["date"], each["utc"]) for each in axis["values"]]
    assert days == [(end.month, end.day, True) for end in ends[::-1]]
    marked = [row for data in spec["datasets"].values() for row in data if row.get("number") == 1]
    assert marked[0]["at"] == "2026-10-05T00:00:00Z"


# Words


def test_backticks_become_code_and_hostile_text_stays_text(opened: Path) -> None:
    assert theme.rich("run `fa log verify`") == "run <code>fa log verify</code>"
    assert theme.rich("`<b>`") == "<code>&lt;b&gt;</code>"
    assert theme.rich("one ` alone") == "one ` alone"
    for name, query in (
        ("privacy", {"view": "releases"}),
        ("privacy", {"view": "log"}),
        ("plans", {"view": "write", "start": "wake-word-weekly"}),
    ):
        assert "`" not in words(markup(render(name, **query))), (name, query)


def test_a_verified_log_does_not_claim_what_was_not_checked(opened: Path) -> None:
    page = render("privacy", view="log")
    page.button(key="verify").click().run()
    text = words(markup(page))
    assert "✓ consistent" in text
    assert "✓ met" not in text
    assert "No signature was checked with a key from outside the store." in text


def test_days_are_those_of_the_command_line() -> None:
    late = datetime(2026, 10, 5, 23, 30, tzinfo=UTC).astimezone(timezone(timedelta(hours=9)))
    assert late.day == 6
    assert (day(late), minute(late)) == ("5 Oct 2026", "2026-10-05 23:30 UTC")
    assert span(late - WEEK, late) == "28 Sep – 5 Oct 2026"


def test_a_budget_frees_up_at_the_moment_that_the_command_line_names(
    opened: Path, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fa_core.privacy.ledger import Balance, Shortage

    fits = datetime(2026, 12, 3, 5, tzinfo=UTC)
    short = Shortage(Balance("week", Fraction(1), Fraction(1), fits), fits)
    monkeypatch.setattr(launch_page, "shortages", lambda *_: [short])
    text = words(markup(launch(plan_of(plan_text("first-look")), fleet)))
    assert "week: 0 of 1 is left; it fits from 2026-12-03 05:00 UTC on" in text


# Links


@pytest.mark.parametrize(
    "query", [{"plan": "gone"}, {"release": "ffffffff"}, {"plan": "det-by-accent", "release": "f0"}]
)
def test_an_unknown_plan_or_release_shows_no_other_one(opened: Path, query: dict[str, str]) -> None:
    name, value = list(query.items())[-1]
    for view in ("segments", "release") if "det-by-accent" not in query.values() else ("thresholds",):
        page = render(view, **query)
        assert f"There is no {name} “{value}” here." in words(markup(page))
        assert page.selectbox(key=f"select-{name}").value is None
        assert "<table" not in markup(page)


def test_a_link_with_a_whole_release_id_shows_that_release(opened: Path, demo_store: Path) -> None:
    with open_store(demo_store, create=False) as store:
        older = store.releases(Query(plan="wake-word-weekly"), 3)[2]
    page = render("release", release=older.id)
    assert page.selectbox(key="select-release").value == older.id[:8]


def test_another_unknown_selection_gets_a_sentence(opened: Path) -> None:
    text = words(markup(render("segments", plan="wake-word-weekly", metric="loudness")))
    assert "Metric: there is no “loudness” here; false accepts per hour is shown." in text


# Pages that were asked for


def test_the_release_page_has_question_guarantee_numbers_reasons_and_commands(
    opened: Path, demo_store: Path
) -> None:
    with open_store(demo_store, create=False) as store:
        entry = store.releases(Query(plan="wake-word-weekly"), 1)[0]
        estimates = store.estimates(entry.id)
    text = words(markup(render("release", plan="wake-word-weekly")))
    assert "Does any accent or kind of device miss the wake word" in text
    assert "-differentially private for every device" in text
    for command in ("log verify", f"log prove {entry.id}", "ledger verify", f"results show {entry.id}"):
        assert f"fa {command} --store {demo_store}" in text
    assert entry.release_sha256 in text
    hidden = next(result for result in estimates.results if result.suppressed)
    assert hidden.reason in text
    shown = next(result for result in estimates.results if result.estimate is not None)
    assert measure(shown.kind, shown.unit).estimate(shown) in text


def test_the_report_is_offered_where_the_dashboard_has_one(opened: Path, demo_store: Path) -> None:
    assert render("release").get("download_button") == []
    settings.use(settings.Settings(str(demo_store), opened, report=lambda store, entry: entry.id))
    (button,) = render("release", plan="wake-word-weekly").get("download_button")
    assert button.proto.label == "Report"


def test_a_trend_is_limited_to_the_days_chosen(opened: Path) -> None:
    second = (START + 2 * WEEK).date().isoformat()
    page = render(
        "trends", plan="wake-word-weekly", metric="false_reject_rate", by="accent", **{"from": second}
    )
    assert page.date_input(key="select-from").value == date.fromisoformat(second)
    text = words(markup(page))
    assert "2 releases" in text
    assert "21 Sep – 28 Sep" not in text
    assert "(95%, corrected)" in text
    page.date_input(key="select-to").set_value(date.fromisoformat(second)).run()
    assert "1 release" in words(markup(page))
    backwards = render("trends", plan="wake-word-weekly", **{"from": second, "to": "2026-09-28"})
    assert "No window ends between these days." in words(markup(backwards))


@pytest.fixture
def noted(demo_store: Path) -> Iterator[None]:
    """The store with an annotation and a refused request."""
    with open_store(demo_store, create=False) as store:
        made = store.annotate((START + 2 * WEEK).date(), "<b>model 5</b>", "wake-word-weekly")
        if not store.refusals():
            plan = canonical(plan_of(plan_text("first-look")))
            store.refuse(release_id("refused"), plan, "homes", "lower `min_cohort`", START)
        yield
        store.remove_annotation(made.id)
    reading.forget()


def test_annotations_are_numbered_under_the_trend_of_their_plan(opened: Path, noted: None) -> None:
    text = words(markup(render("trends", plan="wake-word-weekly")))
    assert "1 2026-10-05: <b>model 5</b>" in text
    assert "fa results annotate DATE TEXT" in words(markup(render("trends", plan="noise-robustness")))


def test_refused_requests_are_shown_with_their_reason(opened: Path, noted: None) -> None:
    text = markup(render("privacy", view="refused"))
    assert "lower <code>min_cohort</code>" in text
    assert "first-look" in text
    assert "2026-09-21 00:00" in text


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (START + 3 * WEEK + timedelta(hours=3), "and the year's budget ends on "),
        (START + 30 * WEEK, "Nothing was charged in the last 28 days: at this pace no budget ends."),
    ],
)
def test_the_budget_page_says_when_budgets_end_at_this_pace(
    opened: Path, monkeypatch: pytest.MonkeyPatch, now: datetime, sentence: str
) -> None:
    from dashboard.views import privacy

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return now

    monkeypatch.setattr(privacy, "datetime", Clock)
    assert sentence in words(markup(render("privacy")))
