"""GridMask's worth, honestly: the same recipe without it, with Cutout, and with it, several seeds.

The runs of a seed share their first weights and differ in augmentation alone. One short schedule
for all; batches, flips and translations are those of the recipe (`recipes.py`).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from compression.data import ImageSet
from compression.evaluation import evaluate
from compression.files import write_json
from compression.hardware import machine_record
from compression.inputs import InputError, choice, shown, whole, whole_field
from compression.presets import PRESETS
from compression.recipes import RECIPES, TrainConfig
from compression.recorded_machine import machine_text
from compression.resnet9 import build_model
from compression.resume import machines_of
from compression.study_records import WAYS, StudyRun, load_study
from compression.training import train

_RECIPE_OF = {"plain": "baseline", "cutout": "cutout", "gridmask": "gridmask"}


@dataclass(frozen=True)
class StudyConfig:
    """epochs and small_epochs (the first so many, at 24 pixels) of each run; seeds: of weights,
    order and augmentation."""

    preset: str = "resnet9-s"
    epochs: int = 8
    small_epochs: int = 3
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        choice("preset", self.preset, PRESETS)
        whole_field(self, "epochs", 1, 1000)
        whole_field(self, "small_epochs", 0, self.epochs)
        if not self.seeds:
            raise InputError("seeds must name at least one seed, got none.")
        seeds = tuple(whole("seed", seed, 0, 2**31 - 1) for seed in self.seeds)
        if len(set(seeds)) < len(seeds):
            raise InputError(f"seeds must be different numbers, got {shown(self.seeds)}.")
        object.__setattr__(self, "seeds", seeds)

    def recipe(self, way: str, seed: int) -> TrainConfig:
        """The recipe of one run."""
        config = RECIPES[_RECIPE_OF[way]]
        masks = config.gridmask
        if masks is not None:  # the ramp keeps its share of the schedule
            masks = replace(masks, ramp_epochs=masks.ramp_epochs * self.epochs // config.epochs)
        return replace(
            config, epochs=self.epochs, small_epochs=self.small_epochs, seed=seed, gridmask=masks
        )


def run_study(
    path: Path, sets: dict[str, ImageSet], config: StudyConfig, *, command: str = ""
) -> Iterator[StudyRun]:
    """Train each way with each seed, seed by seed; `path` holds what is done, a run the file has is
    not made again, and one that was killed goes on at its last epoch.

    Raises InputError for a file of another study, or of other images.
    """
    images = {split: len(found) for split, found in sets.items()}
    asked = json.loads(json.dumps(asdict(config))) | {"images": images}
    recipes = json.loads(json.dumps({way: asdict(config.recipe(way, 0)) for way in WAYS}))
    done: list[StudyRun] = []
    if path.is_file():
        done, content = load_study(path)
        if content.get("config") != asked:
            raise InputError(f"{path.name} must hold a study of the same config, got another one.")
        if content.get("recipes", recipes) != recipes:
            raise InputError(
                f"{path.name} must hold a study by the same recipes, got one by others."
            )
    about = {"command": command, "config": asked, "recipes": recipes}
    for seed in config.seeds:
        for way in WAYS:
            known = [run for run in done if (run.way, run.seed) == (way, seed)]
            if not known:
                resume = path.with_name(f"{path.stem}-{way}-{seed}.resume")
                done.append(_trained(way, seed, sets, config, resume))
                rows = [asdict(run) for run in done]
                write_json(path, about | {"runs": rows})
                resume.unlink(missing_ok=True)
            yield known[0] if known else done[-1]


def _trained(
    way: str, seed: int, sets: dict[str, ImageSet], config: StudyConfig, resume: Path
) -> StudyRun:
    """One run, left at its last epoch with its state beside it, until it is in the file."""
    record = machine_record()  # of the code that runs, whatever is committed meanwhile
    model, recipe = build_model(config.preset, seed=seed), config.recipe(way, seed)
    run = train(model, sets["train"], sets["validation"], recipe, resume=resume)
    last = next(result for result in run if result.epoch == config.epochs)
    records = machines_of(resume) or [record]  # of a run that was gone on with, several
    found = evaluate(last.best_model, sets["test"].images, sets["test"].labels)
    return StudyRun(
        way,
        seed,
        last.best_accuracy,
        found.correct,
        found.total,
        sum(row["seconds"] for row in last.history),
        tuple(row["accuracy"] for row in last.history),
        "; ".join(dict.fromkeys(map(machine_text, records))),
        "; ".join(dict.fromkeys(str(each["commit"]) for each in records)),
    )
