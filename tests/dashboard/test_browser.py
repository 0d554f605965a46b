"""The real page in a real browser: every page draws, nothing complains, and the numbers are those of `fa`."""

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
    "/privacy?view=releases", "/privacy?view=coverage", "/privacy?view=log", "/privacy?view=audit",
    "/segments?plan=accent-by-device&by=accent,device_class",
]  # fmt: skip
CHOICES = [
    "/segments?plan=wake-word-weekly", "/thresholds", "/confusions", "/trends", "/trends?view=models",
    "/trends?view=releases", "/privacy?view=coverage",
]  # fmt: skip
TABS = {
    "/segments?plan=accent-by-device&by=accent,device_class": ("Forest plot", "Heat map"),
    "/trends": ("New model against old", "Two releases", "Over time"),
    "/plans": ("Write and launch", "Runs", "Read"),
    "/privacy": ("Releases", "Coverage", "Transparency log", "Audit trail", "Budget"),
}
EVERYWHERE = list(product((1280, 390), ("light", "dark")))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def base(shop: Path) -> Iterator[str]:
    with serving(shop, "--plans", "eval_plans") as address:
        yield address


def whole(view: View) -> None:
    """The page is drawn, fits its width, and nothing was said in the console or asked of another host."""
    assert view.page.locator("[data-testid=stException]").count() == 0
    assert view.page.locator(".uh-empty:has-text('cannot be shown')").count() == 0
    main = view.page.locator("[data-testid=stMain]")
    assert main.evaluate("element => element.scrollWidth - element.clientWidth") <= 0
    assert view.complaints == []


def visit(view: View, path: str) -> None:
    """Go to a page by its link: in the bar above, or on a phone in the rows under it."""
    view.page.get_by_role("link", name=path.capitalize(), exact=True).first.click()
    view.page.wait_for_selector(f"h1.uh-title:text-is('{path.capitalize()}')")
    view.settle()


@pytest.mark.parametrize("width, theme", EVERYWHERE)
def test_every_page_draws_and_nothing_complains(browser: Browser, base: str, width: int, theme: str) -> None:
    with viewing(browser, base, width, theme) as view:
        view.open("/")
        whole(view)
        for path in PATHS[1:]:
            visit(view, path)
            whole(view)


def test_the_page_says_what_fa_results_show_says(browser: Browser, base: str, shop: Path) -> None:
    with open_store(shop, create=False) as store:
        entry = store.releases(Query(plan="wake-word-weekly"), 1)[0]
        told = json.loads(json.dumps(release_object(*store.read(entry), synthetic=entry.synthetic)))
    with viewing(browser, base) as view:
        view.open(f"/segments?release={entry.id[:8]}&metric=false_reject_rate&by=accent")
        for each in told["metrics"]:
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
def test_every_part_draws_at_every_width_and_theme(
    browser: Browser, base: str, width: int, theme: str
) -> None:
    with viewing(browser, base, width, theme) as view:
        for path in PARTS:
            view.open(path)
            whole(view)


def test_every_choice_can_be_made_and_lands_in_the_url(browser: Browser, base: str) -> None:
    made = set()
    with viewing(browser, base) as view:
        for path in CHOICES:
            view.open(path)
            for place in reversed(range(view.page.get_by_test_id("stSelectbox").count())):
                box = view.page.get_by_test_id("stSelectbox").nth(place)
                if view.choose(box):
                    made.add(box.inner_text().splitlines()[0])
                whole(view)
            address = view.page.url
            shown = view.page.locator("h1.uh-title, [role=status]").all_inner_texts()
            view.open(address.removeprefix(base))
            assert view.page.url == address
            assert view.page.locator("h1.uh-title, [role=status]").all_inner_texts() == shown
    assert made >= {"Plan", "Release", "Metric", "Cut by", "Group", "Highlight", "Same within", "Before"}


def test_a_threshold_is_dragged_and_the_table_follows(browser: Browser, base: str) -> None:
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
        worth = view.page.get_by_role("slider", name="One false wake an hour")
        lines = view.page.locator("path[stroke-dasharray='2,4']").count()
        assert lines > 0
        worth.focus()
        view.act(lambda: view.page.keyboard.press("Home"))
        assert view.page.locator("path[stroke-dasharray='2,4']").count() == 0
        under = view.page.get_by_label("Keep misses under, %")
        under.fill("100")
        view.act(lambda: under.press("Enter"))
        expect(view.page.get_by_role("status").first).to_contain_text("under 100% missed")
        whole(view)


def test_every_part_of_a_page_has_its_tab_and_a_reviewer_verifies(browser: Browser, base: str) -> None:
    with viewing(browser, base) as view:
        for path, parts in TABS.items():
            view.open(path)
            for part in parts:
                tab = view.page.get_by_role("radio", name=part)
                if tab.get_attribute("aria-checked") != "true":
                    view.act(tab.click)
                whole(view)
        view.open("/privacy?view=log")
        view.act(view.page.get_by_role("button", name="Verify now").click)
        expect(view.page.get_by_text("The log, the ledger and every release agree.")).to_be_visible()


def test_the_pages_can_be_reached_and_used_from_the_keyboard(browser: Browser, base: str) -> None:
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


def test_a_download_is_what_it_says_and_is_in_the_audit_trail(
    browser: Browser, base: str, shop: Path
) -> None:
    before = len(audit.read(shop / "dashboard")[0])
    with viewing(browser, base) as view:
        view.open("/segments?plan=wake-word-weekly&metric=false_reject_rate&by=accent")
        begins = {"CSV": b'"release"', "Parquet": b"PAR1", "PNG": b"\x89PNG", "SVG": b"<svg"}
        for form, magic in begins.items():
            assert view.download(form).read_bytes().startswith(magic), form
    deeds = [(deed.action, deed.details["form"]) for deed in audit.read(shop / "dashboard")[0][before:]]
    assert list(dict.fromkeys(deeds)) == [("export", form) for form in begins]


def test_a_plan_is_written_checked_launched_and_watched(browser: Browser, tmp_path: Path) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    fleet = write_fleet(tmp_path / "fleet", 220, hour, "lab")
    from tests.dashboard.stores import Stock

    Stock(tmp_path / "store").store.close()
    with serving(tmp_path / "store", "--fleet", str(fleet)) as base, viewing(browser, base) as view:
        view.open("/plans?view=write&start=new")
        area = view.page.get_by_label("Evaluation plan, in YAML")
        good = area.input_value()
        area.fill(good.replace("window: 7d", "window: 7 days"))
        expect(view.page.get_by_text("1 problem")).to_be_visible()
        expect(view.page.locator(".told .bad")).to_contain_text("such as 7d")
        area.fill(good)
        expect(view.page.get_by_text("What the plan is expected to tell")).to_be_attached()
        view.page.get_by_role("button", name="Launch").last.click()
        expect(view.page.get_by_text("Its numbers are on every page.")).to_be_visible()
        expect(view.page.get_by_text("220 of 220").first).to_be_visible()
        assert view.complaints == []
    deeds, _ = audit.read(tmp_path / "store" / "dashboard")
    assert [deed.action for deed in deeds] == ["launch"]
    with open_store(tmp_path / "store", create=False) as store:
        assert store.count() == 1
        assert store.verify_log() == []


@pytest.mark.long
def test_signing_in_leads_to_the_link_that_was_followed(browser: Browser, shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    add_user(file, "ada", ["operator"], "correct horse battery")
    with serving(shop, "--password-file", str(file)) as base, viewing(browser, base) as view:
        view.page.goto(base + "/privacy?view=audit")
        view.page.get_by_label("Name").fill("ada")
        view.page.get_by_label("Password").fill("correct horse battery")
        view.page.get_by_role("button", name="Sign in").click()
        view.settle()
        expect(view.page.get_by_text("The audit trail is for reviewers.")).to_be_visible()
        view.page.get_by_role("button", name="Sign out").click()
        view.page.wait_for_url("**/login")
        assert view.complaints == []
