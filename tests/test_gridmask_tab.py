"""The GridMask tab: a grid over a picture of the visitor's own, and what the two runs allow."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

import compression
from compression.ui.explorer import Explorer
from compression.ui.gridmask_tab import conclusion, show_grid

WIDE = np.random.default_rng(0).integers(1, 256, (40, 60, 3), np.uint8)  # no pixel is black
D, RATIO, ANGLE, RIGHT, DOWN = 12, 0.4, 30, 3, 8  # stripes of 5 pixels


def shown_on(pixels, invert):
    """The three pictures over a picture of the visitor's own, and their captions."""
    shown = show_grid(Explorer(), pixels, "cat", 1, D, RATIO, ANGLE, RIGHT, DOWN, invert)
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(part.partition('"')[0]))))
        for part in shown.split("base64,")[1:]
    ]
    return pictures, re.findall("<figcaption>(.*?)</figcaption>", shown)


@pytest.mark.parametrize(("invert", "of_units"), [(False, "66.0%"), (True, "34.0%")])
def test_a_turned_and_shifted_grid_lies_over_an_oblong_picture(invert, of_units):
    """1 - (7 / 12)^2 = 66.0 % of whole units stay; the inverted grid keeps the rest of them."""
    (original, mask, result), captions = shown_on(WIDE, invert)
    wanted = compression.grid_mask(
        40, 60, d=D, ratio=RATIO, delta_x=RIGHT, delta_y=DOWN, angle=ANGLE, invert=invert
    ).numpy()
    assert np.array_equal(original, WIDE)
    assert np.array_equal(mask, (255 * wanted).astype(np.uint8))
    assert np.array_equal(result, WIDE * wanted[..., None].astype(np.uint8))
    assert captions == [
        "Original, 60 x 40 pixels",
        "Mask: white stays; stripes are 5 of every 12 pixels",
        f"Result: {wanted.mean():.1%} kept; {of_units} of each whole unit of the grid",
    ]


def run(accuracy, **more):
    return {
        "test_accuracy": accuracy, "test_interval": (accuracy - 0.005, accuracy + 0.006),
        "data": {"test": 10_000}, "training_seconds": 1830.0, "curves": [{}] * 18,
        "machine": {"processor": "Some CPU", "threads": 2},
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("masked", "said"),
    [(0.905, "+0.50 points from the baseline, within its"),
     (0.907, "+0.70 points from the baseline, outside its"),
     (0.896, "-0.40 points from the baseline, within its"),
     (0.894, "-0.60 points from the baseline, outside its")],
)  # fmt: skip
def test_a_difference_is_told_by_the_baselines_interval(masked, said):
    shown = conclusion({"baseline": run(0.9), "gridmask": run(masked)})
    assert f"The GridMask model is {said} 95 % interval. One run of each cannot" in shown
    values = re.findall('class="cx-(?:label|value)">(.*?)<', shown)
    assert values[:4] == [
        "baseline: test accuracy", "90.00 %", "gridmask: test accuracy", f"{100 * masked:.2f} %",
    ]  # fmt: skip
    assert values[4:] == ["baseline: training time", "30 min", "gridmask: training time", "30 min"]
    assert "95 % interval 89.50% to 90.60%, 10,000 test images" in shown
    assert shown.count("18 epochs; Some CPU, 2 threads; wall time") == 2


def test_other_causes_are_told_where_the_runs_differ_in_more_than_the_masks():
    twice, averaged = {"earlier": [{}]}, {"earlier": [{}], "averaged": True}
    for kept in ({}, twice, averaged):
        shown = conclusion({"baseline": run(0.9, **kept), "gridmask": run(0.91, **kept)})
        assert "That is not GridMask alone" not in shown
    shown = conclusion({"baseline": run(0.9, **twice), "gridmask": run(0.91, **averaged)})
    assert (
        "That is not GridMask alone: the baseline is what the last of 2 rounds of training gave, "
        "the GridMask model the mean of the weights after 2 rounds of training. " in shown
    )
    shown = conclusion({"baseline": run(0.9, **twice), "gridmask": run(0.91)})
    assert "the last of 2 rounds of training gave, the GridMask model what the last of 1" in shown
