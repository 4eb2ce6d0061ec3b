"""The state of a training run after an epoch, in a file from which a killed run goes on."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from compression.inputs import InputError
from compression.optimizer import restore_optimizers, save_optimizers


@dataclass(frozen=True)
class Progress:
    """How far a run has come: epochs done, the best one (accuracy a fraction), a row for each."""

    epoch: int = 0
    best_accuracy: float = 0.0
    best_epoch: int = 0
    history: tuple[dict[str, float], ...] = ()


class ResumeFile:
    """The state of a run after an epoch, as safetensors: weights, momenta, best weights, progress.

    Written beside itself and renamed, so a kill while writing leaves the epoch before.
    """

    def __init__(self, path: Path, recipe: dict[str, Any]) -> None:
        self.path, self.recipe = path, json.dumps(recipe, sort_keys=True)

    def exists(self) -> bool:
        """Whether there is a state to go on from."""
        return self.path.is_file()

    def save(
        self,
        model: nn.Module,
        best_model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        progress: "Progress",
    ) -> None:
        """Write the state after an epoch."""
        tensors = save_optimizers(optimizers)
        for prefix, source in (("model", model), ("best", best_model)):
            for name, value in source.state_dict().items():
                tensors[f"{prefix}.{name}"] = value.contiguous()
        beside = self.path.with_name(self.path.name + ".part")
        save_file(
            tensors, beside, {"recipe": self.recipe, "progress": json.dumps(asdict(progress))}
        )
        beside.replace(self.path)

    def load(
        self, model: nn.Module, best_model: nn.Module, optimizers: list[torch.optim.Optimizer]
    ) -> "Progress":
        """Put the state back in place; InputError for a file of another recipe."""
        device = next(model.parameters()).device
        with safe_open(self.path, "pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if metadata.get("recipe") != self.recipe:
            raise InputError(
                f"resume file {self.path} must be of this recipe, got another one: "
                "remove it to start anew."
            )
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        for name, value in tensors.items():
            owner, rest = name.split(".", 1)
            if owner.startswith("optimizer"):
                groups["optimizer"][name] = value
            else:
                groups[owner][rest] = value
        model.load_state_dict(groups["model"])
        best_model.load_state_dict(groups["best"])
        restore_optimizers(optimizers, groups["optimizer"])
        progress = json.loads(metadata["progress"])
        return Progress(**progress | {"history": tuple(progress["history"])})

    def remove(self) -> None:
        """The run has ended: nothing to go on from."""
        self.path.unlink(missing_ok=True)
