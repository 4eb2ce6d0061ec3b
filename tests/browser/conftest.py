"""A running page and a Chromium to drive it: skipped without Chromium, but never under CI."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120


@pytest.fixture(scope="session")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page started as a user would start it, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("page") / "log.txt"
    environment = os.environ | {"GRADIO_TEMP_DIR": str(log.parent), "GRADIO_ANALYTICS_ENABLED": "0"}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(port)],
            cwd=ROOT, stdout=output, stderr=output, env=environment,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}/"
            _wait_for(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the page ended at once: {log.read_text()}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"the page did not answer within {START_SECONDS} s: {log.read_text()}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless; a missing one skips, and fails under CI."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        reason = "no Chromium: install the package `chromium` to run the browser tests"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


class Visitor:
    """One visitor's own browser context, with what the page asked for and complained of."""

    def __init__(
        self, browser: Browser, url: str, *, width: int = 1280, dark: bool = False
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(600_000)  # of a slow machine under other tests
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self._note(request.url, url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)
        self.page.locator("#model-line").get_by_text("parameters").wait_for()

    def _note(self, address: str, url: str) -> None:
        if not address.startswith((url, "data:", "blob:", "about:")):
            self.foreign.append(address)

    def open_tab(self, name: str) -> None:
        """Press a tab and wait until it is the chosen one."""
        self.page.get_by_role("tab", name=name, exact=True).click(timeout=20_000)
        self.page.wait_for_function(
            "name => [...document.querySelectorAll('[role=tab][aria-selected=true]')]"
            ".some(tab => tab.textContent.trim() === name)",
            arg=name,
        )

    def card(self, area: str, label: str) -> str:
        """The value of the card with that label, within the area of that id."""
        card = self.page.locator(f"{area} .cx-card", has_text=label).first
        return card.locator(".cx-value").inner_text()


@pytest.fixture
def new_visitor(browser: Browser, page_url: str) -> Iterator:
    """Makes visitors, each in a browser context of its own; all leave at the end."""
    visitors: list[Visitor] = []

    def arrive(**options: object) -> Visitor:
        visitors.append(Visitor(browser, page_url, **options))  # pyright: ignore[reportArgumentType]
        return visitors[-1]

    yield arrive
    for visitor in visitors:
        visitor.context.close()
