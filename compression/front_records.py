"""The points of a measured front (`fronts.py`) in a JSON file, and what their predictions missed.

Needs no torch, so that the page can draw a recorded front at once.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from compression.files import read_record, write_json
from compression.inputs import InputError, shown

OURS = "measured damage"
COMPENSATED = "measured damage, rounding compensated"
PRICED = "entropy-constrained, rounding compensated"
RIVALS = ("one sparsity for all", "one threshold for all", "random")


@dataclass(frozen=True)
class FrontPoint:
    """One packed file: the way its bytes were spread, and what was wanted, foretold, found.

    goal: `size` (spaced evenly on a logarithmic axis) or `random`; goal_bytes: asked for; size and
    drop (a fraction of accuracy) as predicted, None where nothing is; packed_bytes on disk; correct
    answers of total; price (nats for a bit) and the bytes tried at it, from which the search for
    the next size goes on, where there was one; bits: the width of a usual way, best of several on
    validation images, None for the other ways and where it was chosen by what was predicted.
    """

    way: str
    goal: str
    goal_bytes: int
    predicted_bytes: int | None
    predicted_drop: float | None
    packed_bytes: int
    correct: int
    total: int
    price: float | None = None
    tried_bytes: int | None = None
    bits: int | None = None

    @property
    def accuracy(self) -> float:
        """Fraction of right answers."""
        return self.correct / self.total


def save_front(
    path: Path,
    points: Sequence[FrontPoint],
    dense_correct: int,
    dense_bytes: int,
    about: dict[str, Any],
) -> None:
    """Write the points measured so far, with what is said of them."""
    content = about | {
        "dense_correct": dense_correct,
        "dense_bytes": dense_bytes,
        "points": [asdict(point) for point in points],
    }
    write_json(path, content)


def load_front(path: Path) -> tuple[list[FrontPoint], dict[str, Any]]:
    """The points of a file, and all else in it. Raises InputError for a file that holds none."""
    content = read_record(path, "of a front")
    try:
        return [FrontPoint(**point) for point in content.pop("points")], content
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path.name} must be a file of a measured front, got {shown(str(error))}."
        ) from error


def prediction_error(points: Sequence[FrontPoint], dense_correct: int) -> dict[str, float]:
    """How far our predictions were off, over all goals that were met: drops in points of accuracy,
    sizes in percent; mean and greatest, without sign, and the mean of the drops with it: above 0
    where too large ones were predicted."""
    ours = [point for point in points if point.way == OURS]
    drops, sizes = [], []
    for p in ours:
        assert p.predicted_drop is not None and p.predicted_bytes is not None
        drops.append(100 * (p.predicted_drop - (dense_correct - p.correct) / p.total))
        sizes.append(abs(100 * (p.predicted_bytes / p.packed_bytes - 1)))
    return {
        "goals": len(ours),
        "mean_drop_error": mean(map(abs, drops)),
        "greatest_drop_error": max(map(abs, drops)),
        "drop_bias": mean(drops),
        "mean_size_error": mean(sizes),
        "greatest_size_error": max(sizes),
    }
