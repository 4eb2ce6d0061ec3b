"""What a model is worth: top-1 accuracy with its interval, the per-class report, MACs, parameters.

The interval is Wilson's (1927), which stays inside 0..1 and is right for small numbers too.
Precision, recall and F1 are scikit-learn's. MACs are thop's count for one image: multiply-
accumulates, which thop and the course report call FLOPs. Accuracies are fractions, 0 to 1.
"""

import copy
import time
import warnings
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from compression.data import CIFAR10_CLASSES
from compression.inference import check_images, device_of, predict_logits, resolved_precision
from compression.inputs import InputError
from compression.latency import Latency, measure_latency, measure_latency_by_round

__all__ = [
    "Averages",
    "ClassReport",
    "Complexity",
    "Evaluation",
    "Latency",
    "check_labelled",
    "evaluate",
    "measure_complexity",
    "measure_latency",
    "measure_latency_by_round",
    "wilson_interval",
]

_Z95 = 1.959963984540054  # the normal distribution holds 95 % within this many standard deviations
_CLASSES = len(CIFAR10_CLASSES)


@dataclass(frozen=True)
class ClassReport:
    """One class: precision, recall and F1 as fractions; support is its number of images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Averages:
    """Precision, recall and F1 over the classes, as fractions."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """What one model did on one set of images.

    accuracy lies in the 95 % interval low..high, all fractions; loss is the mean cross-entropy;
    macro averages the classes evenly, weighted by their support (a class that is neither among the
    labels nor among the predictions counts in neither); confusion: (10, 10) int64, row = true
    class; predictions: (N,) int64; precision: what it was computed in.
    """

    accuracy: float
    low: float
    high: float
    correct: int
    total: int
    loss: float
    classes: tuple[str, ...]
    per_class: tuple[ClassReport, ...]
    macro: Averages
    weighted: Averages
    confusion: Tensor = field(repr=False, compare=False)
    predictions: Tensor = field(repr=False, compare=False)
    inference_seconds: float
    precision: str


@dataclass(frozen=True)
class Complexity:
    """Cost of one image: MACs (thop's FLOPs), and how many parameters there are, and not zero."""

    macs: int
    parameters: int
    nonzero_parameters: int


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    precision: str = "float32",
    batch_size: int | None = None,
) -> Evaluation:
    """Run the model over (N, H, W, 3) uint8 images with (N,) int64 labels in 0..9.

    precision and batch_size as in `predict_logits`; the model stays as it is. Raises InputError for
    images or labels of another type, shape, length or range, and a model of other than 10 classes.
    """
    check_labelled(images, labels)
    started = time.perf_counter()
    logits = predict_logits(model, images, precision=precision, batch_size=batch_size)
    seconds = time.perf_counter() - started
    if logits.shape != (len(labels), _CLASSES):
        raise InputError(
            f"model must give {_CLASSES} logits an image, got shape {tuple(logits.shape)} "
            f"for {len(labels)} images."
        )
    labels = labels.cpu()
    predictions = logits.argmax(1)
    confusion = confusion_matrix(labels, predictions)
    correct, total = int(confusion.trace()), len(labels)
    low, high = wilson_interval(correct, total)
    per_class, macro, weighted = class_report(labels, predictions)
    return Evaluation(
        accuracy=correct / total,
        low=low,
        high=high,
        correct=correct,
        total=total,
        loss=functional.cross_entropy(logits, labels).item(),
        classes=CIFAR10_CLASSES,
        per_class=per_class,
        macro=macro,
        weighted=weighted,
        confusion=confusion,
        predictions=predictions,
        inference_seconds=seconds,
        precision=resolved_precision(precision, device_of(model)),
    )


def check_labelled(images: Tensor, labels: Tensor) -> None:
    """Raise InputError unless the images are usable and the labels are theirs, int64 in 0..9."""
    check_images(images)
    expected = f"labels must be an int64 tensor of shape ({len(images)},)"
    if not isinstance(labels, Tensor):
        raise InputError(f"{expected}, got {type(labels).__name__}.")
    if labels.dtype != torch.int64 or labels.shape != (len(images),):
        dtype = str(labels.dtype).removeprefix("torch.")
        raise InputError(f"{expected}, got {dtype} {tuple(labels.shape)}.")
    low, high = (int(edge) for edge in labels.aminmax())
    if low < 0 or high >= _CLASSES:
        raise InputError(f"labels must be from 0 to {_CLASSES - 1}, got {low} to {high}.")


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share of `correct` among `total` images, both as fractions."""
    if not 0 <= correct <= total or total < 1:
        raise InputError(
            f"correct must be from 0 to total, and total at least 1, got {correct} of {total}."
        )
    share, z2 = correct / total, _Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    reach = _Z95 / (1 + z2 / total) * sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    low = 0.0 if correct == 0 else centre - reach
    high = 1.0 if correct == total else centre + reach
    return low, high


def confusion_matrix(labels: Tensor, predictions: Tensor) -> Tensor:
    """(N,) and (N,) int64 in 0..9 -> (10, 10) int64 counts, row = true class."""
    cells = torch.bincount(labels * _CLASSES + predictions, minlength=_CLASSES**2)
    return cells.view(_CLASSES, _CLASSES)


def class_report(
    labels: Tensor, predictions: Tensor
) -> tuple[tuple[ClassReport, ...], Averages, Averages]:
    """(N,) and (N,) int64 in 0..9 -> a report a class, the macro and the weighted averages.

    By scikit-learn; a ratio over nothing is 0, and the averages are over the classes that occur.
    """
    from sklearn.metrics import precision_recall_fscore_support  # noqa: PLC0415 (slow to import)

    truth, said = labels.numpy(), predictions.numpy()
    options: dict[str, Any] = {"zero_division": 0}
    columns: Any = precision_recall_fscore_support(truth, said, labels=range(_CLASSES), **options)
    per_class = tuple(
        ClassReport(name, float(precision), float(recall), float(f1), int(support))
        for name, precision, recall, f1, support in zip(CIFAR10_CLASSES, *columns, strict=True)
    )
    macro, weighted = (
        Averages(*(float(value) for value in averages[:3]))
        for averages in (
            precision_recall_fscore_support(truth, said, average=kind, **options)
            for kind in ("macro", "weighted")
        )
    )
    return per_class, macro, weighted


def measure_complexity(model: nn.Module) -> Complexity:
    """MACs of one 32 x 32 image by thop, on a copy (thop leaves buffers behind), and parameters.

    thop counts a zero weight like any other: pruning alone does not change the MACs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # thop still asks distutils
        from thop import profile  # noqa: PLC0415 (only this function needs it)

    copied = copy.deepcopy(model).cpu().float().eval()
    with torch.no_grad():
        counts = profile(copied, inputs=(torch.zeros(1, 3, 32, 32),), verbose=False)
    return Complexity(
        macs=int(counts[0]),
        parameters=sum(p.numel() for p in model.parameters()),
        nonzero_parameters=sum(int(torch.count_nonzero(p)) for p in model.parameters()),
    )
