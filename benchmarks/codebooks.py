"""What the better optimum buys: accuracy at 8, 4, 3 and 2 bits without any training.

The shipped checkpoint is quantized with our k-means, with fast-pytorch-kmeans (whose start is drawn
at random: two seeds), and with evenly spaced levels, and measured on the 10,000 test images.
A full run writes `assets/results/codebooks-resnet9-s-baseline.json`; `python -m benchmarks --only
codebooks` makes it anew when the checkpoint has changed. Nothing here is chosen by these figures.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.limits import Rates
from benchmarks.pairs import say
from benchmarks.peers.clustering import fast_pytorch, is_installed
from benchmarks.results import Figure, Row, package_versions
from benchmarks.subjects import CHECKPOINT, shipped_model
from compression.data import ImageSet, load_cifar10
from compression.evaluation import evaluate
from compression.hardware import machine_record
from compression.quantization import quantize
from compression.resnet9 import ResNet9, prunable_layers

ASSET = Path(__file__).resolve().parent.parent / "assets" / "results"
FILE = ASSET / f"codebooks-{CHECKPOINT.replace('/', '-')}.json"
COMMAND = "python -m benchmarks --only codebooks"
BITS, SEEDS = (8, 4, 3, 2), (0, 1)
NAMES = {
    "kmeans": "k-means (ours)",
    "fast-pytorch-kmeans": "fast-pytorch-kmeans",
    "linear": "evenly spaced levels",
}


@dataclass(frozen=True)
class CodebookRow:
    """Accuracy of one way to choose the codebooks, a fraction with its 95 % interval; squared_error
    is that of all weights; seed: of a method that draws its start, else None."""

    kind: str
    bits: int
    seed: int | None
    accuracy: float
    low: float
    high: float
    correct: int
    total: int
    squared_error: float


def run(quick: bool, rates: Rates) -> Iterator[Row]:
    """The rows as figures, and in a full run the file."""
    model = shipped_model()
    test = load_cifar10("test").head(200 if quick else 10_000)
    dense = evaluate(model, test.images, test.labels)
    rows = list(rows_of(model, test, BITS[1::2] if quick else BITS, SEEDS[: 1 if quick else None]))
    if not quick:
        write(rows, test, dense.accuracy)
    for row in rows:
        yield Figure(
            "codebooks",
            f"{NAMES[row.kind]}, {row.bits} bits" + ("" if not row.seed else f", seed {row.seed}"),
            100 * row.accuracy,
            "% accuracy",
            note=f"{100 * (row.accuracy - dense.accuracy):+.2f} points of the dense model's "
            f"{dense.accuracy:.2%}; {row.total:,} images; squared error {row.squared_error:.4g}",
        )


def rows_of(
    model: ResNet9, test: ImageSet, widths: tuple[int, ...], seeds: tuple[int, ...]
) -> Iterator[CodebookRow]:
    """Each way at each bit width, measured on the test images."""
    kinds: list[tuple[str, int | None]] = [("kmeans", None)]
    if is_installed("fast-pytorch-kmeans"):
        kinds += [("fast-pytorch-kmeans", seed) for seed in seeds]
    for bits in widths:
        for kind, seed in [*kinds, ("linear", None)]:
            found = quantized(model, bits, kind, seed)
            measured = evaluate(found, test.images, test.labels)
            say(f"  codebooks: {kind}, {bits} bits: {measured.accuracy:.2%}")
            yield CodebookRow(
                kind, bits, seed, measured.accuracy, measured.low, measured.high,
                measured.correct, measured.total, _apart(model, found),
            )  # fmt: skip


def quantized(model: ResNet9, bits: int, kind: str, seed: int | None = None) -> ResNet9:
    """A copy of the model with the weights of every layer replaced by the nearest level."""
    if kind != "fast-pytorch-kmeans":
        found = quantize(model, bits, kind=kind).model
        assert isinstance(found, ResNet9)
        return found
    copied = copy.deepcopy(model)
    for layer in prunable_layers(copied).values():
        flat = layer.weight.detach().flatten().numpy()
        centroids, labels = fast_pytorch(flat, 2**bits, seed or 0)
        layer.weight.data = torch.from_numpy(centroids[labels]).view_as(layer.weight)
    return copied


def _apart(model: ResNet9, other: ResNet9) -> float:
    pairs = zip(prunable_layers(model).values(), prunable_layers(other).values(), strict=True)
    return sum(float((a.weight - b.weight).detach().double().square().sum()) for a, b in pairs)


def write(rows: list[CodebookRow], test: ImageSet, dense: float) -> None:
    """The rows with the command and the machine that made them."""
    content = {
        "command": COMMAND,
        "machine": machine_record(),
        "versions": package_versions(("torch", "fast-pytorch-kmeans")),
        "checkpoint": CHECKPOINT,
        "source": test.source,
        "dense_accuracy": dense,
        "rows": [asdict(row) for row in rows],
    }
    FILE.write_text(json.dumps(content, indent=1) + "\n")
