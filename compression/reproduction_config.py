"""What a reproduction of the course report does, as one TOML file says it."""

import dataclasses
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compression.inputs import InputError, choice, real, shown, whole, whole_field
from compression.presets import PRESETS
from compression.recipes import RECIPES


@dataclass(frozen=True)
class ReproductionConfig:
    """What a reproduction does; the fields are those of the TOML file.

    models: name -> the cycles of training by recipe, or one shipped checkpoint;
    compress: which of them goes through the rest. *_images: the first so many of their split.
    max_drop: points that a layer may lose by itself in the scan. Epochs of 0 leave a step out, and
    so do no images for compensation; so does prune = false all that begins with the scan, and the
    dense model alone is quantized. first_last_bits: of the first and the last layer, few weights
    that few bits harm most (Zhou et al. 2016, arXiv 1606.06160, leave both out); 0: the same as of
    all others. code_epochs: of weights that may change their centroid. distil: pruned and quantized
    networks learn the dense one's answers in place of the labels.
    """

    models: dict[str, list[str]] = field(
        default_factory=lambda: {
            "baseline": ["baseline", "baseline-restart", "baseline-finish"],
            "gridmask": ["gridmask", "gridmask-restart", "gridmask-finish"],
        }
    )
    compress: str = "gridmask"
    preset: str = "resnet9-s"
    source: str = "full"
    seed: int = 0
    train_images: int = 45_000
    validation_images: int = 5_000
    test_images: int = 10_000
    scan_images: int = 1_000
    levels: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    max_drop: float = 1.0
    recalibration_images: int = 5_000
    compensation_images: int = 512
    fine_tune_epochs: int = 5
    bits: tuple[int, ...] = (8, 4, 2)
    first_last_bits: int = 0
    centroid_epochs: int = 2
    code_epochs: int = 0
    distil: bool = False
    prune: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.models, dict) or not self.models:
            raise InputError(f"models must name at least one model, got {shown(self.models)}.")
        for name, cycles in self.models.items():
            if not re.fullmatch(r"[\w-]+", str(name)):
                raise InputError(
                    f"models must be named by letters, digits, - and _, got {shown(name)}."
                )
            if not isinstance(cycles, list) or not cycles:
                raise InputError(f"models.{name} must be a list of recipes, got {shown(cycles)}.")
            for cycle in cycles:
                if len(cycles) > 1 or "/" not in str(cycle):
                    choice(f"models.{name}", cycle, RECIPES)
        choice("compress", self.compress, self.models)
        choice("preset", self.preset, PRESETS)
        choice("source", self.source, ("sample", "full"))
        whole_field(self, "seed", 0, 2**31 - 1)
        for name in ("train_images", "recalibration_images", "scan_images"):
            whole_field(self, name, 2, 45_000)
        whole_field(self, "compensation_images", 0, 45_000)
        whole_field(self, "validation_images", 1, 5_000)
        whole_field(self, "test_images", 1, 10_000)
        for name, fits in (("levels", lambda x: real("level", x, 0, 1)), ("bits", _width)):
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or not values:
                raise InputError(f"{name} must be a list of numbers, got {shown(values)}.")
            fitting = tuple(map(fits, values))
            if len(set(fitting)) < len(fitting) or len(fitting) > 100:
                raise InputError(
                    f"{name} must be at most 100 different numbers, got {shown(values)}."
                )
            object.__setattr__(self, name, fitting)
        whole_field(self, "first_last_bits", 0, 8)
        real("max_drop", self.max_drop, 0, 100, "points")
        whole_field(self, "fine_tune_epochs", 0, 1000)
        whole_field(self, "centroid_epochs", 0, 1000)
        whole_field(self, "code_epochs", 0, 1000)
        choice("distil", self.distil, (True, False))
        choice("prune", self.prune, (True, False))

    def widths(self, layers: Sequence[str], bits: int) -> tuple[dict[str, int], str]:
        """Layer -> bits where `bits` are the width, and that in words."""
        every, edges = dict.fromkeys(layers, bits), self.first_last_bits
        if not edges or edges == bits:
            return every, f"{bits} bits"
        return every | {layers[0]: edges, layers[-1]: edges}, f"{bits} bits, first and last {edges}"


def load_config(path: Path) -> ReproductionConfig:
    """Read a TOML file; InputError for one that is missing, is no TOML, or has other fields."""
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"config must be a TOML file, got {path.name} ({shown(str(error))})."
        ) from error
    known = {entry.name: entry for entry in dataclasses.fields(ReproductionConfig)}
    for name in found:
        choice("config field", name, known)
    return ReproductionConfig(**found)


def _width(bits: object) -> int:
    return whole("bits", bits, 1, 8)
