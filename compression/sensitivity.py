"""Sensitivity scan: how accuracy falls as one layer at a time is pruned by magnitude.

Every point prunes one layer of the pristine model (Han et al. 2015, arXiv 1506.02626, figure 6; Li
et al. 2017, arXiv 1608.08710) and counts correct answers on the same images. Engines in
`scan_engine.py` do the counting, on private copies: the caller's model is only read. Left out:
layers pruned together, whose drops do not add up.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial

from torch import Tensor, nn

from compression.evaluation import check_labelled, wilson_interval
from compression.inference import device_of, predict_logits, resolved_precision
from compression.inputs import InputError, choice, real, shown, whole
from compression.resnet9 import ResNet9, prunable_layers
from compression.scan_cache import PointKey, ScanCache, content_digest
from compression.scan_engine import Engine, FastEngine, PlainEngine

DEFAULT_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
DENSE = "dense"
COARSE_IMAGES = 64  # enough for a first, rough look at every point
_MAX_LEVELS = 100

EngineFactory = Callable[..., Engine]  # (model, images, labels, precision) -> Engine
_RESULTS = ScanCache()


@dataclass(frozen=True)
class SensitivityPoint:
    """Accuracy with `layer` pruned to `sparsity`, on `total` images; low..high is 95 %'s interval.

    All but layer and the counts are fractions, 0..1.
    """

    layer: str
    sparsity: float
    accuracy: float
    correct: int
    total: int
    low: float
    high: float

    @classmethod
    def counted(cls, layer: str, sparsity: float, correct: int, total: int) -> "SensitivityPoint":
        """The point that so many correct answers make."""
        low, high = wilson_interval(correct, total)
        return cls(layer, sparsity, correct / total, correct, total, low, high)


def results_cache() -> ScanCache:
    """The process's own cache of counted points, which `scan` uses unless given another."""
    return _RESULTS


def scan(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    levels: Sequence[float] = DEFAULT_LEVELS,
    layers: Sequence[str] | None = None,
    precision: str = "auto",
    coarse_images: int | None = None,
    exhaustive: bool = False,
    cache_mib: int = 512,
    engine: EngineFactory | None = None,
    cache: ScanCache | None = _RESULTS,
) -> Iterator[SensitivityPoint]:
    """Points of (N, H, W, 3) uint8 images, (N,) int64 labels; layers in the model's order, each
    from its highest level down, as they are computed. The model stays as it is, bit for bit.

    levels: sparsities in 0..1, all different, at most 100, in any order. layers: names as in
    `prunable_layers` (default: all). precision: `float32`, `bfloat16` (where the hardware has it),
    or `auto` (bfloat16 where the hardware has it; what the cache has in float32 serves too).
    coarse_images: first yield every point on so
    many images, then again as more are counted (their number is each point's `total`; a later point
    of the same layer and sparsity replaces the earlier one); None: each point once, on all images.
    exhaustive: run every image at every point, in place of those alone whose answer is in doubt
    (see `scan_screen.py`). cache_mib: the most that cached activations may take. engine: what
    counts, in place of the fast engine for ResNet-9 and the plain one for other models. cache:
    where counted points are kept; None keeps none. Points found there come first.
    Raises InputError, at the call, for each of these that is out of range or of the wrong type.
    """
    check_labelled(images, labels)
    scanned = _Scan(
        model,
        images,
        labels,
        levels=_checked_levels(levels),
        layers=_checked_layers(model, layers),
        precision=resolved_precision(precision, device_of(model)),
        any_precision=precision == "auto",
        exhaustive=exhaustive,
        cache=cache,
    )
    coarse = None
    if coarse_images is not None:
        coarse = min(whole("coarse_images", coarse_images, 1, 10**6, "images"), len(images))
    cache_mib = whole("cache_mib", cache_mib, 1, 2**20, "MiB")
    if engine is None and isinstance(model, ResNet9):
        engine = partial(
            FastEngine, layers=scanned.layers, exhaustive=exhaustive, cache_mib=cache_mib
        )
    return scanned.points(engine or PlainEngine, coarse)


class _Scan:
    """One scan: what is asked for, and what the cache knows of it already."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        levels: tuple[float, ...],
        layers: tuple[str, ...],
        precision: str,
        any_precision: bool,
        exhaustive: bool,
        cache: ScanCache | None,
    ) -> None:
        self._subject = (model, images, labels)
        self._total, self._precision, self._exhaustive = len(labels), precision, exhaustive
        self._looked_up = (precision, "float32") if any_precision else (precision,)
        self.levels, self.layers, self._cache = levels, layers, cache
        self._content = content_digest(*self._subject) if cache is not None else ""

    def _key(self, layer: str, level: float, precision: str | None = None) -> PointKey:
        chosen = precision or self._precision
        return PointKey(self._content, chosen, self._exhaustive, layer, level)

    def _known(self, layer: str, level: float) -> int | None:
        """What the cache has of a point: in the scan's precision or, if any will do, float32's."""
        if self._cache is None:
            return None
        found = (self._cache.get(self._key(layer, level, each)) for each in self._looked_up)
        return next((count for count in found if count is not None), None)

    def points(self, engine: EngineFactory, coarse: int | None) -> Iterator[SensitivityPoint]:
        """The points that are known, then the others as they are counted."""
        open_levels: dict[str, list[float]] = {layer: [] for layer in self.layers}
        for layer in self.layers:
            for level in self.levels:
                known = self._known(layer, level)
                if known is None:
                    open_levels[layer].append(level)
                else:
                    yield SensitivityPoint.counted(layer, level, known, self._total)
        work = {layer: left for layer, left in open_levels.items() if left}
        if work:
            yield from self._counted(engine(*self._subject, self._precision), work, coarse)

    def _counted(
        self, engine: Engine, work: dict[str, list[float]], coarse: int | None
    ) -> Iterator[SensitivityPoint]:
        tally = {(layer, level): 0 for layer, left in work.items() for level in left}
        for rows in engine.blocks(coarse):
            for layer, left in work.items():
                for level, correct in engine.count(layer, left, rows):
                    tally[layer, level] += correct
                    point = SensitivityPoint.counted(layer, level, tally[layer, level], rows.stop)
                    if rows.stop == self._total and self._cache is not None:
                        self._cache.put(self._key(layer, level), point.correct)
                    if rows.stop == self._total or coarse is not None:
                        yield point


def _checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """The levels, highest first; InputError unless they are different numbers in 0..1."""
    expected = f"levels must be a list of 1 to {_MAX_LEVELS} numbers from 0 to 1"
    if isinstance(levels, str) or not isinstance(levels, Iterable):
        raise InputError(f"{expected}, got {shown(levels)}.")
    checked = [real("level", level, 0, 1) for level in levels]
    if not 1 <= len(checked) <= _MAX_LEVELS:
        raise InputError(f"{expected}, got {len(checked)}.")
    for level in checked:
        if checked.count(level) > 1:
            raise InputError(
                f"levels must be different, got {level:g} {checked.count(level)} times."
            )
    return tuple(sorted(checked, reverse=True))


def _checked_layers(model: nn.Module, layers: Sequence[str] | None) -> tuple[str, ...]:
    """The layers in the model's order; InputError for none, an unknown one, or one named twice."""
    known = list(prunable_layers(model))
    if layers is None:
        return tuple(known)
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        raise InputError(f"layers must be a list of layer names, got {shown(layers)}.")
    asked = [choice("layer", layer, known) for layer in layers]
    if not asked:
        raise InputError(f"layers must name at least one of {', '.join(known)}, got none.")
    for layer in asked:
        if asked.count(layer) > 1:
            raise InputError(f"layers must be different, got {layer} {asked.count(layer)} times.")
    return tuple(layer for layer in known if layer in asked)


def dense_point(
    model: nn.Module, images: Tensor, labels: Tensor, *, precision: str = "auto"
) -> SensitivityPoint:
    """The point of the unpruned model, named `dense`, at sparsity 0: a scan's line of reference."""
    check_labelled(images, labels)
    logits = predict_logits(model, images, precision=precision)
    correct = int((logits.argmax(1) == labels.cpu()).sum())
    return SensitivityPoint.counted(DENSE, 0.0, correct, len(labels))


def tolerated_accuracy(dense_accuracy: float, max_drop: float) -> float:
    """The accuracy at a tolerated drop below the dense one, all fractions; never below 0."""
    dense = real("dense_accuracy", dense_accuracy, 0, 1)
    return max(0.0, dense - real("max_drop", max_drop, 0, 1))


def latest(points: Iterable[SensitivityPoint]) -> list[SensitivityPoint]:
    """The last point of each layer and sparsity; layers as they came, sparsities ascending."""
    by_place = {(point.layer, point.sparsity): point for point in points}
    order = {layer: k for k, (layer, _) in reversed(list(enumerate(by_place)))}
    return sorted(by_place.values(), key=lambda point: (order[point.layer], point.sparsity))


def suggest_sparsities(
    points: Iterable[SensitivityPoint], dense_accuracy: float, max_drop: float
) -> dict[str, float]:
    """Layer -> the largest scanned sparsity at which it, and each one below, loses at most
    `max_drop` of accuracy; 0 where none does. Fractions; drops of several layers add up.

    Only scanned sparsities are chosen, nothing between them. Raises InputError for a drop or an
    accuracy outside 0..1.
    """
    # A drop of exactly max_drop is tolerated, whatever the last bit of the difference says.
    line = tolerated_accuracy(dense_accuracy, max_drop) - 1e-9
    chosen: dict[str, float] = {}
    fallen: set[str] = set()
    for point in latest(points):
        chosen.setdefault(point.layer, 0.0)
        if point.accuracy < line:
            fallen.add(point.layer)
        elif point.layer not in fallen:
            chosen[point.layer] = point.sparsity
    return chosen


def scan_csv(points: Iterable[SensitivityPoint]) -> str:
    """The latest points as CSV, a header and a row each, columns as in SensitivityPoint."""
    text = io.StringIO()
    names = [field.name for field in fields(SensitivityPoint)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(point) for point in latest(points))
    return text.getvalue()
