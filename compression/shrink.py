"""The whole of Deep Compression at a budget of bytes: allocate, prune, distil, quantize, distil.

Zeros and bits are spread by measured damage (`allocation.py`); the pruned network learns the dense
one's answers with its zeros held; its weights are quantized, batch norm is re-estimated, and the
centroids learn the same answers with every weight's code held. Everything is chosen on validation
images. Left out: removing whole channels, and re-assigning weights to other centroids.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from compression.allocation import Allocation, allocate
from compression.allocation_scan import SettingPoint
from compression.allocation_table import setting_table
from compression.budget_fit import fit
from compression.centroids import CentroidConfig, train_centroids
from compression.checkpoint import load_checkpoint, save_checkpoint
from compression.compensation import quantize_compensated
from compression.data import ImageSet
from compression.inference import count_correct
from compression.inputs import real, whole
from compression.pruning import prune
from compression.quantization import QuantizedModel, quantize
from compression.recalibration import recalibrate_batch_norm
from compression.recipes import FINE_TUNE, TrainConfig
from compression.resnet9 import ResNet9
from compression.stored import StoredModel
from compression.training import fine_tune

Notify = Callable[[str], None]


@dataclass(frozen=True)
class ShrinkConfig:
    """max_bytes: of the packed file before training, which moves it a little; tune_epochs of the
    pruned network and centroid_epochs of the quantized one, 0 for none of them; learning rates as
    in TrainConfig (sgd_lr) and CentroidConfig (learning_rate)."""

    max_bytes: float
    tune_epochs: int = 4
    tune_lr: float = 0.05
    centroid_epochs: int = 3
    centroid_lr: float = 0.4
    compensation_images: int = 512
    recalibration_images: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        real("max_bytes", self.max_bytes, 1, 2**40, "bytes")
        whole("tune_epochs", self.tune_epochs, 0, 1000)
        whole("centroid_epochs", self.centroid_epochs, 0, 1000)
        whole("compensation_images", self.compensation_images, 0, 50_000, "images")
        whole("recalibration_images", self.recalibration_images, 1, 50_000, "images")
        self.tuning()
        self.centroids()

    def tuning(self) -> TrainConfig:
        """The recipe of the pruned network."""
        epochs = max(1, self.tune_epochs)
        return dataclasses.replace(
            FINE_TUNE, epochs=epochs, batch_size=256, sgd_lr=self.tune_lr, seed=self.seed
        )

    def centroids(self) -> CentroidConfig:
        """The recipe of the centroids."""
        return CentroidConfig(
            epochs=max(1, self.centroid_epochs), learning_rate=self.centroid_lr, seed=self.seed
        )


def shrink(
    dense: ResNet9,
    points: Sequence[SettingPoint],
    sets: dict[str, ImageSet],
    config: ShrinkConfig,
    *,
    teacher: ResNet9 | None = None,
    name: str = "small",
    folder: Path | None = None,
    notify: Notify = lambda text: None,
) -> StoredModel:
    """`dense` at most `config.max_bytes` large, with the steps that led there, ready to be packed.

    points: of `scan_settings` on `dense`; sets: the splits `train` and `validation`; teacher: whose
    answers are learned, by default those of `dense`. folder: keeps what the fine-tuning gave, so
    that a run that was killed goes on from there.
    """
    teacher = teacher or dense
    table = setting_table(dense, points)
    found, _ = fit(dense, config.max_bytes, lambda aim: allocate(table, max_bytes=aim))
    cut = prune(dense, found.sparsities)
    steps = [f"pruned to {cut.sparsity:.1%} zeros by measured damage"]
    model = cut.model
    assert isinstance(model, ResNet9)
    if config.tune_epochs:
        model = _tuned(teacher, cut.model, cut.masks, sets, config, folder, notify)
        steps.append(f"{config.tune_epochs} epochs of distillation")
    steps.append(f"k-means quantized to {_widths(found)}")
    quantized, compensated = _rounded(model, found, cut.masks, sets, config)
    if compensated:
        steps.append(f"rounding errors made up for on {config.compensation_images} images")
    steps.append("batch norm recalibrated")
    if config.centroid_epochs:
        quantized = _trained(teacher, quantized, sets, config, notify)
        steps.append(
            f"{config.centroid_epochs} epochs of centroid distillation, best on validation"
        )
    return StoredModel(name, tuple(steps), quantized)


def _rounded(
    model: ResNet9,
    found: Allocation,
    masks: dict[str, Tensor],
    sets: dict[str, ImageSet],
    config: ShrinkConfig,
) -> tuple[QuantizedModel, bool]:
    """Quantized to the nearest values or with errors that make up for each other, whichever is the
    better on the validation images, batch norm recalibrated; and whether it is the latter."""
    images, validation = sets["train"].images, sets["validation"]
    tried = [quantize(model, found.bits, masks)]
    if config.compensation_images:
        few = images[: config.compensation_images]
        tried.append(quantize_compensated(model, found.bits, few, masks))
    tried = [
        dataclasses.replace(
            each, model=recalibrate_batch_norm(each.model, images[: config.recalibration_images])
        )
        for each in tried
    ]
    right = [count_correct(each.model, validation.images, validation.labels) for each in tried]
    best = right.index(max(right))
    return tried[best], best == 1


def _widths(found: Allocation) -> str:
    bits = sorted(set(found.bits.values()))
    return f"{bits[0]} bits" if len(bits) == 1 else f"{bits[0]} to {bits[-1]} bits"


def _tuned(
    teacher: ResNet9,
    model: object,
    masks: dict,
    sets: dict[str, ImageSet],
    config: ShrinkConfig,
    folder: Path | None,
    notify: Notify,
) -> ResNet9:
    assert isinstance(model, ResNet9)
    kept = folder / "tuned.safetensors" if folder else None
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
    if kept is not None and kept.is_file():
        return load_checkpoint(kept).model
    best = None
    for best in fine_tune(
        model,
        sets["train"],
        sets["validation"],
        config.tuning(),
        masks=masks,
        teacher=teacher,
        resume=kept.with_suffix(".resume") if kept else None,
    ):
        notify(f"fine-tuning, epoch {best.epoch} of {best.epochs}: {best.accuracy:.2%}")
    assert best is not None and isinstance(best.best_model, ResNet9)
    if kept is not None:
        save_checkpoint(best.best_model, kept, {"steps": ["fine-tuned"]})
    return best.best_model


def _trained(
    teacher: ResNet9,
    quantized: QuantizedModel,
    sets: dict[str, ImageSet],
    config: ShrinkConfig,
    notify: Notify,
) -> QuantizedModel:
    last = None
    for last in train_centroids(
        quantized, sets["train"], sets["validation"], config.centroids(), teacher=teacher
    ):
        notify(f"centroids, epoch {last.epoch} of {last.epochs}: {last.accuracy:.2%}")
    assert last is not None
    return last.best
