"""What is read off a scan's points: sparsities suggested by hand, the last of a place, the CSV."""

import pytest

from compression.inputs import InputError
from compression.sensitivity import (
    SensitivityPoint,
    latest,
    scan_csv,
    suggest_sparsities,
    tolerated_accuracy,
)


def place(layer: str, sparsity: float, correct: int, total: int = 100) -> SensitivityPoint:
    return SensitivityPoint.counted(layer, sparsity, correct, total)


def test_suggestions_worked_by_hand():
    """Dense 90 %, at most 2 points lost: a level counts only if no lower one has fallen."""
    points = [
        place("a", 0.7, 88), place("a", 0.3, 95), place("a", 0.9, 20), place("a", 0.5, 89),
        place("b", 0.3, 87), place("b", 0.5, 90),
        place("c", 0.3, 89), place("c", 0.5, 80), place("c", 0.7, 89),
        place("d", 0.5, 10, 20), place("d", 0.5, 90),
    ]  # fmt: skip
    assert suggest_sparsities(points, 0.9, 0.02) == {"a": 0.7, "b": 0.0, "c": 0.3, "d": 0.5}
    assert suggest_sparsities(points, 0.9, 0.0) == {"a": 0.3, "b": 0.0, "c": 0.0, "d": 0.5}
    assert suggest_sparsities(points, 0.9, 1.0) == {"a": 0.9, "b": 0.5, "c": 0.7, "d": 0.5}
    assert suggest_sparsities([], 0.9, 0.02) == {}


def test_tolerated_accuracy():
    assert tolerated_accuracy(0.9, 0.02) == pytest.approx(0.88)
    assert tolerated_accuracy(0.1, 0.5) == 0.0
    with pytest.raises(InputError, match="max_drop must be a number from 0 to 1, got 2"):
        tolerated_accuracy(0.9, 2)
    with pytest.raises(InputError, match="dense_accuracy must be a number .*, got NaN"):
        suggest_sparsities([], float("nan"), 0.1)


def test_the_last_point_of_a_place_counts_and_makes_the_csv():
    points = [
        place("b", 0.5, 1, 2),
        place("a", 0.5, 2, 2),
        place("b", 0.25, 0, 2),
        place("b", 0.5, 3, 4),
    ]
    assert latest(points) == [points[2], points[3], points[1]]
    header, *rows = scan_csv(points).splitlines()
    assert header == "layer,sparsity,accuracy,correct,total,low,high"
    assert [row.split(",")[:5] for row in rows] == [
        ["b", "0.25", "0.0", "0", "2"],
        ["b", "0.5", "0.75", "3", "4"],
        ["a", "0.5", "1.0", "2", "2"],
    ]
    assert float(rows[1].split(",")[5]) == points[3].low
