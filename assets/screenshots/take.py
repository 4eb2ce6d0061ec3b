"""Take the README's pictures anew: `python assets/screenshots/take.py [FOLDER]`.

Starts the page on the bundled sample as a visitor finds it, goes through the tabs in Debian's
Chromium, and writes one picture of each, 1,280 pixels wide. Takes about two minutes.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).resolve().parent
START_SECONDS, SETTLED_SECONDS = 120, 3
WIDTH, HEIGHT = 1280, 900


def main(folder: Path) -> None:
    """Start the page, and take the pictures."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", port, "--source", "sample"],
        cwd=HERE.parent.parent,
        env=os.environ | {"GRADIO_ANALYTICS_ENABLED": "0"},
        stdout=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}/"
        _wait_for(url)
        with sync_playwright() as playwright:
            found = shutil.which("chromium") or shutil.which("chromium-browser")
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.set_default_timeout(120_000)
            page.goto(url)
            _walk(page, folder)
            browser.close()
    finally:
        process.terminate()
        process.wait(timeout=30)


def _walk(page: Page, folder: Path) -> None:
    """As a visitor goes: prune by the scan, quantize that, compare."""
    page.locator("#gridmask-gallery img").first.wait_for()
    page.locator("#model-line").get_by_text("parameters").wait_for()
    _picture(page, folder, "gridmask")
    _open(page, "Sensitivity")
    page.locator("#scan-table tbody tr").first.wait_for()
    _picture(page, folder, "sensitivity")
    _open(page, "Prune")
    page.get_by_role("button", name="Fill from the scan and prune").click()
    page.locator("#prune-status").get_by_text("Pruned.").wait_for()
    page.get_by_role("button", name="Recalibrate batch norm").first.click()
    page.locator("#prune-status").get_by_text("Recalibrated:").wait_for()
    _picture(page, folder, "prune")
    _open(page, "Quantize")
    page.get_by_role("button", name="Quantize", exact=True).click()
    page.locator("#quantize-status").get_by_text("Quantized:").wait_for()
    page.get_by_role("button", name="Make the file").click()
    page.get_by_role("button", name="Download the file (").wait_for()
    _picture(page, folder, "quantize")
    _open(page, "Compare")
    page.locator("#compare-table tbody tr").last.get_by_text("4 bits").first.wait_for()
    _picture(page, folder, "compare")


def _open(page: Page, tab: str) -> None:
    page.get_by_role("tab", name=tab).first.click()


def _picture(page: Page, folder: Path, name: str) -> None:
    time.sleep(SETTLED_SECONDS)  # figures are drawn a moment after their data came
    page.evaluate("window.scrollTo(0, 0)")  # for what sticks to the window
    page.screenshot(path=folder / f"{name}.png", full_page=True)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
