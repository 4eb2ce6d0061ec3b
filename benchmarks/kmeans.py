"""k-means on a line beside kmeans1d (exact), scikit-learn and fast-pytorch-kmeans.

All get the same weights in turn: the largest layer of the shipped checkpoint. What each ends at is
compared with the optimum by its squared error, on that layer and on many other shapes of weights.
"""

from collections.abc import Iterator

import numpy as np

from benchmarks import fresh
from benchmarks.kmeans_work import (
    BITS,
    DISTRIBUTIONS,
    OURS,
    Values,
    cluster,
    draw,
    model_to_quantize,
    weights,
)
from benchmarks.limits import Rates
from benchmarks.pairs import Timed, Work, compared, in_turn, say
from benchmarks.peers.clustering import METHODS, is_installed
from benchmarks.results import Comparison, Figure, Growth, Row
from compression.kmeans import squared_error
from compression.quantization import quantize
from compression.resnet9 import prunable_layers

AIMS = {"kmeans1d": 50, "scikit-learn": 5, "fast-pytorch-kmeans": None}
ROUNDS, MODEL_ROUNDS = 5, 5
ERROR_VALUES, ERROR_BITS = 32_768, (2, 4, 8)
EXACT_GROWTH = 131_072  # the exact method is run for at most so many values in the plot
GROWTH = (4_096, 32_768, 131_072, 589_824)


def run(quick: bool, rates: Rates) -> Iterator[Row]:
    """Everything about k-means; packages that are not installed are left out, saying so."""
    installed = [name for name in METHODS if is_installed(name)]
    for name in METHODS.keys() - set(installed):
        say(f"  {name} is not installed: pip install -r benchmarks/requirements.txt")
    yield from _speed(installed, quick, rates)
    yield from _models(quick, rates)
    if "kmeans1d" in installed:
        for distribution in DISTRIBUTIONS:
            yield _error_ratio(distribution, installed, quick)
    yield _growth(installed, quick)


def _speed(peers: list[str], quick: bool, rates: Rates) -> Iterator[Comparison]:
    values, bits = weights(quick), 4 if quick else BITS
    for name in (OURS, *peers):
        cluster(name, values[:1000], 4)  # imports, and threads started
    works = [Work(n, lambda _, n=n: cluster(n, values, 2**bits)) for n in (OURS, *peers)]
    ours, *others = in_turn(works, 2 if quick else ROUNDS, "k-means")
    best = min(squared_error(values, *record.answers[0]) for record in (ours, *others))
    held = {n: fresh.peak_mib("benchmarks.kmeans_work", n, quick) for n in (OURS, *peers)}
    for record in others:
        yield compared(
            "kmeans",
            f"{len(values):,} weights at {bits} bits",
            ours,
            record,
            at_least=AIMS[record.name],
            ours_mib=held[OURS],
            peer_mib=held[record.name],
            limit_s=rates.traffic_seconds(12 * len(values)),
            limit_from="weights read once, labels written once",
            agreement=_errors(values, best, ours, record),
        )


def _errors(values: Values, best: float, *records: Timed) -> str:
    """The squared error of each over the least of all, in words."""
    ratios = [
        f"{record.name} {squared_error(values, *record.answers[-1]) / best:.5g} times"
        for record in records
    ]
    return f"squared error over the least: {', '.join(ratios)}"


def _models(quick: bool, rates: Rates) -> Iterator[Comparison]:
    """Whole models at 8 bits, without a peer."""
    aims = {"resnet9-s": (1.5, None), "resnet9-t2g3": (15.0, 1024.0)}
    for preset, (seconds, mib) in list(aims.items())[: 1 if quick else None]:
        model = model_to_quantize(preset)
        work = Work("quantize", lambda _, model=model: quantize(model, BITS))
        (timed,) = in_turn([work], 2 if quick else MODEL_ROUNDS, preset)
        held = fresh.peak_mib("benchmarks.kmeans_work", preset, quick)
        count = sum(layer.weight.numel() for layer in prunable_layers(model).values())
        aim = f"under {seconds:g} s" + (f" and {mib / 1024:g} GiB" if mib else "")
        row = compared(
            "kmeans",
            f"all {count:,} weights of {preset} at {BITS} bits",
            timed,
            aim=aim,
            holds=float(np.median(timed.seconds)) < seconds and (mib is None or held < mib),
            ours_mib=held,
            limit_s=rates.traffic_seconds(12 * count),
            limit_from="weights read once, labels written once",
        )
        yield row


def _error_ratio(distribution: str, peers: list[str], quick: bool) -> Figure:
    """How far ours is above the optimum at worst, in percent, and the others beside it."""
    values = draw(distribution, 4096 if quick else ERROR_VALUES)
    widths = ERROR_BITS[:2] if quick else ERROR_BITS
    worst: dict[str, list[float]] = {}
    for bits in widths:
        best = squared_error(values, *cluster("kmeans1d", values, 2**bits))
        for name in (OURS, *(peer for peer in peers if peer != "kmeans1d")):
            error = squared_error(values, *cluster(name, values, 2**bits))
            worst.setdefault(name, []).append(excess_percent(error, best))
    others = [
        f"{name} {', '.join(f'{ratio:.3g} %' for ratio in ratios)}"
        for name, ratios in worst.items()
        if name != OURS
    ]
    say(f"  {distribution}: {worst}")
    return Figure(
        "kmeans",
        f"squared error above the optimum, {distribution}",
        max(worst[OURS]),
        "%",
        aim="at most 0.1 %",
        holds=max(worst[OURS]) <= 0.1,
        note=f"the worst of {', '.join(map(str, widths))} bits, {len(values):,} values; "
        f"at those bits {'; '.join(others)}",
    )


def excess_percent(error: float, best: float) -> float:
    """By how many percent `error` is above `best`; 0 where both are nothing but rounding.

    Never below 0: kmeans1d's own sums round too, and its centroids are not float32.
    """
    if best <= 1e-9 and error <= 1e-9:
        return 0.0
    return round(max(0.0, 100 * (error / best - 1)), 5) if best > 0 else float("inf")


def _growth(peers: list[str], quick: bool) -> Growth:
    sizes = (1024, 4096) if quick else GROWTH
    seconds: dict[str, list[float]] = {name: [] for name in (OURS, *peers)}
    for size in sizes:
        values = draw("laplacian", size) * np.float32(0.02)
        names = [n for n in seconds if n != "kmeans1d" or size <= EXACT_GROWTH]
        works = [Work(n, lambda _, n=n, v=values: cluster(n, v, 2**BITS)) for n in names]
        for record in in_turn(works, 1, f"k-means of {size:,}"):
            seconds[record.name].append(record.seconds[0])
    lines = {name: tuple(line) for name, line in seconds.items()}
    x = tuple(float(size) for size in sizes)
    return Growth("kmeans", f"k-means, {BITS} bits", "weights (parameters)", x, lines)
