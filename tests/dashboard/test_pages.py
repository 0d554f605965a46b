"""Every page over a store of realistic shape: its numbers are those of the release, and none is left out."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dashboard.auth import audit
from fa_core.cli.render import release_object
from fa_core.store import Query, open_store
from tests.dashboard.rendering import exact, markup, render, rows, words

PAGES = (
    "health",
    "segments",
    "thresholds",
    "confusions",
    "trends",
    "release",
    "rollouts",
    "plans",
    "privacy",
)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_without_a_query(opened: Path, name: str) -> None:
    page = render(name)
    assert "uh-title" in markup(page)


def shown(demo_store: Path, plan: str) -> dict[str, object]:
    """Return what `fa results show --json` prints for a plan's newest release."""
    with open_store(demo_store, create=False) as store:
        entry = store.releases(Query(plan=plan), 1)[0]
        return json.loads(json.dumps(release_object(*store.read(entry), synthetic=entry.synthetic)))


def test_segments_shows_the_numbers_of_the_release_and_every_reason(opened: Path, demo_store: Path) -> None:
    printed = shown(demo_store, "wake-word-weekly")
    page = render("segments", plan="wake-word-weekly", metric="false_reject_rate", by="accent")
    found = {row["group"]: row for row in rows(markup(page)) if row.get("metric") == "false_reject_rate"}
    expected = [
        m for m in printed["metrics"] if m["metric"] == "false_reject_rate" and set(m["group"]) == {"accent"}
    ]
    assert len(found) == len(expected) == 10
    for each in expected:
        row = found[each["group"]["accent"]]
        assert {key: row[key] for key in ("estimate", "low", "high", "suppressed")} == {
            key: exact(each[key]) for key in ("estimate", "low", "high", "suppressed")
        }
        if each["suppressed"]:
            assert each["reason"] in row["text"]
        else:
            assert f"{100 * each['estimate']:.0f}" in row["text"].replace(".", " ") or "%" in row["text"]


def test_every_estimate_has_an_interval_beside_it(opened: Path) -> None:
    page = render("segments", plan="wake-word-weekly", metric="false_reject_rate", by="accent")
    for row in rows(markup(page)):
        if row["suppressed"] == "False":
            assert "–" in row["text"] or " to " in row["text"]


def test_health_puts_a_broken_guardrail_first_and_counts_verdicts(opened: Path, demo_store: Path) -> None:
    text = words(markup(render("health")))
    with open_store(demo_store, create=False) as store:
        newest = {entry.plan: entry for entry in reversed(store.releases(limit=1000))}.values()
        verdicts = [j.verdict for entry in newest for j in store.estimates(entry.id).judgements]
    assert f"{verdicts.count('broken')} ✕ guardrails broken" in text
    assert f"{verdicts.count('not_enough_evidence')} ◌ guardrails not enough evidence" in text


def test_a_simulation_is_marked_on_every_page_that_shows_numbers(opened: Path) -> None:
    for name in ("health", "segments", "thresholds", "confusions", "trends", "release"):
        text = words(markup(render(name)))
        assert "simulation" in text.lower(), name
        assert "synthetic voices" in text, name


def test_a_deep_link_selects_what_it_names(opened: Path, demo_store: Path) -> None:
    with open_store(demo_store, create=False) as store:
        older = store.releases(Query(plan="wake-word-weekly"), 3)[2]
    page = render("segments", release=older.id[:8], metric="false_reject_rate", by="everyone")
    assert page.selectbox(key="select-release").value == older.id[:8]
    assert page.selectbox(key="select-by").value == "everyone"
    assert page.query_params["plan"] == "wake-word-weekly"


def test_a_link_names_both_of_two_releases_by_their_whole_ids(opened: Path, demo_store: Path) -> None:
    with open_store(demo_store, create=False) as store:
        newest, _, oldest = store.releases(Query(plan="wake-word-weekly"), 3)
    page = render("trends", view="releases", before=oldest.id, release=newest.id)
    assert page.selectbox(key="select-release").value == newest.id[:8]
    assert page.selectbox(key="select-before").value == oldest.id[:8]


def test_a_two_way_grouping_has_a_heat_map_and_a_forest_plot(opened: Path) -> None:
    page = render("segments", plan="accent-by-device", by="accent,device_class")
    assert "hatched: the 95% interval is wider than half" in words(markup(page))
    page.segmented_control(key="select-view").set_value("forest").run()
    assert not page.exception
    assert "95% interval of the group" in words(markup(page))


def test_thresholds_names_the_highest_threshold_within_a_limit_for_every_accent(opened: Path) -> None:
    loose = words(markup(render("thresholds", under="100")))
    tight = words(markup(render("thresholds", under="1")))
    assert "the 95% band of every accent shown is within a false reject rate of 100%" in loose
    assert "At no threshold" in tight


def test_a_candidate_model_is_judged_group_by_group(opened: Path) -> None:
    page = render("trends", view="models")
    text = words(markup(page))
    assert any(answer in text for answer in ("Not safe to ship", "Inconclusive", "Safe to ship"))
    assert {row["change"] for row in rows(markup(page))} <= {
        "better", "worse", "same within margin", "not enough evidence",
    }  # fmt: skip


def test_two_releases_are_compared_as_fa_compare_does(opened: Path, demo_store: Path) -> None:
    from fa_core.estimate.compare import compare

    with open_store(demo_store, create=False) as store:
        after, before = store.releases(Query(plan="wake-word-weekly"), 2)
        found = compare(store.estimates(before.id), store.estimates(after.id))
    page = render("trends", view="releases", plan="wake-word-weekly", metric="false_reject_rate", by="accent")
    shown_ = {row["group"]: row["estimate"] for row in rows(markup(page)) if "change" in row}
    expected = {
        each.group[0][1]: exact(each.difference)
        for each in found
        if each.metric == "false_reject_rate" and [name for name, _ in each.group] == ["accent"]
    }
    assert shown_ == expected


def test_privacy_shows_the_exact_charges_of_each_month(opened: Path, demo_store: Path) -> None:
    page = render("privacy", population="homes")
    with open_store(demo_store, create=False) as store:
        charges = store.charges("homes")
    by_month = {row["month"]: row["cost"] for row in rows(markup(page)) if "month" in row}
    months = {f"{charge.at:%B %Y}" for charge in charges}
    assert by_month == {
        month: str(sum(charge.cost for charge in charges if f"{charge.at:%B %Y}" == month))
        for month in months
    }


def test_releases_are_paginated_and_the_page_is_in_the_url(
    opened: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dashboard.views import privacy

    monkeypatch.setattr(privacy, "ON_A_PAGE", 10)
    seen = [
        row["release"]
        for page in ("1", "2", "3")
        for row in rows(markup(render("privacy", view="releases", page=page)))
        if "release" in row
    ]
    assert len(seen) == len(set(seen)) == 24
    beyond = render("privacy", view="releases", page="99")
    assert beyond.query_params["page"] in ("1", ["1"])


def test_a_failed_round_is_shown_with_its_reason(opened: Path) -> None:
    text = words(markup(render("privacy", view="releases")))
    assert "1,702 of 2,500 devices answered" in text


def test_verifying_recomputes_the_log_and_is_in_the_audit_trail(opened: Path) -> None:
    page = render("privacy", view="log")
    page.button(key="verify").click().run()
    assert "The log, the ledger and every release agree" in words(markup(page))
    actions, problems = audit.read(opened)
    assert [(action.user, action.name) for action in actions] == [("tester", "verify")]
    assert problems == []


def test_reading_a_plan_shows_it_as_signed(opened: Path) -> None:
    text = words(markup(render("plans", view="read", plan="wake-word-weekly")))
    assert "Does any accent or kind of device miss the wake word" in text
    assert "the server adds it to the exact sum" in text


def test_the_editor_checks_as_fa_plan_check_does(opened: Path) -> None:
    from dashboard.launch.draft_page import check, empty

    good = empty(datetime.now(UTC).date())
    assert check(good, 5000).plan is not None
    bad = check(good.replace("window: 7d", "window: 7 days"), 5000)
    assert bad.plan is None
    assert [(p.position.line, p.position.column) for p in bad.problems] == [(10, 9)]
    assert check("\x00", None).plan is None


def test_a_draft_says_what_a_default_device_would_do_with_it(opened: Path) -> None:
    text = words(markup(render("plans", view="write", start="wake-word-weekly")))
    assert "a device with the default policy and budget answers every release with its counts" in text


def test_a_viewer_may_not_launch_verify_or_read_the_trail(
    opened: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dashboard.auth import session
    from dashboard.auth.users import User

    monkeypatch.setattr(session, "current_user", lambda: User("guest", frozenset()))
    log = render("privacy", view="log")
    assert log.button(key="verify").disabled
    assert "for reviewers" in words(markup(render("privacy", view="audit")))


def test_without_a_session_nothing_is_shown(opened: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamlit.testing.v1 import AppTest

    from dashboard.auth import session

    monkeypatch.setattr(session, "current_user", lambda: None)
    page = AppTest.from_file(Path("dashboard/app.py").resolve(), default_timeout=600).run()
    assert not page.exception
    assert "Your session has ended" in words(markup(page))
    assert "wake-word-weekly" not in markup(page)
