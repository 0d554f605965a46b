"""The real page: `fa dashboard` as a process, and Debian's Chromium looking at it."""

import os
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

FLAGS: Final = (
    "--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
START: Final = "import typer; from fa_core.cli.dashboard import dashboard; typer.run(dashboard)"
"""`fa dashboard` alone: the other commands take seconds to import."""

STARTS_WITHIN: Final = 300.0
GUARD: Final = 300_000
"""Milliseconds after which a page that does not come is given up, on however busy a machine."""

UNSEEN_MS: Final = 30_000
"""Milliseconds after which a run that nobody saw begin is taken to be over: what it drew is there, or the
test that looks for it fails."""

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
"""Makes `window.ran` true once the script has begun and ended again."""

IDLE: Final = '[data-testid="stApp"][data-test-script-state="notRunning"]'


@contextmanager
def serving(store: Path | str, *more: str, log: Path | None = None) -> Iterator[str]:
    """Yield the address of a dashboard over a store."""
    port = _free_port()
    command = [sys.executable, "-c", START, "--store", str(store), "--port", str(port), *more]
    with open(log or "/dev/null", "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(STARTS_WITHIN)


def _free_port() -> int:
    """Return a free port that no connection is given while the server starts: those are from 32768 on."""
    for port in range(20_000 + os.getpid() % 10_000, 32_768):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


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
    expect.set_options(timeout=GUARD)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS), timeout=GUARD)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class View:
    """A page in a browser, and everything that its console said that it should not have."""

    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Open a path and wait until everything is drawn."""
        self.page.goto(self.base + path)
        self.settle()

    def act(self, do: Callable[[], object]) -> None:
        """Do something that makes the page run again, and wait until it has."""
        self.page.evaluate(RAN)
        do()
        # A run that is over before the browser draws once is seen neither to begin nor to end.
        with suppress(PlaywrightTimeout):
            self.page.wait_for_function("window.ran", timeout=UNSEEN_MS)
        self.settle()

    def choose(self, box: Locator, which: int = -1) -> bool:
        """Choose another option of a select box, the last one or one by its place; return whether there is one."""
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
        """Click the last button of this name and return the file that comes; a click that hits a page while it
        is drawn anew goes nowhere, and is made again."""
        button = self.page.get_by_role("button", name=name, exact=False).last
        for patience in (UNSEEN_MS, UNSEEN_MS, GUARD):
            self.settle()
            with suppress(PlaywrightTimeout):
                with self.page.expect_download(timeout=patience) as waiting:
                    button.click()
                return Path(waiting.value.path())
        raise AssertionError(f"nothing was downloaded from {name}")

    def settle(self) -> None:
        """Wait until the script has ended and no placeholder is left."""
        self.page.wait_for_selector("h1.uh-title")
        self.page.wait_for_selector(IDLE)
        self.page.wait_for_function("document.querySelectorAll('[data-testid=stSkeleton]').length === 0")
        self.page.wait_for_function("document.querySelectorAll('[data-stale=true]').length === 0")


@contextmanager
def viewing(browser: Browser, base: str, width: int = 1280, theme: str = "light") -> Iterator[View]:
    """Yield a fresh visitor's page of a width and a theme."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(GUARD)
    view = View(page, base)

    def heard(kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            view.complaints.append(text)

    page.on("console", lambda message: heard(message.type, message.text))
    page.on("pageerror", lambda error: view.complaints.append(str(error)))
    page.on("requestfailed", lambda request: _failed(view, request))
    page.on("request", lambda request: _asked(view, request.url))
    try:
        yield view
    finally:
        context.close()


def _failed(view: View, request: Request) -> None:
    if request.failure != "net::ERR_ABORTED":  # what a page still loads when it is left, and a download
        view.complaints.append(f"could not load {request.url}: {request.failure}")


def _asked(view: View, url: str) -> None:
    if not url.startswith((view.base, view.base.replace("http", "ws", 1), "data:", "blob:")):
        view.complaints.append(f"asked elsewhere: {url}")
