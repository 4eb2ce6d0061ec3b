"""Size against accuracy, measured: our ways to spend bytes beside the usual ones.

Each setting is pruned, quantized, recalibrated and packed, and what the file on disk answers is
counted; no weight is trained. The usual ways are made at several bit widths, and the one best on
validation images is kept, so that they differ from ours in how they spread, not in how well they
were set up.
"""

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from compression.allocation import Allocation, allocate
from compression.allocation_scan import SettingPoint
from compression.allocation_table import setting_table
from compression.budget_fit import FileSizes, fit
from compression.compensation import quantize_compensated
from compression.data import ImageSet
from compression.entropy_quantization import CHEAPEST, DEAREST, Trial, fit_entropy_by_trial
from compression.front_records import COMPENSATED, OURS, PRICED, RIVALS, FrontPoint
from compression.inference import count_correct
from compression.inputs import InputError, whole_field
from compression.packing import load_packed, save_packed
from compression.pruning import prune
from compression.quantization import QuantizedModel, quantize
from compression.recalibration import recalibrate_batch_norm
from compression.resnet9 import ResNet9
from compression.rival_allocations import (
    global_allocation,
    random_allocation,
    uniform_allocation,
)

SMALLEST, LARGEST = 1 / 64, 1 / 5  # of the dense size: where fronts begin and end


@dataclass(frozen=True)
class FrontConfig:
    """sizes: goals in equal ratios from 1/64 to 1/5 of the dense size, by every way;
    randoms: goals drawn at random in that range, for ours alone; recalibration_images: training
    images that batch norm is re-estimated on; compensation_images: the first of those, by which
    rounding errors make up for each other in two more ways; widths: at how many bit widths, those
    predicted to do it least damage, each usual way is tried on the validation images."""

    sizes: int = 12
    randoms: int = 20
    recalibration_images: int = 2000
    compensation_images: int = 512
    widths: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        whole_field(self, "sizes", 1, 1000)
        whole_field(self, "randoms", 0, 1000)
        whole_field(self, "compensation_images", 1, 50_000, "images")
        whole_field(self, "recalibration_images", 1, 50_000, "images")
        whole_field(self, "widths", 1, 32)
        whole_field(self, "seed", 0, 2**31 - 1)


class Front:
    """The measurements of one model; those that `known` holds are not made again, only what is
    predicted of them."""

    def __init__(
        self,
        dense: ResNet9,
        settings: Sequence[SettingPoint],
        sets: dict[str, ImageSet],
        config: FrontConfig,
        known: Sequence[FrontPoint] = (),
    ) -> None:
        self._dense, self._sets, self._config = dense, sets, config
        self._table, self._file_sizes = setting_table(dense, settings), FileSizes(dense)
        self._known = {(p.way, p.goal, p.goal_bytes): p for p in known}
        # Bytes and price of the last trial of each size, from which the next begins.
        self._trials: list[tuple[int, float]] = []
        self.dense_bytes = 4 * sum(parameter.numel() for parameter in dense.parameters())

    def points(self) -> Iterator[FrontPoint]:
        """Every point as it is measured; a usual way that cannot be made so small has none."""
        goals = [("size", size) for size in self.goals(self._config.sizes)]
        goals += [("random", size) for size in self.random_goals()]
        for goal, size in goals:
            for way in (OURS, COMPENSATED, PRICED, *RIVALS) if goal == "size" else (OURS,):
                known = self._known.get((way, goal, size))
                point = self._foretold(known) if known else self._point(way, goal, size)
                if point is not None:
                    if point.price is not None and point.tried_bytes is not None:
                        self._trials.append((point.tried_bytes, point.price))
                    yield point

    def dense_correct(self) -> int:
        """Right answers of the dense model on the test images."""
        return self._right(self._dense, "test")

    def goals(self, count: int) -> list[int]:
        """Sizes in bytes, evenly spaced on a logarithmic axis."""
        low, high = SMALLEST * self.dense_bytes, LARGEST * self.dense_bytes
        return [round(size) for size in np.geomspace(low, high, count)]

    def random_goals(self) -> list[int]:
        """Sizes in bytes, log-uniform, of the config's seed."""
        drawn = np.random.default_rng(self._config.seed).random(self._config.randoms)
        return [round(self.dense_bytes * SMALLEST * (LARGEST / SMALLEST) ** x) for x in drawn]

    def _way(self, way: str, bits: int | None) -> Callable[[float], Allocation]:
        """What makes an allocation of a way for so many bytes; bits: the width of a usual one."""
        table, dense, seed = self._table, self._dense, self._config.seed
        if bits is None:
            return lambda aim: allocate(table, max_bytes=aim)
        one, threshold, drawn = RIVALS
        return {
            one: lambda aim: uniform_allocation(table, aim, bits),
            threshold: lambda aim: global_allocation(table, dense, aim, bits),
            drawn: lambda aim: random_allocation(table, aim, bits, seed),
        }[way]

    def _point(self, way: str, goal: str, size: int) -> FrontPoint | None:
        """The point as measured; None for a usual way that does not reach so small a size."""
        found: Allocation | None = None
        trial: Trial | None = None
        bits = None
        if way == PRICED:
            trial = self._priced(size)
            assert trial.best is not None
            small = self._recalibrated(trial.best)
        elif way in RIVALS:
            best = self._best_width(way, size)
            if best is None:
                return None
            bits, found, small = best
        else:
            found, _ = self._fit(size, self._way(way, None))
            small = self._made(found, compensated=way == COMPENSATED)
        packed_bytes, correct = self._measured(small)
        return FrontPoint(
            way,
            goal,
            size,
            found.size_bytes if found else None,
            found.predicted_drop if found else None,
            packed_bytes,
            correct,
            len(self._sets["test"]),
            trial.price if trial else None,
            trial.packed_bytes if trial else None,
            bits,
        )

    def _best_width(self, way: str, size: int) -> tuple[int, Allocation, QuantizedModel] | None:
        """A usual way at the bit width that is best on the validation images, of the few that are
        predicted to do it least damage; None where no width makes it so small."""
        foretold = []
        for bits in self._table.layers[0].bits:
            with contextlib.suppress(InputError):  # not to be made so small at these bits
                foretold.append((self._way(way, bits)(size).divergence, bits))
        tried = []
        for _, bits in sorted(foretold)[: self._config.widths]:
            with contextlib.suppress(InputError):  # its file is larger than was predicted
                found, _ = self._fit(size, self._way(way, bits))
                small = self._made(found)
                tried.append((self._right(small.model, "validation"), bits, found, small))
        return max(tried, key=lambda each: each[0])[1:] if tried else None

    def _fit(self, size: int, make: Callable[[float], Allocation]) -> tuple[Allocation, int]:
        return fit(self._dense, size, make, sizes=self._file_sizes)

    def _made(self, found: Allocation, *, compensated: bool = False) -> QuantizedModel:
        """Pruned, quantized, recalibrated."""
        cut = prune(self._dense, found.sparsities)
        if compensated:
            few = self._training_images(self._config.compensation_images)
            small = quantize_compensated(cut.model, found.bits, few, cut.masks)
        else:
            small = quantize(cut.model, found.bits, cut.masks)
        return self._recalibrated(small)

    def _recalibrated(self, small: QuantizedModel) -> QuantizedModel:
        images = self._training_images(self._config.recalibration_images)
        return replace(small, model=recalibrate_batch_norm(small.model, images))

    def _training_images(self, count: int) -> Tensor:
        few = min(count, self._config.recalibration_images)
        return self._sets["train"].images[:few]

    def _right(self, model: nn.Module, split: str) -> int:
        return count_correct(model, self._sets[split].images, self._sets[split].labels)

    def _foretold(self, known: FrontPoint) -> FrontPoint:
        """A measured point, with what is now predicted of its allocation."""
        if known.predicted_bytes is None:
            return known
        make = self._way(known.way, known.bits)
        found = make(known.predicted_bytes + 1)  # so that its own size, rounded, is within reach
        if found.size_bytes != known.predicted_bytes:
            found, _ = self._fit(known.goal_bytes, make)
        return replace(known, predicted_bytes=found.size_bytes, predicted_drop=found.predicted_drop)

    def _priced(self, size: int) -> Trial:
        """The entropy-constrained model within a size, its search begun where the last two led."""
        price = None
        if len(self._trials) > 1:
            (x0, y0), (x1, y1) = (
                (math.log(tried), math.log(price)) for tried, price in self._trials[-2:]
            )
            if x0 != x1:
                price = math.exp(y1 + (y1 - y0) / (x1 - x0) * (math.log(size) - x1))
                price = min(DEAREST, max(CHEAPEST, price))
        few = self._training_images(self._config.compensation_images)
        *_, last = fit_entropy_by_trial(self._dense, size, few, first_price=price)
        return last

    def _measured(self, small: QuantizedModel) -> tuple[int, int]:
        """Bytes on disk, and the right answers of what is loaded from there."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "small.safetensors"
            info = save_packed(small, path)
            return info.total_bytes, self._right(load_packed(path), "test")
