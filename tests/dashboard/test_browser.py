"""The real page in a real browser: every page draws, nothing complains, and the numbers are those of `fa`."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from dashboard import audit
from dashboard.shell import PATHS
from dashboard.users import add_user
from fa_core.cli.render import release_object
from fa_core.store import Query, open_store
from tests.dashboard.browser import View, chromium, serving, viewing
from tests.dashboard.tables import write_fleet

PARTS = [f"/{path}" for path in PATHS] + [
    "/trends?view=models", "/trends?view=releases", "/plans?view=write&start=first-look", "/plans?view=runs",
    "/privacy?view=releases", "/privacy?view=coverage", "/privacy?view=log", "/privacy?view=audit",
    "/segments?plan=accent-by-device&by=accent,device_class",
]  # fmt: skip


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


def test_every_page_draws_and_nothing_complains(browser: Browser, base: str) -> None:
    with viewing(browser, base) as view:
        view.open("/")
        whole(view)
        for path in PATHS[1:]:
            view.page.locator(f'[data-testid=stTopNavLink]:has-text("{path.capitalize()}")').first.click()
            view.page.wait_for_selector(f"h1.uh-title:text-is('{path.capitalize()}')")
            view.settle()
            whole(view)


def test_a_phone_in_the_dark_sees_segments(browser: Browser, base: str) -> None:
    with viewing(browser, base, 390, "dark") as view:
        view.open("/segments?plan=wake-word-weekly&metric=false_reject_rate&by=accent")
        expect(view.page.locator("svg.marks").first).to_be_visible()
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
@pytest.mark.parametrize("width, theme", list(product((1280, 390), ("light", "dark"))))
def test_every_part_draws_at_every_width_and_theme(
    browser: Browser, base: str, width: int, theme: str
) -> None:
    with viewing(browser, base, width, theme) as view:
        for path in PARTS:
            view.open(path)
            whole(view)


@pytest.mark.long
def test_every_control_can_be_used_and_lands_in_the_url(browser: Browser, base: str) -> None:
    with viewing(browser, base) as view:
        for path in (part for part in PARTS if "write" not in part):
            view.open(path)
            for place in range(view.page.locator("[data-testid=stSelectbox]").count()):
                box = view.page.locator("[data-testid=stSelectbox]").nth(place)
                if not box.is_visible():
                    continue
                box.locator("[role=combobox], input").first.click()
                view.page.locator("[role=option]").last.click()
                view.page.wait_for_timeout(150)
                view.settle()
                whole(view)
            address = view.page.url
            view.open(address.removeprefix(base))
            assert view.page.url == address


@pytest.mark.long
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


@pytest.mark.long
def test_a_download_is_what_it_says_and_is_in_the_audit_trail(
    browser: Browser, base: str, shop: Path
) -> None:
    before = len(audit.read(shop / "dashboard")[0])
    with viewing(browser, base) as view:
        view.open("/segments?plan=wake-word-weekly&metric=false_reject_rate&by=accent")
        begins = {"CSV": b'"release"', "Parquet": b"PAR1", "PNG": b"\x89PNG", "SVG": b"<svg"}
        for form, magic in begins.items():
            with view.page.expect_download() as waiting:
                view.page.get_by_role("button", name=form, exact=False).last.click()
            assert Path(waiting.value.path()).read_bytes().startswith(magic), form
            view.settle()
    deeds = audit.read(shop / "dashboard")[0][before:]
    assert [(deed.action, deed.details["form"]) for deed in deeds] == [("export", form) for form in begins]


@pytest.mark.long
def test_a_plan_is_written_checked_launched_and_watched(browser: Browser, tmp_path: Path) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    fleet = write_fleet(tmp_path / "fleet", 220, hour, "lab")
    from tests.dashboard.stock import Stock

    Stock(tmp_path / "store").store.close()
    with serving(tmp_path / "store", "--fleet", str(fleet)) as base, viewing(browser, base) as view:
        view.open("/plans?view=write&start=new")
        area = view.page.get_by_label("Evaluation plan, in YAML")
        good = area.input_value()
        area.fill(good.replace("window: 7d", "window: 7 days"))
        expect(view.page.get_by_text("1 problem")).to_be_visible(timeout=20_000)
        expect(view.page.locator(".told .bad")).to_contain_text("such as 7d")
        soon = (hour + timedelta(days=30)).date().isoformat()
        area.fill(good.replace("expires: 2027-03-31", f"expires: {soon}"))
        expect(view.page.get_by_text("What the plan is expected to tell")).to_be_attached(timeout=20_000)
        view.page.get_by_role("button", name="Launch").last.click()
        expect(view.page.get_by_text("Its numbers are on every page.")).to_be_visible(timeout=120_000)
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
