"""The stages of Deep Compression at a budget of bytes, its zeros and codes chosen by their price.

The dense network is quantized for a size (`entropy_quantization.py`), which says what may be zero;
what is left learns the dense network's answers in floating point, its zeros held; that again, each
time for a smaller size (gradual pruning, Zhu & Gupta 2017, arXiv 1710.01878); then it is quantized
for good, batch norm is re-estimated, and the levels learn the same answers with every weight's code
held. Epochs are chosen on validation images. Left out: removing whole channels, and moving weights
to other levels while the levels are trained.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from compression.centroids import CentroidConfig, train_centroids
from compression.checkpoint import load_checkpoint, save_checkpoint
from compression.data import ImageSet
from compression.entropy_quantization import fit_entropy
from compression.inference import device_of
from compression.inputs import InputError, real, whole
from compression.packing import description_bytes
from compression.quantization import QuantizedModel
from compression.recalibration import recalibrate_batch_norm
from compression.recipes import FINE_TUNE, TrainConfig
from compression.resnet9 import ResNet9, prunable_layers
from compression.scan_cache import weights_digest
from compression.stored import StoredModel
from compression.training import fine_tune

Notify = Callable[[str], None]


@dataclass(frozen=True)
class ShrinkConfig:
    """max_bytes: of the packed file; rounds of quantizing and tuning before the last quantizing, 0
    for none, the first of them for draft_ratio times as many bytes, the last, where there are more,
    for as many; tune_epochs of each round, centroid_epochs of the quantized network, 0 for none;
    learning rates as in TrainConfig (sgd_lr) and CentroidConfig (learning_rate);
    compensation_images: training images by which rounding errors are made up for;
    recalibration_images: those on which batch norm is re-estimated."""

    max_bytes: float
    rounds: int = 0
    draft_ratio: float = 1.0
    tune_epochs: int = 4
    tune_lr: float = 0.01
    centroid_epochs: int = 3
    centroid_lr: float = 0.4
    compensation_images: int = 512
    recalibration_images: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        real("max_bytes", self.max_bytes, 1, 2**40, "bytes")
        whole("rounds", self.rounds, 0, 100)
        real("draft_ratio", self.draft_ratio, 1, 1000)
        whole("tune_epochs", self.tune_epochs, 1, 1000)
        whole("centroid_epochs", self.centroid_epochs, 0, 1000)
        whole("compensation_images", self.compensation_images, 1, 50_000, "images")
        whole("recalibration_images", self.recalibration_images, 1, 50_000, "images")
        self.tuning()
        self.centroids()

    def drafts(self) -> list[float]:
        """Bytes that each round quantizes for: evenly spaced ratios down to max_bytes."""
        steps = max(1, self.rounds - 1)
        return [self.max_bytes * self.draft_ratio ** (1 - k / steps) for k in range(self.rounds)]

    def tuning(self) -> TrainConfig:
        """The recipe of a round."""
        return dataclasses.replace(
            FINE_TUNE, epochs=self.tune_epochs, batch_size=256, sgd_lr=self.tune_lr, seed=self.seed
        )

    def centroids(self) -> CentroidConfig:
        """The recipe of the centroids."""
        return CentroidConfig(
            epochs=max(1, self.centroid_epochs), learning_rate=self.centroid_lr, seed=self.seed
        )


def shrink(
    dense: ResNet9,
    sets: dict[str, ImageSet],
    config: ShrinkConfig,
    *,
    teacher: ResNet9 | None = None,
    name: str = "small",
    folder: Path | None = None,
    notify: Notify = lambda text: None,
) -> StoredModel:
    """`dense` at most `config.max_bytes` large, with the steps that led there, ready to be packed.

    sets: the splits `train` and `validation`; teacher: whose answers are learned, by default those
    of `dense`. folder: keeps what each round's tuning gave, so that a run that was killed goes on
    from there.
    """
    run = _Run(dense, teacher or dense, sets, config, folder, notify)
    model, masks, steps = dense, {}, []
    for number, draft_bytes in enumerate(config.drafts(), 1):
        model, masks = run.tuned(model, masks, draft_bytes, number)
        steps += [
            f"quantized for {round(draft_bytes):,} bytes to find {_zeros(masks):.1%} zeros",
            f"the others tuned by {config.tune_epochs} epochs of distillation",
        ]
    last = _last_steps(config, len(sets["train"]), 1.0)
    overhead = description_bytes(name, [*steps, *last])
    quantized = run.quantized(model, masks, config.max_bytes, overhead)
    steps += _last_steps(config, len(sets["train"]), _zeros(quantized.masks))
    if config.centroid_epochs:
        quantized = run.trained(quantized)
    return StoredModel(name, tuple(steps), quantized)


def _last_steps(config: ShrinkConfig, images: int, zeros: float) -> list[str]:
    """What is done after the rounds, in words."""
    steps = [
        f"quantized for at most {round(config.max_bytes):,} bytes, {zeros:.1%} zeros",
        f"rounding errors made up for on {min(images, config.compensation_images)} images",
        "batch norm recalibrated",
    ]
    if config.centroid_epochs:
        text = f"{config.centroid_epochs} epochs of centroid distillation, best on validation"
        steps.append(text)
    return steps


@dataclass(frozen=True)
class _Run:
    """The steps, each with what all of them need."""

    dense: ResNet9
    teacher: ResNet9
    sets: dict[str, ImageSet]
    config: ShrinkConfig
    folder: Path | None
    notify: Notify

    def quantized(
        self, model: ResNet9, masks: dict[str, Tensor], max_bytes: float, overhead: int = 0
    ) -> QuantizedModel:
        """The model in at most so many bytes, batch norm recalibrated."""
        images = self.sets["train"].images
        few = images[: self.config.compensation_images]
        small = fit_entropy(model, max_bytes, few, masks, overhead=overhead)
        few = images[: self.config.recalibration_images]
        return dataclasses.replace(small, model=recalibrate_batch_norm(small.model, few))

    def tuned(
        self, model: ResNet9, masks: dict[str, Tensor], draft_bytes: float, number: int
    ) -> tuple[ResNet9, dict[str, Tensor]]:
        """The model after a round, its zeros those of a quantized draft, and its masks."""
        kept = self.folder / f"tuned-{number}.safetensors" if self.folder else None
        if kept is not None and kept.is_file():
            checkpoint = load_checkpoint(kept)
            if checkpoint.metadata.get("run") != self._identity():
                raise InputError(
                    f"{kept.name} in {kept.parent.name} must be of this run, got one of other "
                    "settings or another start: remove that folder to begin anew."
                )
            found = checkpoint.model
            return found, {n: m.weight.detach() != 0 for n, m in prunable_layers(found).items()}
        draft = self.quantized(model, masks, draft_bytes)
        best = None
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
        for best in fine_tune(
            draft.model,
            self.sets["train"],
            self.sets["validation"],
            self.config.tuning(),
            masks=draft.masks,
            teacher=self.teacher,
            resume=kept.with_suffix(".resume") if kept else None,
        ):
            self.notify(
                f"tuning {number}, epoch {best.epoch} of {best.epochs}: {best.accuracy:.2%}"
            )
        assert best is not None and isinstance(best.best_model, ResNet9)
        tuned = best.best_model.to(device_of(self.dense))
        if kept is not None:
            save_checkpoint(tuned, kept, {"steps": ["fine-tuned"], "run": self._identity()})
        return tuned, {name: mask.to(device_of(tuned)) for name, mask in draft.masks.items()}

    def _identity(self) -> dict[str, Any]:
        """What a round's result depends on: all settings but those of what comes after."""
        asked = dataclasses.asdict(self.config)
        left = {n: asked[n] for n in asked if not n.startswith("centroid")}
        return left | {
            "images": len(self.sets["train"]),
            "dense": weights_digest(self.dense),
            "teacher": weights_digest(self.teacher),
        }

    def trained(self, quantized: QuantizedModel) -> QuantizedModel:
        """The model after its levels were trained."""
        last = None
        for last in train_centroids(
            quantized,
            self.sets["train"],
            self.sets["validation"],
            self.config.centroids(),
            teacher=self.teacher,
        ):
            self.notify(f"centroids, epoch {last.epoch} of {last.epochs}: {last.accuracy:.2%}")
        assert last is not None
        return last.best


def _zeros(masks: dict[str, Tensor]) -> float:
    """The fraction of the masked layers' weights that are zero."""
    kept = sum(int(mask.sum()) for mask in masks.values())
    return 1 - kept / sum(mask.numel() for mask in masks.values())
