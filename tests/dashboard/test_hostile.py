"""Hostile content in names, labels and links: it is shown as text and breaks no page."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dashboard import settings
from dashboard.auth import session
from dashboard.data import reading
from fa_core.estimate import estimate
from fa_core.plan import parse, sign
from tests.dashboard.conftest import ALL_ROLES
from tests.dashboard.fleet_tables import START
from tests.dashboard.rendering import markup, render, rows, tags, words
from tests.dashboard.stores import StoreBuilder, plan_text, released

NAME = '<img src=x onerror="alert(1)"><script>alert(2)</script> [x](javascript:alert(3)) $\\LaTeX$ {{next}}'
OWNER = "o" * 10_000
LABELS = ("nan", "<b>bold</b>", "null", "=1+1", "‮mirrored", "None", "-", "a,b")
ALLOWED = {
    "div", "h1", "h2", "p", "span", "section", "header", "small", "b", "code", "table", "caption", "thead", "tbody", "tr",
    "th", "td", "ul", "li", "i", "pre",
}  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose only release has a plan that this version would refuse to write."""
    from clients.evaluate import fleet_sum
    from fa_core.layout import compile_plan
    from tests.dashboard.fleet_tables import cohort

    folder = tmp_path_factory.mktemp("hostile") / "store"
    builder = StoreBuilder(folder)
    plan = parse(plan_text("wake-word-weekly").encode(), "plan.yaml", today=START.date())
    fleet, until = cohort(1200, 0)
    made = released(plan, fleet_sum(plan, compile_plan(plan), fleet, until), until, 1200, "ab" * 16)
    numbers = estimate(made)
    document = json.loads(made.plan)
    document["metadata"] |= {"name": NAME, "owner": OWNER, "question": NAME, "revision": NAME}
    body = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    other = replace(made, plan=body, layout=replace(made.layout, plan_hash=hashlib.sha256(body).hexdigest()))
    accents = [result for result in numbers.results if [name for name, _ in result.group] == ["accent"]]
    renamed = {each.group: (("accent", label),) for each, label in zip(accents, LABELS, strict=False)}
    results = tuple(replace(each, group=renamed.get(each.group, each.group)) for each in numbers.results)
    judgements = tuple(replace(each, sentence=NAME) for each in numbers.judgements)
    key = builder.keys.plan
    builder.store.announce(body, key.public_key().public_bytes_raw(), sign(body, key))
    builder.charge(other)
    builder.store.save(other, replace(numbers, results=results, judgements=judgements), synthetic=True)
    failed = replace(other, id="cd" * 16, created=other.created + timedelta(hours=1))
    builder.fail(failed, NAME, NAME)
    builder.store.close()
    return folder


@pytest.fixture(autouse=True)
def shown(hostile: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    settings.use(settings.Settings(str(hostile), tmp_path / "dashboard"))
    monkeypatch.setattr(session, "current_user", lambda: ALL_ROLES)
    yield
    reading.forget()


VIEWS = [
    ("health", {}), ("segments", {"metric": "false_reject_rate", "by": "accent"}), ("thresholds", {}), ("confusions", {}),
    ("trends", {"metric": "false_reject_rate", "by": "accent"}), ("plans", {}), ("privacy", {}), ("privacy", {"view": "releases"}),
    ("privacy", {"view": "coverage"}), ("privacy", {"view": "log"}), ("release", {}),
]  # fmt: skip


@pytest.mark.parametrize("name, query", VIEWS)
def test_every_page_shows_hostile_content_as_text(name: str, query: dict[str, str]) -> None:
    text = markup(render(name, **query))
    assert tags(text) <= ALLOWED
    assert 'onerror="alert' not in text


def test_labels_such_as_nan_and_null_are_shown_as_labels() -> None:
    page = render("segments", metric="false_reject_rate", by="accent")
    found = {row["group"] for row in rows(markup(page)) if row.get("metric") == "false_reject_rate"}
    assert set(LABELS) <= found


def test_a_name_is_escaped_and_a_long_one_truncated() -> None:
    text = words(markup(render("health")))
    assert '<img src=x onerror="alert(1)">' in text
    assert "o" * 200 not in text


@pytest.mark.parametrize("value", ["", "../../etc", "<script>", "x" * 5000, "-1", "1e9", "nan", "٣"])
def test_a_hostile_link_opens_the_page(value: str) -> None:
    for name in ("health", "segments", "thresholds", "trends", "release", "plans", "privacy"):
        keys = (
            "release",
            "plan",
            "metric",
            "by",
            "view",
            "page",
            "under",
            "threshold",
            "group",
            "launch",
            "devices",
        )
        page = render(name, **dict.fromkeys(keys, value))
        assert tags(markup(page)) <= ALLOWED
