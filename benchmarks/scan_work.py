"""What the scan's benchmark runs: a scan by ours and by the loops, and what fresh processes do."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch.utils.data import DataLoader

from benchmarks.peers.scan import picture_loader, scan_loop, tensor_loader
from benchmarks.subjects import images_of, shipped_model
from compression.data import ImageSet
from compression.resnet9 import ResNet9, prunable_layers
from compression.sensitivity import COARSE_IMAGES, DEFAULT_LEVELS, scan

PICTURES, TENSORS = "loop over a DataLoader", "loop over prepared tensors"
FAST, EXACT = "default mode", "float32"
PRECISION = {FAST: "auto", EXACT: "float32"}
Counts = dict[tuple[str, float], int]


@dataclass(frozen=True)
class Setting:
    """One scan: whose layers, at which levels, on which images."""

    model: ResNet9
    data: ImageSet
    levels: tuple[float, ...]
    layers: tuple[str, ...]

    @classmethod
    def of(cls, quick: bool, images: int = 1000) -> "Setting":
        """The scan of the aim: 9 layers x 9 levels, 1,000 images; a corner of it when quick."""
        model = shipped_model()
        layers = tuple(prunable_layers(model))
        if quick:
            return cls(model, images_of("validation", 100), (0.5, 0.7, 0.9), layers[-3:])
        return cls(model, images_of("validation", images), DEFAULT_LEVELS, layers)

    @property
    def points(self) -> int:
        return len(self.levels) * len(self.layers)

    def ours(self, name: str) -> Counts:
        """Our counts, with nothing remembered from an earlier scan."""
        points = scan(
            self.model,
            self.data.images,
            self.data.labels,
            levels=self.levels,
            layers=self.layers,
            precision=PRECISION[name],
            cache=None,
        )
        return {(point.layer, point.sparsity): point.correct for point in points}

    def loader(self, name: str) -> DataLoader:
        """What one of the two loops runs over."""
        make = picture_loader if name == PICTURES else tensor_loader
        return make(self.data.images, self.data.labels)

    def loop(self, loader: DataLoader, level: float, layers: Sequence[str] = ()) -> Counts:
        """The counts of one of the two loops at one level."""
        return scan_loop(self.model, loader, [level], layers or self.layers)


def first_points(quick: bool) -> tuple[float, float]:
    """Seconds from the call of a streaming scan to its first point, and to the last of the rough
    points; to be called in a fresh process."""
    setting = Setting.of(quick)
    started = time.perf_counter()
    points = scan(
        setting.model,
        setting.data.images,
        setting.data.labels,
        levels=setting.levels,
        layers=setting.layers,
        coarse_images=COARSE_IMAGES,
        cache=None,
    )
    next(points)
    first = time.perf_counter() - started
    for _ in range(setting.points - 1):
        next(points)
    return first, time.perf_counter() - started


def prepare(name: str, quick: bool) -> Callable[[], object]:
    """The work whose peak memory is measured, its inputs loaded."""
    if name.startswith("one level, "):
        setting = Setting.of(quick)
        data = images_of("validation", int(name.split()[2]))
        larger = Setting(setting.model, data, (0.5,), setting.layers)
        return lambda: larger.ours(EXACT)
    setting = Setting.of(quick)
    if name in PRECISION:
        return lambda: setting.ours(name)
    loader = setting.loader(name)
    return lambda: setting.loop(loader, setting.levels[0], setting.layers[:1])
