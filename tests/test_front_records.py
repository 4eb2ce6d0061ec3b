"""Records of fronts: the file of one, and how far its predictions were off."""

import json

import pytest

from compression.front_records import (
    OURS,
    PRICED,
    RIVALS,
    FrontPoint,
    load_front,
    prediction_error,
    save_front,
)
from compression.inputs import InputError


def test_the_prediction_error_by_hand():
    def point(drop, size, way=OURS):
        return FrontPoint(way, "size", 100, size, drop, 100, 80, 100)

    points = [point(0.09, 101), point(0.13, 96), point(0.9, 500, RIVALS[0])]
    found = prediction_error(points, dense_correct=90)
    assert found == pytest.approx(
        {
            "goals": 2,
            "mean_drop_error": 2,
            "greatest_drop_error": 3,
            "drop_bias": 1,
            "mean_size_error": 2.5,
            "greatest_size_error": 4,
        }
    )


def test_a_front_comes_back_from_its_file(tmp_path):
    path = tmp_path / "front.json"
    points = [
        FrontPoint(OURS, "size", 100, 99, 0.25, 98, 80, 100),
        FrontPoint(PRICED, "size", 100, None, None, 97, 81, 100, 0.5, 101),
    ]
    save_front(path, points, 190, 6_000_000, {"command": "x"})
    found, about = load_front(path)
    assert found == points
    assert about == {"command": "x", "dense_correct": 190, "dense_bytes": 6_000_000}
    path.write_text(json.dumps({"points": [{}]}))
    with pytest.raises(InputError, match="front.json must be a file of a measured front"):
        load_front(path)
