"""The sensitivity scan beside the loop that courses teach: time, memory, and the same counts.

The two loops run one level of every layer a round, another level each round, and are scaled up to
the whole scan: every one of their points costs the same. Between them they count every point, and
these counts, of the whole unfolded network in float32, are what ours is held against.
"""

from collections.abc import Iterator

import torch

from benchmarks import fresh
from benchmarks.limits import Rates, scan_macs
from benchmarks.pairs import Timed, Work, compared, in_turn
from benchmarks.results import Comparison, Figure, Growth, Row, Spread
from benchmarks.scan_work import EXACT, FAST, PICTURES, TENSORS, Counts, Setting
from benchmarks.subjects import images_of
from compression.hardware import has_bfloat16
from compression.scan_engine import FastEngine
from compression.sensitivity import COARSE_IMAGES

ROUNDS, FIRST_ROUNDS = 5, 5


def run(quick: bool, rates: Rates) -> Iterator[Row]:
    """Everything about the scan."""
    setting = Setting.of(quick)
    timed = _timed(setting, 2 if quick else ROUNDS)
    yield from _comparisons(setting, timed, rates, quick)
    yield from _agreement(setting, timed)
    yield from _first_results(quick)
    yield from _memory(setting, quick)
    yield _growth_with_images(quick)
    yield _growth_with_levels(quick)


def _timed(setting: Setting, rounds: int) -> dict[str, Timed]:
    levels, share = setting.levels, 1 / len(setting.levels)

    def loop(name: str, ahead: int) -> Work:
        loader = setting.loader(name)
        return Work(
            name, lambda turn: setting.loop(loader, levels[(turn + ahead) % len(levels)]), share
        )

    works = [
        Work(FAST, lambda _: setting.ours(FAST)),
        Work(EXACT, lambda _: setting.ours(EXACT)),
        loop(PICTURES, 0),
        loop(TENSORS, rounds),
    ]
    return {record.name: record for record in in_turn(works, rounds, "scan")}


def _comparisons(
    setting: Setting, timed: dict[str, Timed], rates: Rates, quick: bool
) -> Iterator[Comparison]:
    images, levels = len(setting.data), len(setting.levels)
    work = f"scan of {len(setting.layers)} layers x {levels} levels, {images:,} images"
    macs = images * scan_macs(setting.model, levels, setting.layers)
    held = {name: fresh.peak_mib("benchmarks.scan_work", name, quick) for name in timed}
    aims = {(FAST, PICTURES): 10, (EXACT, PICTURES): 6}
    for ours in (FAST, EXACT):
        quickest = "bfloat16" if rates.bfloat16_flops and ours == FAST else "float32"
        for peer in (PICTURES, TENSORS):
            yield compared(
                "scan",
                work,
                timed[ours],
                timed[peer],
                at_least=aims.get((ours, peer)),
                ours_mib=held[ours],
                peer_mib=held[peer],
                limit_s=rates.compute_seconds(macs, quickest),
                limit_from=f"every point from its layer on, in {quickest}; a scan that leaves out "
                "what is settled can be faster",
                note=f"the loop ran one level a round, {levels} times that is reported",
            )


def _agreement(setting: Setting, timed: dict[str, Timed]) -> Iterator[Figure]:
    """Our counts against those of the loops, where these have a point."""
    expected: Counts = {}
    for name in (PICTURES, TENSORS):
        for answer in timed[name].answers:
            expected |= answer
    images = len(setting.data)
    for name in (EXACT, FAST):
        counts = timed[name].answers[-1]
        apart = [abs(counts[place] - expected[place]) for place in expected]
        exact = name == EXACT or not has_bfloat16(torch.device("cpu"))
        allowed = max(1, images // 1000) if exact else 0.005 * images
        yield Figure(
            "scan",
            f"largest difference of a point, {name}",
            100 * max(apart) / images,
            "points of accuracy",
            aim="at most one image in a thousand" if exact else "at most 0.5 points",
            holds=max(apart) <= allowed,
            note=f"{sum(x > 0 for x in apart)} of {len(apart)} points differ from the unfolded "
            f"network in float32; {images:,} images",
        )


def _first_results(quick: bool) -> Iterator[Figure]:
    rounds = 2 if quick else FIRST_ROUNDS
    times = [fresh.call("benchmarks.scan_work", "first_points", quick) for _ in range(rounds)]
    names = ("the first point", f"every point on {COARSE_IMAGES} images")
    for name, seconds in zip(names, zip(*times, strict=True), strict=True):
        spread = Spread.of(seconds)
        yield Figure(
            "scan",
            f"time to {name}",
            spread.median,
            "s",
            aim="at most 2 s",
            holds=spread.median <= 2,
            note=f"{spread.low:.2f} to {spread.high:.2f} s in {len(times)} fresh processes, from "
            "the call on, model and images loaded",
        )


def _memory(setting: Setting, quick: bool) -> Iterator[Figure]:
    """What the kept activations take, and that more images do not take more."""
    for images in (len(setting.data), 10 * len(setting.data)):
        data = images_of("validation", images)
        engine = FastEngine(
            setting.model, data.images, data.labels, "float32", layers=setting.layers
        )
        kept = engine.image_bytes * max(len(rows) for rows in engine.blocks(None)) / 2**20
        name = f"one level, {images} images"
        peak = fresh.peak_mib("benchmarks.scan_work", name, quick)
        yield Figure(
            "scan",
            f"activations kept for {images:,} images",
            kept,
            "MiB",
            aim="at most 512 MiB",
            holds=kept <= 512,
            note=f"the process holds {peak:.0f} MiB at most beyond model and images",
        )


def _growth(title: str, x_label: str, settings: dict[float, Setting]) -> Growth:
    """Seconds of ours and of the loops for each x; of a loop one point is run and scaled."""
    seconds: dict[str, list[float]] = {name: [] for name in (FAST, EXACT, TENSORS, PICTURES)}
    for x, setting in settings.items():
        works = [
            Work(FAST, lambda _, s=setting: s.ours(FAST)),
            Work(EXACT, lambda _, s=setting: s.ours(EXACT)),
            *(_one_point(setting, name) for name in (TENSORS, PICTURES)),
        ]
        for record in in_turn(works, 1, f"{title}, {x:g}"):
            seconds[record.name].append(record.seconds[0])
    lines = {name: tuple(line) for name, line in seconds.items()}
    return Growth("scan", title, x_label, tuple(settings), lines)


def _one_point(setting: Setting, name: str) -> Work:
    loader, first = setting.loader(name), setting.layers[:1]
    return Work(name, lambda _: setting.loop(loader, setting.levels[0], first), 1 / setting.points)


def _growth_with_images(quick: bool) -> Growth:
    counts = (50, 100) if quick else (125, 250, 500, 1000)
    base = Setting.of(quick)
    settings = {
        float(count): Setting(base.model, images_of("validation", count), base.levels, base.layers)
        for count in counts
    }
    return _growth(f"Scan, {len(base.levels)} levels", "images", settings)


def _growth_with_levels(quick: bool) -> Growth:
    counts = (1, 3) if quick else (1, 3, 9, 27)
    base = Setting.of(quick, images=250)
    settings = {
        float(count): Setting(
            base.model,
            base.data,
            tuple((k + 1) / (count + 1) for k in range(count)),
            base.layers,
        )
        for count in counts
    }
    return _growth(f"Scan, {len(base.data)} images", "levels", settings)
