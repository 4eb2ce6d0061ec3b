"""The whole of Deep Compression at a budget of bytes: allocate, prune, distil, quantize, distil.

Zeros are spread by measured damage (`allocation.py`); the pruned network learns the dense one's
answers with its zeros held; levels and codes are chosen for the bytes they will take
(`entropy_quantization.py`), batch norm is re-estimated, and the levels learn the same answers with
every weight's code held. Epochs are chosen on validation images. Left out: removing whole channels,
and moving weights to other levels while the levels are trained.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compression.allocation import allocate
from compression.allocation_scan import SettingPoint
from compression.allocation_table import setting_table
from compression.budget_fit import fit
from compression.centroids import CentroidConfig, train_centroids
from compression.checkpoint import load_checkpoint, save_checkpoint
from compression.data import ImageSet
from compression.entropy_quantization import fit_entropy
from compression.inputs import real, whole
from compression.pruning import prune
from compression.quantization import QuantizedModel
from compression.recalibration import recalibrate_batch_norm
from compression.recipes import FINE_TUNE, TrainConfig
from compression.resnet9 import ResNet9
from compression.stored import StoredModel
from compression.training import fine_tune

Notify = Callable[[str], None]


@dataclass(frozen=True)
class ShrinkConfig:
    """max_bytes: of the packed file; prune_bytes: what pruning aims at, by a table of k-means'
    sizes, None for max_bytes; tune_epochs of the pruned network and centroid_epochs of the
    quantized one, 0 for none of them; learning rates as in TrainConfig (sgd_lr) and CentroidConfig
    (learning_rate); compensation_images: training images by which rounding errors are made up for;
    recalibration_images: those on which batch norm is re-estimated."""

    max_bytes: float
    prune_bytes: float | None = None
    tune_epochs: int = 4
    tune_lr: float = 0.05
    centroid_epochs: int = 3
    centroid_lr: float = 0.4
    compensation_images: int = 512
    recalibration_images: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        real("max_bytes", self.max_bytes, 1, 2**40, "bytes")
        if self.prune_bytes is not None:
            real("prune_bytes", self.prune_bytes, 1, 2**40, "bytes")
        whole("tune_epochs", self.tune_epochs, 0, 1000)
        whole("centroid_epochs", self.centroid_epochs, 0, 1000)
        whole("compensation_images", self.compensation_images, 1, 50_000, "images")
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
    prune_bytes = config.prune_bytes or config.max_bytes
    found, _ = fit(dense, prune_bytes, lambda aim: allocate(table, max_bytes=aim))
    cut = prune(dense, found.sparsities)
    steps = [f"pruned to {cut.sparsity:.1%} zeros by measured damage"]
    model = cut.model
    assert isinstance(model, ResNet9)
    if config.tune_epochs:
        model = _tuned(teacher, cut.model, cut.masks, sets, config, folder, notify)
        steps.append(f"{config.tune_epochs} epochs of distillation")
    images = sets["train"].images
    few = images[: config.compensation_images]
    quantized = fit_entropy(
        model, config.max_bytes, few, cut.masks,
        notify=lambda trial: notify(f"quantized, {trial.packed_bytes:,} bytes"),
    )  # fmt: skip
    steps += [
        f"quantized for at most {round(config.max_bytes):,} bytes, {_zeros(quantized):.1%} zeros",
        f"rounding errors made up for on {len(few)} images",
        "batch norm recalibrated",
    ]
    quantized = dataclasses.replace(
        quantized,
        model=recalibrate_batch_norm(quantized.model, images[: config.recalibration_images]),
    )
    if config.centroid_epochs:
        quantized = _trained(teacher, quantized, sets, config, notify)
        steps.append(
            f"{config.centroid_epochs} epochs of centroid distillation, best on validation"
        )
    return StoredModel(name, tuple(steps), quantized)


def _zeros(quantized: QuantizedModel) -> float:
    """The fraction of the quantized layers' weights that are zero."""
    kept = sum(int(mask.sum()) for mask in quantized.masks.values())
    return 1 - kept / sum(mask.numel() for mask in quantized.masks.values())


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
