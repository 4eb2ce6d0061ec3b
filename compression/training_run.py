"""One training run from the inside: its steps, and the state that a killed run goes on from.

A batch is computed in parts that share batch-norm statistics and stay in the processor's cache;
their gradients add up to those of the whole.
"""

import copy
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from compression.augmentation import Batches
from compression.constraints import Constraint
from compression.data import ImageSet
from compression.hardware import autocast_dtype
from compression.inference import fold_batch_norm
from compression.optimizer import Schedule, build_optimizers
from compression.recipes import TrainConfig
from compression.resume import ResumeFile, digest_of
from compression.unfolding import unfold_batch_norm


@dataclass(frozen=True)
class StepResult:
    """A step within an epoch, both counted from 1, and the batch's loss with augmentation."""

    epoch: int
    epochs: int
    step: int
    steps: int
    train_loss: float


class TrainingRun:
    """The moving parts of one training run: a copy of the model, optimizers, batches, masks."""

    def __init__(
        self,
        model: nn.Module,
        train_set: ImageSet,
        config: TrainConfig,
        bind: Callable[[nn.Module], Constraint],
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.model = copy.deepcopy(unfold_batch_norm(model, train_set.images)).to(device)
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        _set_norm_momentum(self.model, config)
        self.constraint = bind(self.model)
        gridmask = config.gridmask.transform() if config.gridmask else None
        self.batches = Batches(
            train_set,
            batch_size=config.batch_size,
            translate=config.translate,
            flip=config.flip,
            cutout=config.cutout,
            gridmask=gridmask,
            small_epochs=config.small_epochs,
            small_side=config.small_side,
            seed=config.seed,
            device=device,
        )
        steps = config.epochs * len(self.batches)
        self.optimizers = build_optimizers(self.model, config)
        self.schedule = Schedule(self.optimizers, steps, config.warmup)
        self.learning_rate = 0.0
        self._teacher: nn.Module | None = None
        # One tensor: many small ones, each made between two large ones that are given back, keep
        # the memory of those from being used again.
        self._answers: Tensor | None = None  # (draws, steps, batch, classes)
        self._answered: set[int] = set()  # the draws whose answers are whole

    def set_teacher(self, teacher: nn.Module | None) -> None:
        """Learn this network's answers in place of the labels."""
        if teacher is not None:
            self._teacher = fold_batch_norm(teacher).to(self.device)

    def resume_file(self, path: str | Path, sets: tuple[ImageSet, ...]) -> ResumeFile:
        """The file for the state of this run, as long as the model is as it was given."""
        taught = self._teacher.state_dict().values() if self._teacher else ()
        seen = [part for each in sets for part in (each.images, each.labels)]
        held = self.constraint.identity()
        start = digest_of([*self.model.state_dict().values(), *held, *seen, *taught])
        return ResumeFile(Path(path), asdict(self.config), start)

    @torch.enable_grad()
    def epoch(self, epoch: int) -> Generator[StepResult, None, float]:
        """One pass over the training images, a result a step; returns the mean loss."""
        self.model.train()
        dtype = autocast_dtype(self.config.precision, self.device)
        total, steps = 0.0, len(self.batches)
        draw = (epoch - 1) % self.config.draws + 1 if self.config.draws else epoch
        for step, (images, labels) in enumerate(self.batches.epoch(draw)):
            self.schedule.set_step((epoch - 1) * len(self.batches) + step)
            self.model.zero_grad(set_to_none=True)
            parts = -(-len(labels) // self.config.norm_batch)
            summed = torch.zeros((), device=self.device)
            # One context for all parts: the weights are cast once for all of them.
            with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                first = 0
                for pixels, answers in zip(images.chunk(parts), labels.chunk(parts), strict=True):
                    logits = self.model(pixels)
                    target = self._target(pixels, answers, (draw, step, first))
                    first += len(pixels)
                    with torch.autocast(self.device.type, enabled=False):
                        loss = self._loss(logits.float(), target)
                        (loss / len(labels)).backward()
                    summed += loss.detach()
            self.constraint.after_backward()
            for optimizer in self.optimizers:
                optimizer.step()
            self.constraint.after_step()
            self.learning_rate = self.optimizers[0].param_groups[0]["lr"]
            total += summed.item()
            yield StepResult(
                epoch, self.config.epochs, step + 1, steps, summed.item() / len(labels)
            )
        if self.config.draws and self._teacher is not None:
            self._answered.add(draw)
        return total / (steps * self.batches.batch_size)

    def _target(self, pixels: Tensor, answers: Tensor, place: tuple[int, int, int]) -> Tensor:
        """What a part of a batch should be answered: (B,) int64 labels, or (B, classes) logits;
        place: the draw, the step, and the part's first image in the batch."""
        if self._teacher is None:
            return answers
        draw, step, first = place
        part = slice(first, first + len(pixels))
        if draw in self._answered and self._answers is not None:
            return self._answers[draw - 1, step, part]
        with torch.no_grad():
            said = self._teacher(pixels).float()
        if self.config.draws:
            shape = (self.config.draws, len(self.batches), self.batches.batch_size, said.shape[1])
            kept = self._answers if self._answers is not None else said.new_empty(shape)
            kept[draw - 1, step, part] = said
            self._answers = kept
        return said

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The summed cross-entropy with labels, or with a teacher's softened answers."""
        if self._teacher is None:
            smoothing = self.config.label_smoothing
            return functional.cross_entropy(
                logits, target, label_smoothing=smoothing, reduction="sum"
            )
        t = self.config.temperature
        apart = functional.kl_div(
            (logits / t).log_softmax(1), (target / t).softmax(1), reduction="sum"
        )
        return t * t * apart


def _set_norm_momentum(model: nn.Module, config: TrainConfig) -> None:
    """Running statistics that follow a whole batch by a tenth, whatever number of parts it has."""
    share = min(1.0, config.norm_batch / config.batch_size)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1 - 0.9**share
