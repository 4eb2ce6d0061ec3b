"""A headless Chromium, and what is timed in it: slider moves, clicks, from the event to the screen.

A time is taken in the page itself: from the input event until the new picture is decoded and a
frame with it has been painted.
"""

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MOVES_LOW, MOVES_HIGH = 3, 40

# Sets the slider, and resolves with milliseconds once `area` shows the picture of that value.
_MOVE = """
([label, area, value]) => new Promise((resolve, reject) => {
  const slider = [...document.querySelectorAll('input[type=range]')]
    .find(input => input.getAttribute('aria-label') === `range slider for ${label}`);
  const place = document.querySelector(area);
  const wanted = new RegExp(`of every ${value} pixels`);
  const started = performance.now();
  const watch = new MutationObserver(async () => {
    if (!wanted.test(place.textContent)) return;
    watch.disconnect();
    await Promise.all([...place.querySelectorAll('img')].map(image => image.decode()));
    requestAnimationFrame(() => {
      const painted = new MessageChannel();
      painted.port1.onmessage = () => resolve(performance.now() - started);
      painted.port2.postMessage(0);
    });
  });
  watch.observe(place, {subtree: true, childList: true, characterData: true, attributes: true});
  setTimeout(() => reject(new Error(`no picture for ${value} within 10 s`)), 10000);
  const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  set.call(slider, value);
  slider.dispatchEvent(new Event('input', {bubbles: true}));
})
"""

# Moves the slider through many values, 8 ms apart, as a hand does.
_SWEEP = """
async ([label, values]) => {
  const slider = [...document.querySelectorAll('input[type=range]')]
    .find(input => input.getAttribute('aria-label') === `range slider for ${label}`);
  const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  for (const value of values) {
    set.call(slider, value);
    slider.dispatchEvent(new Event('input', {bubbles: true}));
    await new Promise(next => setTimeout(next, 8));
  }
}
"""


def executable() -> str | None:
    """Where Chromium is, if it is there."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def browser_page(width: int = 1280, height: int = 900, scale: float = 1) -> Iterator[Any]:
    """A fresh page of a headless Chromium. Raises RuntimeError where it or playwright is absent."""
    path = executable()
    if path is None:
        raise RuntimeError("no Chromium: install the package `chromium`")
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 (may be absent)
    except ImportError as error:
        raise RuntimeError("no playwright: pip install -r benchmarks/requirements.txt") from error
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        viewport: Any = {"width": width, "height": height}
        page = browser.new_page(viewport=viewport, device_scale_factor=scale)
        page.set_default_timeout(120_000)
        yield page
        browser.close()


def slider_moves(page: Any, label: str, area: str, moves: int, seed: int = 0) -> list[float]:
    """Seconds of each of so many moves to random places, one after the other."""
    source, last, times = random.Random(seed), 0, []
    while len(times) < moves:
        value = source.randint(MOVES_LOW, MOVES_HIGH)
        if value != last:
            times.append(page.evaluate(_MOVE, [label, area, value]) / 1000)
            last = value
    return times


def last_wins(page: Any, label: str, area: str, seed: int) -> bool:
    """Whether a quick sweep of 30 positions ends with the picture of the last, and stays there."""
    source = random.Random(seed)
    values = [source.randint(MOVES_LOW, MOVES_HIGH - 1) for _ in range(29)] + [MOVES_HIGH]
    page.evaluate(_SWEEP, [label, values])
    page.wait_for_timeout(1500)
    return f"of every {values[-1]} pixels" in page.locator(area).inner_text()


def prune_seconds(page: Any, percent: int) -> float:
    """From the click on a prune preset to the card of its measured accuracy, in seconds.

    Pruning to another sparsity than the last, so that the card of zeros tells old from new.
    """
    started = time.perf_counter()
    page.get_by_role("button", name=f"Prune {percent} %").click()
    page.wait_for_function(
        """percent => [...document.querySelectorAll('#prune-result .cx-card')].some(card =>
          card.querySelector('.cx-label').textContent === 'Zeros' &&
          card.querySelector('.cx-value').textContent === `${percent}.0%`)""",
        arg=percent,
    )
    return time.perf_counter() - started
