"""GridMask against masks worked by hand, a slow per-pixel oracle, rotations by numpy, counts."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.gridmask import grid_mask, kept_fraction, stripe_width
from compression.inputs import InputError

quick = settings(deadline=None, max_examples=40)
units = st.integers(1, 24)
ratios = st.integers(0, 1000).map(lambda k: k / 1000)
offsets = st.integers(-40, 40)
quarters = st.integers(-200, 200).map(lambda k: k / 4)


def rows(mask):
    return ["".join(str(int(pixel)) for pixel in row) for row in mask.tolist()]


def oracle(height, width, *, d, ratio, delta_x=0.0, delta_y=0.0, angle=0.0, invert=False):
    """The rule pixel by pixel: turn the pixel back by the angle, then look where it lies.

    Gives rows of True (kept), False, or None where a boundary is too near to be sure.
    """
    stripe = math.ceil(Fraction(ratio).limit_denominator(10**6) * d)
    back = complex(math.cos(math.radians(angle)), -math.sin(math.radians(angle)))
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2

    def in_stripe(position):
        place = position % d
        if min(abs(place), abs(place - stripe), abs(place - d)) < 1e-5:
            return None if angle % 90 else round(position) % d < stripe
        return place < stripe

    def kept(i, j):
        turned = complex(j - centre_x, centre_y - i) * back  # the y axis points up
        row, column = centre_y - turned.imag - delta_y, centre_x + turned.real - delta_x
        both = (in_stripe(row), in_stripe(column))
        if True in both:
            return not invert
        return None if None in both else invert

    return [[kept(i, j) for j in range(width)] for i in range(height)]


def assert_like_oracle(mask, expected):
    decided = np.array([[pixel is not None for pixel in row] for row in expected])
    wanted = np.array([[bool(pixel) for pixel in row] for row in expected])
    assert np.array_equal(mask.numpy().astype(bool)[decided], wanted[decided])


def test_stripes_of_one_pixel_by_hand():
    mask = grid_mask(6, 6, d=3, ratio=0.3)
    assert mask.dtype == torch.float32
    assert rows(mask) == ["111111", "100100", "100100", "111111", "100100", "100100"]


def test_stripes_of_two_pixels_by_hand():
    assert rows(grid_mask(6, 6, d=3, ratio=0.5)) == [
        "111111",
        "111111",
        "110110",
        "111111",
        "111111",
        "110110",
    ]


def test_offsets_move_right_and_down_by_hand():
    assert rows(grid_mask(6, 6, d=3, ratio=0.3, delta_x=1, delta_y=2)) == [
        "010010",
        "010010",
        "111111",
        "010010",
        "010010",
        "111111",
    ]


def test_an_oblong_image_and_the_inverse_by_hand():
    assert rows(grid_mask(3, 7, d=4, ratio=0.25, delta_x=-1)) == ["1111111", "0001000", "0001000"]
    inverse = grid_mask(3, 7, d=4, ratio=0.25, delta_x=-1, invert=True)
    assert rows(inverse) == ["0000000", "1110111", "1110111"]


def test_a_turn_by_45_degrees_by_hand():
    """d = 2, l = 1 about the centre (1, 1) of 3 x 3 pixels; a place below 1 is in a stripe.

    (row, column) on the turned grid, from the top left: (-0.41, 1), (0.29, 1.71), (1, 2.41);
    (0.29, 0.29), (1, 1), (1.71, 1.71); (1, -0.41), (1.71, 0.29), (2.41, 1).
    """
    assert rows(grid_mask(3, 3, d=2, ratio=0.5, angle=45)) == ["011", "100", "011"]


@quick
@given(units, ratios, quarters, quarters, st.floats(-360, 360), st.booleans())
def test_every_pixel_is_the_oracles(d, ratio, delta_x, delta_y, angle, invert):
    chosen = {"d": d, "ratio": ratio, "delta_x": delta_x, "delta_y": delta_y, "angle": angle}
    mask = grid_mask(9, 14, **chosen, invert=invert)
    assert_like_oracle(mask, oracle(9, 14, **chosen, invert=invert))


@pytest.mark.parametrize("angle", [0.0, 12.5, 45.0, 90.0, 211.0, -300.0])
def test_a_whole_image_is_the_oracles(angle):
    chosen = {"d": 14, "ratio": 0.4, "delta_x": 3, "delta_y": 9, "angle": angle}
    expected = oracle(32, 32, **chosen)
    assert np.mean([[pixel is not None for pixel in row] for row in expected]) > 0.9
    assert_like_oracle(grid_mask(32, 32, **chosen), expected)


@quick
@given(units, ratios, quarters, quarters, st.sampled_from([90, 180, 270, -90, 360]))
def test_right_angles_are_numpys_rot90(d, ratio, delta_x, delta_y, angle):
    straight = grid_mask(13, 13, d=d, ratio=ratio, delta_x=delta_x, delta_y=delta_y)
    turned = grid_mask(13, 13, d=d, ratio=ratio, delta_x=delta_x, delta_y=delta_y, angle=angle)
    assert np.array_equal(turned.numpy(), np.rot90(straight.numpy(), angle // 90))


@quick
@given(units, ratios, st.floats(-50, 50), st.floats(-50, 50), st.floats(-360, 360))
def test_the_inverse_is_the_complement(d, ratio, delta_x, delta_y, angle):
    chosen = {"d": d, "ratio": ratio, "delta_x": delta_x, "delta_y": delta_y, "angle": angle}
    mask, inverse = grid_mask(8, 11, **chosen), grid_mask(8, 11, **chosen, invert=True)
    assert torch.equal(mask + inverse, torch.ones(8, 11))


@quick
@given(units, ratios, quarters, st.floats(-360, 360))
def test_a_unit_further_is_the_same_grid(d, ratio, delta_x, angle):
    mask = grid_mask(9, 9, d=d, ratio=ratio, delta_x=delta_x, angle=angle)
    moved = grid_mask(9, 9, d=d, ratio=ratio, delta_x=delta_x + d, delta_y=-d, angle=angle)
    assert (mask != moved).sum() <= 1  # a pixel may lie on a boundary to the last bit


@quick
@given(units, ratios, offsets, offsets, st.integers(1, 4))
def test_whole_units_keep_exactly_the_formulas_fraction(d, ratio, delta_x, delta_y, count):
    mask = grid_mask(d * count, d, d=d, ratio=ratio, delta_x=delta_x, delta_y=delta_y)
    deleted = count * (d - stripe_width(d, ratio)) ** 2
    assert int((mask == 0).sum()) == deleted
    assert mask.mean().item() == pytest.approx(kept_fraction(d, ratio), abs=1e-6)


@pytest.mark.parametrize("angle", [0, 17, 45, 133])
@pytest.mark.parametrize(("d", "ratio"), [(12, 0.4), (18, 0.4), (7, 0.1), (30, 0.9)])
def test_a_large_image_tends_to_the_formula(d, ratio, angle):
    measured = grid_mask(1024, 1024, d=d, ratio=ratio, angle=angle).mean().item()
    assert measured == pytest.approx(kept_fraction(d, ratio), abs=0.01)


@pytest.mark.parametrize("angle", [0, 33.3])
@pytest.mark.parametrize("d", [1, 5])
def test_ratio_0_deletes_all_and_ratio_1_nothing(d, angle):
    assert not grid_mask(20, 20, d=d, ratio=0, angle=angle, delta_x=0.5).any()
    assert grid_mask(20, 20, d=d, ratio=1, angle=angle, delta_x=0.5).all()
    assert kept_fraction(d, 0) == 0
    assert kept_fraction(d, 1) == 1


def test_a_unit_of_one_pixel_is_all_stripe():
    assert grid_mask(5, 5, d=1, ratio=0.01, angle=30).all()
    assert stripe_width(1, 0.01) == 1


def test_the_stripe_is_the_ceiling_of_the_decimal_product():
    """ceil(d * k/100) in whole numbers; 100 * 0.07 is 7.000000000000001 in floating point."""
    assert math.ceil(100 * 0.07) == 8
    for d in range(1, 300):
        for percent in range(101):
            assert stripe_width(d, percent / 100) == -(-d * percent // 100)
    assert stripe_width(30, 0.1) == 3
    assert stripe_width(10, 0.1 + 0.2) == 3
    assert stripe_width(4096, 1e-9) == 1


def test_the_kept_fraction_by_hand():
    assert kept_fraction(3, 0.3) == pytest.approx(5 / 9)
    assert kept_fraction(10, 0.4) == pytest.approx(1 - 0.36)
    assert kept_fraction(14, 0.4) == pytest.approx(1 - (8 / 14) ** 2)


GOOD = {"height": 32, "width": 32, "d": 14, "ratio": 0.4, "delta_x": 0, "delta_y": 0, "angle": 0}


@pytest.mark.parametrize(
    ("name", "bad", "text"),
    [
        ("height", 0, "height must be a whole number from 1 to 4096 pixels, got 0."),
        ("width", 5000, "width must be a whole number from 1 to 4096 pixels, got 5000."),
        ("d", 0, "d must be a whole number from 1 to 4096 pixels, got 0."),
        ("d", 2.5, "d must be a whole number from 1 to 4096 pixels, got 2.5."),
        ("d", None, "d must be a whole number from 1 to 4096 pixels, got nothing."),
        ("ratio", 1.01, "ratio must be a number from 0 to 1, got 1.01."),
        ("ratio", math.nan, "ratio must be a number from 0 to 1, got NaN (not a number)."),
        ("ratio", "0.4", "ratio must be a number from 0 to 1, got '0.4'."),
        ("delta_x", 4097, "delta_x must be a number from -4096 to 4096 pixels, got 4097."),
        ("delta_y", -1e9, "delta_y must be a number from -4096 to 4096 pixels, got -1000000000.0."),
        ("angle", 361, "angle must be a number from -360 to 360 degrees, got 361."),
        ("angle", math.inf, "angle must be a number from -360 to 360 degrees, got inf."),
    ],
)
def test_what_is_out_of_range_is_refused(name, bad, text):
    with pytest.raises(InputError) as caught:
        grid_mask(**GOOD | {name: bad})
    assert str(caught.value) == text


@pytest.mark.parametrize(("d", "ratio", "name"), [(0, 0.4, "d"), (14, math.nan, "ratio")])
def test_the_formulas_check_too(d, ratio, name):
    for formula in (stripe_width, kept_fraction):
        with pytest.raises(InputError, match=f"^{name} must be "):
            formula(d, ratio)
