"""A dense network into a packed file of a given size: zeros, levels and codes learned together.

The network learns the dense one's answers through the rounding, at a price of bits that brings the
file down to its size (`entropy_training.py`); then the levels learn the same answers with every
weight's code held, as in Deep Compression (arXiv 1510.00149). Without epochs of the first it is
quantized at one price with errors that make up for each other (`entropy_quantization.py`). What is
kept is chosen on validation images. Left out: removing whole channels.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from compression.centroids import train_centroids
from compression.checkpoint import load_checkpoint, save_checkpoint
from compression.data import ImageSet
from compression.ensemble import as_one
from compression.entropy_quantization import fit_entropy
from compression.entropy_training import train_entropy
from compression.files import read_record, write_json
from compression.hardware import machine_record
from compression.inference import count_correct
from compression.inputs import InputError, count
from compression.packing import description_bytes
from compression.quantization import QuantizedModel
from compression.recalibration import recalibrate_batch_norm
from compression.resnet9 import ResNet9
from compression.scan_cache import weights_digest
from compression.shrink_config import ShrinkConfig
from compression.stored import StoredModel, of_checkpoint

Notify = Callable[[str], None]
_ABOUT, _KEPT, _STATE = "run.json", "rounded.safetensors", "training.resume"


def shrink(
    dense: ResNet9,
    sets: dict[str, ImageSet],
    config: ShrinkConfig,
    *,
    start: StoredModel | None = None,
    teachers: Sequence[ResNet9] = (),
    name: str = "small",
    folder: Path | None = None,
    notify: Notify = lambda text: None,
    machine: dict[str, Any] | None = None,
) -> StoredModel:
    """`dense` at most `config.max_bytes` large, with the steps that led there, ready to be packed.

    sets: the splits `train` and `validation`; start: what an earlier run made of `dense`, to go on
    from; teachers: the mean of whose answers is learned, by default those of `dense`. folder: keeps
    the state of the training and what it gave, so that a run that was killed goes on from there.
    machine: what is noted in it of the one that computes (`machines_of`), by default this one.
    Raises InputError for a size out of reach, for a start of other layers or without epochs that
    would go on from it, and for a folder of another run.
    """
    if start and not config.epochs:
        raise InputError("epochs must be at least 1 where there is a start, got 0.")
    if start and config.first_ratio != ShrinkConfig.first_ratio:
        raise InputError(
            f"first_ratio must be left at {ShrinkConfig.first_ratio} where there is a start, whose "
            f"size is the first, got {config.first_ratio:g}."
        )
    if teachers and not (config.epochs or config.centroid_epochs):
        raise InputError("teachers must be left out where nothing is trained, got some.")
    if start and config.compensate:
        raise InputError("compensate must be off where there is a start, got both.")
    before = list(start.steps) if start else []
    run = _Run(
        dense, as_one(teachers or [dense]), start and start.parts, sets, config, folder, notify,
        machine or machine_record(),
    )  # fmt: skip
    longest = dataclasses.replace(config, centroid_epochs=1000)  # may be another number next time
    overhead = description_bytes(name, before + _steps(longest, len(sets["train"]), 1.0, teachers))
    quantized = run.rounded(overhead)
    steps = before + _steps(config, len(sets["train"]), _zeros(quantized), teachers)
    if config.centroid_epochs:
        quantized = run.trained(quantized)
    return StoredModel(name, tuple(steps), quantized)


def machines_of(folder: Path) -> list[dict[str, Any]]:
    """On what the run in a folder has been computed so far, the present one last; none where there
    is no such folder."""
    about = folder / _ABOUT
    return read_record(about, "of a run of shrink").get("machines", []) if about.is_file() else []


def _steps(
    config: ShrinkConfig, images: int, zeros: float, teachers: Sequence[ResNet9]
) -> list[str]:
    """What is done, in words."""
    steps = [] if config.epochs else ["quantized at one price of bits"]
    names = " and a ".join(teacher.preset for teacher in teachers)
    source = f" from a {names}" if names else ""
    if config.compensate or not config.epochs:
        few = min(images, config.compensation_images)
        steps.append(f"rounding errors made up for on {few} images")
    if config.epochs:
        epochs = count(config.epochs, "epoch")
        steps.append(f"{epochs} of distillation{source} through the rounding")
    steps.append(f"at most {round(config.max_bytes):,} bytes, {zeros:.1%} zeros")
    steps.append("batch norm recalibrated where that was better on validation")
    if config.centroid_epochs:
        said = "" if config.epochs else source  # once is enough
        epochs = count(config.centroid_epochs, "epoch")
        steps.append(f"{epochs} of centroid distillation{said}, best on validation")
    return steps


@dataclass(frozen=True)
class _Run:
    """The steps, each with what all of them need."""

    dense: ResNet9
    teacher: nn.Module
    start: QuantizedModel | None
    sets: dict[str, ImageSet]
    config: ShrinkConfig
    folder: Path | None
    notify: Notify
    machine: dict[str, Any]

    def rounded(self, overhead: int) -> QuantizedModel:
        """The model in at most so many bytes, before its levels are trained alone."""
        if self.folder is None:
            return self._learned(overhead) if self.config.epochs else self._fitted(overhead)
        begun = self._check_folder(self.folder, overhead)
        kept = self.folder / _KEPT
        try:
            if not kept.is_file():
                if self.config.epochs:
                    self._learned(overhead)  # which keeps it, before the training's state goes
                else:
                    self._keep(self._fitted(overhead))
        except InputError:  # a size out of reach keeps no folder from a better one
            if not begun:
                for left in (_ABOUT, _STATE):
                    (self.folder / left).unlink(missing_ok=True)
            raise
        return of_checkpoint(kept.stem, load_checkpoint(kept)).parts

    def _check_folder(self, folder: Path, overhead: int) -> bool:
        """Make the folder of this run, or see that it is this run's; whether it was there."""
        about = folder / _ABOUT
        identity, begun, before = self._identity() | {"overhead": overhead}, about.is_file(), []
        if begun:
            known = read_record(about, "of a run of shrink")
            before = known.pop("machines", [])
            if known != identity:
                raise InputError(
                    f"{folder.name} must be the folder of this run, got one of other settings or "
                    "another start: remove it to begin anew."
                )
        folder.mkdir(parents=True, exist_ok=True)
        rest = [machine for machine in before if machine != self.machine]
        write_json(about, identity | {"machines": [*rest, self.machine]})
        return begun

    def _keep(self, found: QuantizedModel) -> None:
        if self.folder is not None:
            bits = {name: layer.bits for name, layer in found.layers.items()}
            assert isinstance(found.model, ResNet9)
            save_checkpoint(found.model, self.folder / _KEPT, {"bits": bits})

    def _fitted(self, overhead: int) -> QuantizedModel:
        """No weight trained: quantized at one price."""
        few = self.sets["train"].images[: self.config.compensation_images]
        found = fit_entropy(self.dense, self.config.max_bytes, few, overhead=overhead)
        return self._recalibrated(found)

    def _learned(self, overhead: int) -> QuantizedModel:
        """After learning through the rounding: the last epoch, the one whose file fits."""
        found = None
        for epoch in train_entropy(
            self.dense,
            self.config.max_bytes,
            self.sets["train"],
            self.sets["validation"],
            self.config.training(),
            first_ratio=self.config.first_ratio,
            shrinking=self.config.shrinking,
            worth_power=self.config.worth_power,
            compensation_images=self.config.compensation_images * self.config.compensate,
            overhead=overhead,
            start=self.start,
            teacher=self.teacher,
            resume=self.folder / _STATE if self.folder else None,
        ):
            self.notify(
                f"rounded, epoch {epoch.epoch} of {epoch.epochs}: "
                f"{epoch.accuracy:.2%} at {epoch.packed_bytes:,} bytes"
            )
            if epoch.epoch == epoch.epochs:  # kept before the training's own state is removed
                found = self._recalibrated(epoch.quantized)
                self._keep(found)
        assert found is not None
        return found

    def _recalibrated(self, quantized: QuantizedModel) -> QuantizedModel:
        """With batch norm re-estimated, where that is better on the validation images."""
        images = self.sets["train"].images[: self.config.recalibration_images]
        again = dataclasses.replace(
            quantized, model=recalibrate_batch_norm(quantized.model, images)
        )
        return max((again, quantized), key=self._right)

    def _right(self, quantized: QuantizedModel) -> int:
        validation = self.sets["validation"]
        return count_correct(quantized.model, validation.images, validation.labels)

    def _identity(self) -> dict[str, Any]:
        """What the rounded model depends on: all settings but those of the levels."""
        asked = dataclasses.asdict(self.config)
        left = {n: asked[n] for n in asked if not n.startswith("centroid")}
        return left | {
            "images": len(self.sets["train"]),
            "validation_images": len(self.sets["validation"]),
            "dense": weights_digest(self.dense),
            "start": weights_digest(self.start.model) if self.start else None,
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
            resume=self.folder / "levels.resume" if self.folder else None,
        ):
            self.notify(f"centroids, epoch {last.epoch} of {last.epochs}: {last.accuracy:.2%}")
        assert last is not None
        return last.best


def _zeros(quantized: QuantizedModel) -> float:
    """The fraction of the quantized layers' weights that are zero."""
    weights = [layer.weight() for layer in quantized.layers.values()]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(w.numel() for w in weights)
