"""The state of a training run after an epoch, in a file from which a killed run goes on."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from compression.checkpoint import save_tensors
from compression.constraints import Constraint
from compression.files import replacing
from compression.hardware import machine_record
from compression.inputs import InputError, shown
from compression.optimizer import restore_optimizers, save_optimizers


@dataclass(frozen=True)
class Progress:
    """How far a run has come: epochs done, the best one (accuracy a fraction), a row for each."""

    epoch: int = 0
    best_accuracy: float = 0.0
    best_epoch: int = 0
    history: tuple[dict[str, float], ...] = ()


class ResumeFile:
    """The state of a run after an epoch, as safetensors: weights, momenta, what the constraint
    holds, best weights, progress.

    Written beside itself and renamed, so a kill while writing leaves the epoch before. It goes
    with one recipe and one start: the digest of what `digest_of` was given. It tells on what the
    run has been computed so far (`machines_of`).
    """

    def __init__(self, path: Path, recipe: dict[str, Any], start: str) -> None:
        self.path, self.recipe, self.start = path, json.dumps(recipe, sort_keys=True), start
        self._machines: list[dict[str, Any]] = [machine_record()]

    def exists(self) -> bool:
        """Whether there is a state to go on from."""
        return self.path.is_file()

    def save(
        self,
        model: nn.Module,
        best_model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        constraint: Constraint,
        progress: "Progress",
    ) -> None:
        """Write the state after an epoch."""
        tensors = save_optimizers(optimizers)
        held = constraint.state()
        tensors |= {f"constraint.{name}": value.contiguous() for name, value in held.items()}
        for prefix, source in (("model", model), ("best", best_model)):
            for name, value in source.state_dict().items():
                tensors[f"{prefix}.{name}"] = value.contiguous()
        metadata = {"recipe": self.recipe, "start": self.start}
        metadata["machines"] = json.dumps(self._machines)
        with replacing(self.path) as beside:
            save_tensors(tensors, beside, metadata | {"progress": json.dumps(asdict(progress))})

    def load(
        self,
        model: nn.Module,
        best_model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        constraint: Constraint,
    ) -> "Progress":
        """Put the state back in place; InputError for a damaged file, or one of another run."""
        metadata, tensors = self._read()
        for name, mine in (("recipe", self.recipe), ("start", self.start)):
            if metadata[name] != mine:
                what = {"recipe": "recipe", "start": "model, masks, images and teacher"}[name]
                raise self._error(f"of this {what}", "another one")
        before = [each for each in _machines(metadata) if each not in self._machines]
        self._machines = [*before, *self._machines]
        groups: dict[str, dict[str, Tensor]] = {
            "model": {}, "best": {}, "optimizer": {}, "constraint": {}
        }  # fmt: skip
        for name, value in tensors.items():
            owner, rest = name.split(".", 1)
            if owner.startswith("optimizer"):
                groups["optimizer"][name] = value
            else:
                groups[owner][rest] = value
        model.load_state_dict(groups["model"])
        best_model.load_state_dict(groups["best"])
        restore_optimizers(optimizers, groups["optimizer"])
        constraint.restore(groups["constraint"])
        progress = json.loads(metadata["progress"])
        return Progress(**progress | {"history": tuple(progress["history"])})

    def _read(self) -> tuple[dict[str, str], dict[str, Tensor]]:
        try:
            with safe_open(self.path, "pt", device="cpu") as file:
                metadata = file.metadata() or {}
                if not {"recipe", "start", "progress"} <= metadata.keys():
                    raise self._error("the state of a run", "another safetensors file")
                # Copies: what is still mapped cannot be replaced on Windows.
                return metadata, {name: file.get_tensor(name).clone() for name in file.keys()}
        except (SafetensorError, OSError) as error:
            raise self._error("whole", shown(str(error))) from error

    def _error(self, expected: str, got: str) -> InputError:
        return InputError(
            f"resume file {self.path} must be {expected}, got {got}: remove it to start anew."
        )

    def remove(self) -> None:
        """The run has ended: nothing to go on from."""
        self.path.unlink(missing_ok=True)


def machines_of(path: Path) -> list[dict[str, Any]]:
    """On what the run of a file has been computed so far, the last one last; none where there is no
    file."""
    if not path.is_file():
        return []
    with safe_open(path, "pt", device="cpu") as file:
        return _machines(file.metadata() or {})


def _machines(metadata: dict[str, str]) -> list[dict[str, Any]]:
    return json.loads(metadata.get("machines", "[]"))


def digest_of(tensors: Iterable[Tensor]) -> str:
    """SHA-256 over the bytes of tensors, in their order: what a run starts from, in one word."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
