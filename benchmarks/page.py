"""The page as a visitor meets it: its start, a slider's move to the screen, a click's answer.

Starts are timed in turn with a bare gradio page, after one start of each that is not timed (the
files are then in the system's cache, and compiled). Moves and clicks happen in Chromium on the same
machine, which shares its cores with the page.
"""

from collections.abc import Iterator
from typing import Any

from benchmarks.chromium import browser_page, last_wins, prune_seconds, slider_moves
from benchmarks.limits import Rates
from benchmarks.page_server import APP, BARE, running
from benchmarks.pairs import Timed, compared, say
from benchmarks.results import Figure, Row, Spread

STARTS, MOVES, SWEEPS = 5, 120, 10
SLIDER, AREA = "d: unit of the grid (pixels)", "#gridmask-triptych"
PRESETS = (50, 70, 90)


def run(quick: bool, rates: Rates) -> Iterator[Row]:
    """Starts, then what needs a browser; without one those figures say why they are missing."""
    yield from _starts(2 if quick else STARTS)
    try:
        yield from _in_browser(quick)
    except RuntimeError as error:
        say(f"  {error}")
        yield Figure("page", "moves and clicks in a browser", None, "s", note=str(error))


def _starts(rounds: int) -> Iterator[Row]:
    ours, bare = Timed("the explorer's page"), Timed("a bare gradio page")
    waits: list[float] = []
    for turn in range(-1, rounds):
        with running(APP) as server:
            first, ready = server.answer_s, server.ready_s()
        with running(BARE) as server:
            other = server.answer_s
        say(
            f"  start {turn + 1} of {rounds}: {first:.2f} s, ready at {ready:.2f} s, "
            f"bare {other:.2f} s"
        )
        if turn >= 0:
            ours.seconds.append(first)
            bare.seconds.append(other)
            waits.append(ready - first)
    spread = Spread.of(ours.seconds)
    yield compared(
        "page", "start to the first answered page", ours, bare,
        aim="at most 4 s", holds=spread.median <= 4,
        limit_s=Spread.of(bare.seconds).median, limit_from="the bare page's own start",
    )  # fmt: skip
    yield _figure("first page to ready for a first scan", waits, 3)


def _figure(name: str, seconds: list[float], most: float, note: str = "") -> Figure:
    """The median of some times with their spread, beside the most that they may be."""
    spread = Spread.of(seconds)
    told = f"{spread.low:.2f} to {spread.high:.2f} s, {len(seconds)} times"
    return Figure(
        "page", name, spread.median, "s", f"at most {most:g} s", spread.median <= most,
        f"{told}; {note}" if note else told,
    )  # fmt: skip


def _in_browser(quick: bool) -> Iterator[Row]:
    moves, sweeps = (20, 2) if quick else (MOVES, SWEEPS)
    with browser_page() as page, running(APP) as app, running(BARE) as bare:
        page.goto(bare.url)
        page.locator("#picture img").wait_for()
        slider_moves(page, "d", "#picture", 5, seed=1)
        bare_moves = slider_moves(page, "d", "#picture", moves)
        page.goto(app.url)
        page.locator("#model-line").get_by_text("parameters").wait_for()
        page.locator(f"{AREA} figure").nth(2).wait_for()
        page.wait_for_timeout(2000)  # the other tabs draw their first figures meanwhile
        slider_moves(page, SLIDER, AREA, 5, seed=1)
        our_moves = slider_moves(page, SLIDER, AREA, moves)
        say(f"  {moves} moves: median {1000 * Spread.of(our_moves).median:.0f} ms")
        yield from _moves(our_moves, bare_moves)
        won = sum(last_wins(page, SLIDER, AREA, seed) for seed in range(sweeps))
        yield Figure(
            "page", "quick sweeps that end on the last position", won, f"of {sweeps}",
            "all", won == sweeps, "30 positions each, 8 ms apart",
        )  # fmt: skip
        yield from _clicks(page, 1 if quick else 2)


def _moves(ours: list[float], bare: list[float]) -> Iterator[Figure]:
    within = 100 * sum(second <= 0.1 for second in ours) / len(ours)
    yield Figure(
        "page", "slider moves on screen within 100 ms", within, "%", "at least 95 %",
        within >= 95, f"{len(ours)} moves; {_milliseconds(ours)}; a frame takes 17 ms",
    )  # fmt: skip
    yield Figure(
        "page", "the same on the bare page", 100 * sum(s <= 0.1 for s in bare) / len(bare), "%",
        note=_milliseconds(bare),
    )  # fmt: skip


def _milliseconds(seconds: list[float]) -> str:
    """Median, 95th percentile and greatest of some times."""
    ordered = sorted(1000 * second for second in seconds)
    late = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"median {ordered[len(ordered) // 2]:.0f}, 95th percentile {late:.0f}, " + (
        f"greatest {ordered[-1]:.0f} ms"
    )


def _clicks(page: Any, rounds: int) -> Iterator[Figure]:
    page.get_by_role("tab", name="Prune", exact=True).click()
    times = [prune_seconds(page, percent) for _ in range(rounds) for percent in PRESETS]
    note = f"the first, with what it loads, {times[0]:.2f} s; 2,000 images"
    yield _figure("click on a prune preset to its accuracy", times, 5, note)
