"""Training and fine-tuning as generators of per-epoch results, or of every step's.

The recipe: convolutions by Muon (Jordan et al. 2024: Nesterov momentum whose step is
orthogonalized), everything else by SGD with Nesterov momentum; one
linear warm-up and a linear decay to zero; label smoothing; random flip and translation; bfloat16
where the processor has it. Every epoch draws its randomness from (seed, epoch) alone, so a run that
was killed continues from its last epoch to the same bits.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from compression.constraints import Constraint, HeldMasks
from compression.data import ImageSet, normalize
from compression.hardware import default_device
from compression.inputs import InputError
from compression.recipes import FINE_TUNE, GridMaskConfig, TrainConfig
from compression.resume import Progress
from compression.training_run import StepResult, TrainingRun

__all__ = [
    "FINE_TUNE",
    "EpochResult",
    "EpochRow",
    "GridMaskConfig",
    "StepResult",
    "TrainConfig",
    "fine_tune",
    "train",
    "train_by_step",
]


@dataclass(frozen=True)
class EpochRow:
    """The numbers of one epoch (counted from 1): loss and accuracy on the validation images.

    train_loss is the mean over the epoch, with augmentation and label smoothing; accuracy is a
    fraction; learning_rate is the one of the last step; seconds are wall time.
    """

    epoch: int
    train_loss: float
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float
    inference_seconds: float


@dataclass(frozen=True, kw_only=True)
class EpochResult(EpochRow):
    """An epoch of a run: its numbers, and where the run stands.

    `best_model` is a copy of the model after its best epoch so far, in eval mode; an earlier epoch
    stays the best on a tie. `history` has a row an epoch, those before a resume too.
    """

    epochs: int
    best_accuracy: float
    best_epoch: int
    best_model: nn.Module = field(repr=False, compare=False)
    history: tuple[dict[str, float], ...] = field(repr=False)


def train(
    model: nn.Module,
    train_set: ImageSet,
    validation_set: ImageSet,
    config: TrainConfig | None = None,
    *,
    masks: Mapping[str, Tensor] | None = None,
    constraint: Callable[[nn.Module], Constraint] | None = None,
    teacher: nn.Module | None = None,
    resume: str | Path | None = None,
    device: str | torch.device | None = None,
) -> Iterator[EpochResult]:
    """Train a copy of `model`, yielding an EpochResult after each epoch; `model` stays as it was.

    masks: layer name -> bool tensor of the weight's shape, True where the weight is kept; the rest
    is exactly zero after every step. constraint: instead of masks, what makes a Constraint for the
    copy that is trained. teacher: a network whose answers are learned in place of the labels
    (distillation, Hinton et al. 2015, arXiv 1503.02531). resume: a file that keeps the state
    after each epoch, and from which a killed run of the same config goes on; it is removed once the
    last epoch's result has been taken and the generator goes on. Raises InputError for empty image
    sets, unknown layers, masks of other shapes, and a resume file that is damaged or of another
    run.
    """
    for result in train_by_step(
        model,
        train_set,
        validation_set,
        config,
        masks=masks,
        constraint=constraint,
        teacher=teacher,
        resume=resume,
        device=device,
    ):
        if isinstance(result, EpochResult):
            yield result


def train_by_step(
    model: nn.Module,
    train_set: ImageSet,
    validation_set: ImageSet,
    config: TrainConfig | None = None,
    *,
    masks: Mapping[str, Tensor] | None = None,
    constraint: Callable[[nn.Module], Constraint] | None = None,
    teacher: nn.Module | None = None,
    resume: str | Path | None = None,
    device: str | torch.device | None = None,
) -> Iterator[StepResult | EpochResult]:
    """`train` that also yields a StepResult after every step, so that it can be left at any."""
    config = config or TrainConfig()
    for name, images in (("train_set", train_set), ("validation_set", validation_set)):
        if not len(images):
            raise InputError(f"{name} must hold at least one image, got none.")
    bind = constraint or (lambda copied: HeldMasks(copied, masks or {}))
    run = TrainingRun(model, train_set, config, bind, torch.device(device or default_device()))
    run.set_teacher(teacher)
    state = run.resume_file(resume, (train_set, validation_set)) if resume else None
    best_model = copy.deepcopy(run.model).eval()
    done = Progress()
    if state and state.exists():
        done = state.load(run.model, best_model, run.optimizers, run.constraint)
        if done.epoch == config.epochs:  # killed after its last epoch, before anybody had it
            yield _result(done, config, best_model)
    for epoch in range(done.epoch + 1, config.epochs + 1):
        started = time.perf_counter()
        train_loss = yield from run.epoch(epoch)
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        loss, accuracy = _validate(run.model, validation_set, run.device)
        inference_seconds = time.perf_counter() - started
        best = (done.best_accuracy, done.best_epoch)
        if accuracy > done.best_accuracy or done.best_epoch == 0:
            best = (accuracy, epoch)
            best_model = copy.deepcopy(run.model).eval()
        row = EpochRow(
            epoch, train_loss, loss, accuracy, run.learning_rate, seconds, inference_seconds
        )
        done = Progress(epoch, *best, (*done.history, asdict(row)))
        if state:
            state.save(run.model, best_model, run.optimizers, run.constraint, done)
        yield _result(done, config, best_model)
    if state:
        state.remove()


def _result(done: Progress, config: TrainConfig, best_model: nn.Module) -> EpochResult:
    return EpochResult(
        **done.history[-1],  # pyright: ignore[reportArgumentType] (the epoch is whole)
        epochs=config.epochs,
        best_accuracy=done.best_accuracy,
        best_epoch=done.best_epoch,
        best_model=best_model,
        history=done.history,
    )


def fine_tune(
    model: nn.Module,
    train_set: ImageSet,
    validation_set: ImageSet,
    config: TrainConfig | None = None,
    *,
    masks: Mapping[str, Tensor] | None = None,
    teacher: nn.Module | None = None,
    resume: str | Path | None = None,
    device: str | torch.device | None = None,
) -> Iterator[EpochResult]:
    """`train` with the short, gentle recipe that a pruned model needs: 5 epochs of SGD."""
    yield from train(
        model,
        train_set,
        validation_set,
        config or FINE_TUNE,
        masks=masks,
        teacher=teacher,
        resume=resume,
        device=device,
    )


@torch.inference_mode()
def _validate(model: nn.Module, images: ImageSet, device: torch.device) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in float32, batches of 250 (they stay in cache)."""
    model.eval()
    loss, correct = 0.0, 0
    for pixels, labels in zip(images.images.split(250), images.labels.split(250), strict=True):
        logits = model(normalize(pixels.to(device)))
        labels = labels.to(device)
        loss += functional.cross_entropy(logits, labels, reduction="sum").item()
        correct += int((logits.argmax(1) == labels).sum())
    return loss / len(images), correct / len(images)
