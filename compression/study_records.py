"""The runs of an augmentation study (`augmentation_study.py`), and what they allow to be said.

Needs no torch, so that the page can show a recorded study at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from compression.files import read_record
from compression.inputs import InputError

_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365)  # of 1 to 7 degrees of freedom
WAYS = ("plain", "cutout", "gridmask")


@dataclass(frozen=True)
class StudyRun:
    """One run: its best validation accuracy, and what that epoch's model got on the test images.

    seconds: of training, without validation; curve: validation accuracy after each epoch; machine:
    what trained it, in words; commit: of the code that did.
    """

    way: str
    seed: int
    validation_accuracy: float
    correct: int
    total: int
    seconds: float
    curve: tuple[float, ...]
    machine: str = ""
    commit: str = ""

    @property
    def accuracy(self) -> float:
        """Fraction of right answers on the test images."""
        return self.correct / self.total


def load_study(path: Path) -> tuple[list[StudyRun], dict[str, Any]]:
    """The runs of a file, and all else in it. Raises InputError for a file that holds none."""
    content = read_record(path, "of a study")
    try:
        runs = [StudyRun(**run | {"curve": tuple(run["curve"])}) for run in content.pop("runs")]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path.name} must be a file of a study, got another.") from error
    return runs, content


@dataclass(frozen=True)
class Difference:
    """Of two ways, seed by seed, in fractions of the test images: mean and standard deviation (0 of
    one seed)."""

    mean: float
    spread: float
    seeds: int

    @property
    def margin(self) -> float:
        """Half of the mean's 95 % interval by Student's t; infinite for one seed."""
        if self.seeds < 2:
            return inf
        t = _T95[min(self.seeds - 2, len(_T95) - 1)]
        return t * self.spread / self.seeds**0.5

    @property
    def told_apart(self) -> bool:
        """Whether 0 is outside that interval."""
        return abs(self.mean) > self.margin


@dataclass(frozen=True)
class StudySummary:
    """One way over its seeds: test accuracy of each (fractions), and the least and the most seconds
    of training that a run took."""

    way: str
    accuracies: tuple[float, ...]
    seconds: tuple[float, float]

    @property
    def mean(self) -> float:
        """Test accuracy, a fraction."""
        return mean(self.accuracies)

    @property
    def spread(self) -> float:
        """Its standard deviation, 0 of one seed."""
        return _spread(self.accuracies)

    def against(self, other: "StudySummary") -> Difference:
        """This way's accuracy less the other's, seed by seed."""
        apart = [a - b for a, b in zip(self.accuracies, other.accuracies, strict=True)]
        return Difference(mean(apart), _spread(apart), len(apart))


def summarize(runs: Sequence[StudyRun]) -> list[StudySummary]:
    """The ways in their order, over the seeds that all of them have."""
    by_place = {(run.way, run.seed): run for run in runs}
    ways = [way for way in WAYS if any(run.way == way for run in runs)]
    seeds = [
        seed
        for seed in sorted({run.seed for run in runs})
        if all((way, seed) in by_place for way in ways)
    ]
    found = []
    for way in ways:
        mine = [by_place[way, seed] for seed in seeds]
        seconds = [run.seconds for run in mine]
        accuracies = tuple(run.accuracy for run in mine)
        found.append(StudySummary(way, accuracies, (min(seconds), max(seconds))))
    return found


def minutes(seconds: tuple[float, float]) -> str:
    """The least and the most, in minutes."""
    least, most = (f"{each / 60:.1f}" for each in seconds)
    return f"{least} min" if least == most else f"{least} to {most} min"


def _spread(numbers: Sequence[float]) -> float:
    return stdev(numbers) if len(numbers) > 1 else 0.0
