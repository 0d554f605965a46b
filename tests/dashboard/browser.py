"""End-to-end: `fa dashboard` as a process, and Debian's Chromium as its client."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Locator, Page, Request, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.ports import free_ports

FLAGS: Final = (
    "--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
START: Final = "import typer; from fa_core.cli.dashboard import dashboard; typer.run(dashboard)"
"""`fa dashboard` alone: the other commands take seconds to import."""

STARTS_WITHIN: Final = 300.0
TIMEOUT_MS: Final = 300_000
"""Milliseconds after which a page load fails, long enough for a busy machine."""

UNOBSERVED_MS: Final = 10_000
"""Milliseconds after which a script run whose start was not observed is taken to have ended: its output is there,
or the test that expects it fails."""

LOOK_MS: Final = 50
"""Between two looks at a page: at every frame, they would take the processor from what is looked at."""

RAN: Final = """
() => {
  let begun = false;
  window.ran = false;
  new MutationObserver((changes, observer) => {
    const idle = document.querySelector('[data-testid="stApp"]')?.dataset.testScriptState === 'notRunning';
    begun ||= !idle || changes.some(change => change.oldValue && change.oldValue !== 'notRunning');
    if (begun && idle) { window.ran = true; observer.disconnect(); }
  }).observe(document.body, {
    subtree: true, childList: true, attributeFilter: ['data-test-script-state'], attributeOldValue: true,
  });
}
"""
"""Makes `window.ran` true once the script has started and ended again."""

IDLE: Final = '[data-testid="stApp"][data-test-script-state="notRunning"]'


@contextmanager
def serving(store: Path | str, *more: str, log: Path | None = None) -> Iterator[str]:
    """Yield the URL of a dashboard over a store."""
    port = free_ports()
    command = [sys.executable, "-c", START, "--store", str(store), "--port", str(port), *more]
    with open(log or "/dev/null", "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(STARTS_WITHIN)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"the dashboard did not start (exit code {process.poll()})")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a browser. Raises AssertionError where Chromium is not installed."""
    found = shutil.which("chromium")
    assert found is not None, "Chromium is not installed; scripts/setup chromium installs it"
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS), timeout=TIMEOUT_MS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class View:
    """A page in a browser, and its console errors and failed or foreign requests."""

    page: Page
    base: str
    errors: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Open a path and wait until everything is rendered."""
        self.page.goto(self.base + path)
        self.settle()

    def act(self, do: Callable[[], object]) -> None:
        """Do something that makes the script run again, and wait until it has ended."""
        self.page.evaluate(RAN)
        do()
        # A run that ends before the browser renders once is not observed at all.
        with suppress(PlaywrightTimeout):
            self.page.wait_for_function("window.ran", timeout=UNOBSERVED_MS, polling=LOOK_MS)
        self.settle()

    def choose(self, box: Locator, which: int = -1) -> bool:
        """Select another option of a select box, the last or one by its index; return whether there is one."""
        box.locator("[role=combobox], input").first.click()
        options = self.page.locator("[role=option]")
        options.first.wait_for()
        places = [
            place
            for place in range(options.count())
            if options.nth(place).get_attribute("aria-selected") != "true"
        ]
        if not places:
            self.page.keyboard.press("Escape")
            return False
        self.act(options.nth(places[which % len(places)] if which >= 0 else places[-1]).click)
        return True

    def download(self, name: str) -> Path:
        """Click the last button of this name and return the downloaded file; a click on a page that is being
        rendered again is lost, and is repeated."""
        button = self.page.get_by_role("button", name=name, exact=False).last
        for timeout in (UNOBSERVED_MS, UNOBSERVED_MS, TIMEOUT_MS):
            self.settle()
            with suppress(PlaywrightTimeout):
                with self.page.expect_download(timeout=timeout) as waiting:
                    button.click()
                return Path(waiting.value.path())
        raise AssertionError(f"{name} downloaded nothing")

    def settle(self) -> None:
        """Wait until the script has ended and no placeholder is left."""
        self.page.wait_for_selector("h1.uh-title")
        self.page.wait_for_selector(IDLE)
        for unfinished in ("[data-testid=stSkeleton]", "[data-stale=true]"):
            gone = f"document.querySelectorAll('{unfinished}').length === 0"
            self.page.wait_for_function(gone, polling=LOOK_MS)


@contextmanager
def viewing(browser: Browser, base: str, width: int = 1280, theme: str = "light") -> Iterator[View]:
    """Yield a new browser context's page of a width and a theme."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    view = View(page, base)

    def on_console(kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            view.errors.append(text)

    page.on("console", lambda message: on_console(message.type, message.text))
    page.on("pageerror", lambda error: view.errors.append(str(error)))
    page.on("requestfailed", lambda request: _failed(view, request))
    page.on("request", lambda request: _check_host(view, request.url))
    try:
        yield view
    finally:
        context.close()


def _failed(view: View, request: Request) -> None:
    if request.failure != "net::ERR_ABORTED":  # requests aborted by navigation or by a download
        view.errors.append(f"could not load {request.url}: {request.failure}")


def _check_host(view: View, url: str) -> None:
    if not url.startswith((view.base, view.base.replace("http", "ws", 1), "data:", "blob:")):
        view.errors.append(f"request to another host: {url}")
