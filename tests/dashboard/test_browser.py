"""Every page in a real browser: it renders without console errors, and its numbers are those of `fa results show`."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from dashboard.auth import audit
from dashboard.auth.users import add_user
from dashboard.style.shell import PATHS
from fa_core.cli.render import release_object
from fa_core.store import Query, open_store
from tests.dashboard.browser import View, chromium, serving, viewing
from tests.dashboard.fleet_tables import write_fleet

PARTS = [f"/{path}" for path in PATHS] + [
    "/trends?view=models", "/trends?view=releases", "/plans?view=write&start=first-look", "/plans?view=runs",
    "/privacy?view=releases", "/privacy?view=refused", "/privacy?view=coverage", "/privacy?view=log", "/privacy?view=audit",
    "/segments?plan=accent-by-device&by=accent,device_class",
]  # fmt: skip
SELECTIONS = [
    "/segments?plan=wake-word-weekly", "/thresholds", "/confusions", "/trends", "/trends?view=models",
    "/trends?view=releases", "/privacy?view=coverage",
]  # fmt: skip
TABS = {
    "/segments?plan=accent-by-device&by=accent,device_class": ("Forest plot", "Heat map"),
    "/trends": ("Model comparison", "Two releases", "Over time"),
    "/plans": ("Write and launch", "Runs", "Read"),
    "/privacy": ("Releases", "Refused", "Coverage", "Transparency log", "Audit trail", "Budget"),
}
EVERYWHERE = list(product((1280, 390), ("light", "dark")))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def base(demo_store: Path) -> Iterator[str]:
    with serving(demo_store, "--plans", "eval_plans") as address:
        yield address


def assert_page_ok(view: View) -> None:
    """The page is rendered, fits its width, and has no console errors and no requests to other hosts."""
    assert view.page.locator("[data-testid=stException]").count() == 0
    assert view.page.locator(".uh-empty:has-text('cannot be shown')").count() == 0
    main = view.page.locator("[data-testid=stMain]")
    assert main.evaluate("element => element.scrollWidth - element.clientWidth") <= 0
    assert view.errors == []


def visit(view: View, path: str) -> None:
    """Open a page by its link: in the top bar, or on a phone in the rows below it."""
    view.page.get_by_role("link", name=path.capitalize(), exact=True).first.click()
    view.page.wait_for_selector(f"h1.uh-title:text-is('{path.capitalize()}')")
    view.settle()


@pytest.mark.parametrize("width, theme", [(1280, "light"), (390, "dark")])
def test_every_page_renders_without_console_errors(
    browser: Browser, base: str, width: int, theme: str
) -> None:
    with viewing(browser, base, width, theme) as view:
        view.open("/")
        assert_page_ok(view)
        for path in PATHS[1:]:
            visit(view, path)
            assert_page_ok(view)


def test_the_page_shows_the_numbers_of_fa_results_show(browser: Browser, base: str, demo_store: Path) -> None:
    with open_store(demo_store, create=False) as store:
        entry = store.releases(Query(plan="wake-word-weekly"), 1)[0]
        expected = json.loads(json.dumps(release_object(*store.read(entry), synthetic=entry.synthetic)))
    with viewing(browser, base) as view:
        view.open(f"/segments?release={entry.id[:8]}&metric=false_reject_rate&by=accent")
        for each in expected["metrics"]:
            if each["metric"] == "false_reject_rate" and list(each["group"]) == ["accent"]:
                row = view.page.locator(f'tr[data-group="{each["group"]["accent"]}"]')
                assert row.get_attribute("data-estimate") == str(each["estimate"])
                assert row.get_attribute("data-low") == str(each["low"])
                assert row.get_attribute("data-high") == str(each["high"])
                expect(row).to_contain_text(each["reason"] or "%")
        drawn = view.page.locator("svg.marks").first
        expect(drawn).to_contain_text("SIMULATION · SYNTHETIC VOICES")


@pytest.mark.long
@pytest.mark.parametrize("width, theme", EVERYWHERE)
def test_every_part_renders_at_every_width_and_theme(
    browser: Browser, base: str, width: int, theme: str
) -> None:
    with viewing(browser, base, width, theme) as view:
        for path in PARTS:
            view.open(path)
            assert_page_ok(view)


def test_every_selection_is_kept_in_the_url(browser: Browser, base: str) -> None:
    selected = set()
    with viewing(browser, base) as view:
        for path in SELECTIONS:
            view.open(path)
            for place in reversed(range(view.page.get_by_test_id("stSelectbox").count())):
                box = view.page.get_by_test_id("stSelectbox").nth(place)
                if view.choose(box):
                    selected.add(box.inner_text().splitlines()[0])
                assert_page_ok(view)
            address = view.page.url
            shown = view.page.locator("h1.uh-title, [role=status]").all_inner_texts()
            view.open(address.removeprefix(base))
            assert view.page.url == address
            assert view.page.locator("h1.uh-title, [role=status]").all_inner_texts() == shown
    assert selected >= {
        "Plan",
        "Release",
        "Metric",
        "Break down by",
        "Group",
        "Highlight",
        "Margin",
        "Before",
    }


def test_dragging_the_threshold_updates_the_table(browser: Browser, base: str) -> None:
    with viewing(browser, base) as view:
        view.open("/thresholds?plan=det-by-accent&threshold=0.5")
        expect(view.page.get_by_role("heading", name="At threshold 0.5")).to_be_visible()
        before = view.page.locator("tr[data-group]").first.inner_text()
        thumb = view.page.get_by_role("slider", name="Threshold")
        box = view.page.get_by_test_id("stSlider").first.bounding_box()
        assert box is not None

        def drag() -> None:
            at = thumb.locator("xpath=../..").bounding_box()
            assert at is not None
            middle = at["y"] + at["height"] / 2
            view.page.mouse.move(at["x"] + at["width"] / 2, middle)
            view.page.mouse.down()
            view.page.mouse.move(box["x"] + 0.9 * box["width"], middle, steps=6)
            view.page.mouse.up()

        view.act(drag)
        expect(view.page.get_by_role("heading", name="At threshold 0.5")).to_have_count(0)
        assert view.page.locator("tr[data-group]").first.inner_text() != before
        dragged = float(view.page.url.partition("threshold=")[2].partition("&")[0])
        assert dragged > 0.7
        thumb.focus()
        view.act(lambda: view.page.keyboard.press("ArrowLeft"))
        assert float(view.page.url.partition("threshold=")[2].partition("&")[0]) < dragged
        weight = view.page.get_by_role("slider", name="Cost of one false accept")
        lines = view.page.locator("path[stroke-dasharray='2,4']").count()
        assert lines > 0
        weight.focus()
        view.act(lambda: view.page.keyboard.press("Home"))
        assert view.page.locator("path[stroke-dasharray='2,4']").count() == 0
        under = view.page.get_by_label("False reject rate at most, %")
        under.fill("100")
        view.act(lambda: under.press("Enter"))
        expect(view.page.get_by_role("status").first).to_contain_text("within a false reject rate of 100%")
        assert_page_ok(view)


def test_every_part_of_a_page_has_a_tab_and_a_reviewer_can_verify(browser: Browser, base: str) -> None:
    with viewing(browser, base) as view:
        for path, parts in TABS.items():
            view.open(path)
            for part in parts:
                tab = view.page.get_by_role("radio", name=part)
                if tab.get_attribute("aria-checked") != "true":
                    view.act(tab.click)
                assert_page_ok(view)
        view.open("/privacy?view=log")
        view.act(view.page.get_by_role("button", name="Verify now").click)
        expect(view.page.get_by_text("The log, the ledger and every release agree.")).to_be_visible()


def test_the_pages_can_be_used_by_keyboard_and_every_control_has_a_name(browser: Browser, base: str) -> None:
    with viewing(browser, base) as view:
        view.open("/")
        seen = []
        for _ in range(25):
            view.page.keyboard.press("Tab")
            seen.append(view.page.evaluate("document.activeElement.innerText || ''"))
            if seen[-1] == "Segments":
                break
        assert seen[-1] == "Segments"
        view.page.keyboard.press("Enter")
        view.page.wait_for_selector("h1.uh-title:text-is('Segments')")
        view.settle()
        unnamed = view.page.evaluate(
            "[...document.querySelectorAll('button, input, textarea, [role=combobox]')].filter(e => e.offsetParent && "
            "!(e.innerText || e.ariaLabel || e.labels?.length || e.title || e.getAttribute('aria-labelledby')"
            " || e.closest('[aria-label]'))).map(e => e.outerHTML)"
        )
        assert unnamed == []


def test_a_download_has_its_format_and_is_in_the_audit_trail(
    browser: Browser, base: str, demo_store: Path
) -> None:
    before = len(audit.read(demo_store / "dashboard")[0])
    with viewing(browser, base) as view:
        view.open("/segments?plan=wake-word-weekly&metric=false_reject_rate&by=accent")
        begins = {"CSV": b'"release"', "Parquet": b"PAR1", "PNG": b"\x89PNG", "SVG": b"<svg"}
        for form, magic in begins.items():
            assert view.download(form).read_bytes().startswith(magic), form
    actions = [
        (action.name, action.details["form"]) for action in audit.read(demo_store / "dashboard")[0][before:]
    ]
    assert list(dict.fromkeys(actions)) == [("export", form) for form in begins]


def test_a_plan_is_written_checked_launched_and_monitored(browser: Browser, tmp_path: Path) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    fleet = write_fleet(tmp_path / "fleet", 220, hour, "lab")
    from tests.dashboard.stores import StoreBuilder

    StoreBuilder(tmp_path / "store").store.close()
    with serving(tmp_path / "store", "--fleet", str(fleet)) as base, viewing(browser, base) as view:
        view.open("/plans?view=write&start=new")
        area = view.page.get_by_label("Evaluation plan, in YAML")
        good = area.input_value()
        area.fill(good.replace("window: 7d", "window: 7 days"))
        expect(view.page.get_by_text("1 problem")).to_be_visible()
        expect(view.page.locator(".overlay .bad")).to_contain_text("such as 7d")
        area.fill(good)
        expect(view.page.get_by_text("Expected precision")).to_be_attached()
        view.page.get_by_role("button", name="Launch").last.click()
        expect(view.page.get_by_text("Its numbers are on every page.")).to_be_visible()
        expect(view.page.get_by_text("220 of 220").first).to_be_visible()
        assert view.errors == []
    actions, _ = audit.read(tmp_path / "store" / "dashboard")
    assert [action.name for action in actions] == ["launch"]
    with open_store(tmp_path / "store", create=False) as store:
        assert store.count() == 1
        assert store.verify_log() == []


@pytest.mark.long
def test_signing_in_redirects_to_the_requested_page(
    browser: Browser, demo_store: Path, tmp_path: Path
) -> None:
    file = tmp_path / "passwords"
    add_user(file, "ada", ["operator"], "correct horse battery")
    with serving(demo_store, "--password-file", str(file)) as base, viewing(browser, base) as view:
        view.page.goto(base + "/privacy?view=audit")
        view.page.get_by_label("Name").fill("ada")
        view.page.get_by_label("Password").fill("correct horse battery")
        view.page.get_by_role("button", name="Sign in").click()
        view.settle()
        expect(view.page.get_by_text("The audit trail is for reviewers.")).to_be_visible()
        view.page.get_by_role("button", name="Sign out").click()
        view.page.wait_for_url("**/login")
        assert view.errors == []
