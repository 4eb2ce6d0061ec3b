"""The checks of a user's numbers and choices: what passes, and the exact sentence for the rest."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.augmentation_study import StudyConfig
from compression.fronts import FrontConfig
from compression.inputs import InputError, choice, count, real, shown, whole
from compression.recipes import TrainConfig
from compression.reproduction_config import ReproductionConfig
from compression.shrink import ShrinkConfig

NAN = float("nan")


@pytest.mark.parametrize("value", [0, 1, 0.25, Fraction(1, 3), np.float32(0.5), np.int64(1)])
def test_real_gives_the_value_as_a_float(value):
    result = real("ratio", value, 0, 1)
    assert type(result) is float
    assert result == float(value)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (NAN, "NaN (not a number)"),
        (np.float32("nan"), "NaN (not a number)"),
        (float("inf"), "inf"),
        (-0.001, "-0.001"),
        (1.001, "1.001"),
        (10**400, "1" + 56 * "0" + "..."),
        (None, "nothing"),
        ("0.5", "'0.5'"),
        (True, "True"),
        ([0.5], "[0.5]"),
        (1j, "1j"),
        (torch.tensor(0.5), "tensor(0.5000)"),
    ],
)
def test_real_refuses_in_one_sentence(value, got):
    with pytest.raises(InputError) as caught:
        real("ratio", value, 0, 1)
    assert str(caught.value) == f"ratio must be a number from 0 to 1, got {got}."


def test_the_unit_and_the_ends_of_the_range_are_said():
    assert real("angle", -360, -360, 360, "degrees") == -360
    with pytest.raises(InputError) as caught:
        real("angle", 361, -360, 360, "degrees")
    assert str(caught.value) == "angle must be a number from -360 to 360 degrees, got 361."


@pytest.mark.parametrize("value", [1, 8, 3.0, np.int64(3), np.float64(2.0), Fraction(4, 2)])
def test_whole_gives_the_value_as_an_int(value):
    result = whole("bits", value, 1, 8)
    assert type(result) is int
    assert result == value


@pytest.mark.parametrize("value", [0, 9, 2.5, NAN, float("inf"), None, "4", True, [4], {}])
def test_whole_refuses_in_one_sentence(value):
    with pytest.raises(InputError) as caught:
        whole("bits", value, 1, 8)
    expected = f"bits must be a whole number from 1 to 8, got {shown(value)}."
    assert str(caught.value) == expected


@settings(deadline=None)
@given(st.floats() | st.integers() | st.none() | st.booleans() | st.text(max_size=3))
def test_whole_gives_a_number_in_range_or_an_input_error(value):
    try:
        result = whole("d", value, 1, 4096)
    except InputError:
        in_range = type(value) in (int, float) and 1 <= value <= 4096 and value == int(value)
        assert not in_range
    else:
        assert 1 <= result <= 4096
        assert result == value


@pytest.mark.parametrize("options", [("auto", "full"), ["auto", "full"], {"auto": 1, "full": 2}])
def test_choice_gives_the_option_or_lists_all(options):
    assert choice("source", "full", options) == "full"
    with pytest.raises(InputError) as caught:
        choice("source", "web", options)
    assert str(caught.value) == "source must be one of auto, full, got 'web'."


@pytest.mark.parametrize("options", [("auto", "full"), {"auto", "full"}, {"auto": 1, "full": 2}])
@pytest.mark.parametrize("value", [None, ["auto"], {"a": 1}, 3, np.array([1, 2]), torch.ones(2)])
def test_choice_refuses_odd_types(value, options):
    with pytest.raises(InputError, match="^source must be one of .*, got "):
        choice("source", value, options)


def test_what_came_is_shown_on_one_short_line():
    assert shown("a\nb") == r"'a\nb'"
    assert shown(np.eye(2)) == "array([[1., 0.], [0., 1.]])"
    assert shown("x" * 500) == "'" + "x" * 56 + "..."
    assert len(shown(list(range(1000)))) == 60


def test_a_count_has_its_noun():
    told = [count(number, "epoch") for number in (0, 1, 2)]
    assert told == ["0 epochs", "1 epoch", "2 epochs"]
    assert [count(number, "is", "are") for number in (1, 2)] == ["1 is", "2 are"]


def test_an_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (TrainConfig(epochs=3.0, draws=2.0, batch_size=64.0), "epochs draws batch_size"),
        (ShrinkConfig(30_000, epochs=8.0, compensation_images=9.0), "epochs compensation_images"),
        (FrontConfig(sizes=4.0, seed=1.0), "sizes seed"),
        (StudyConfig(epochs=2.0, small_epochs=1.0), "epochs small_epochs"),
        (ReproductionConfig(train_images=1e3, centroid_epochs=2.0, test_images=9.0),
         "train_images centroid_epochs test_images"),
    ],
)  # fmt: skip
def test_recipes_keep_whole_numbers_as_ints(config, name):
    assert {type(getattr(config, each)) for each in name.split()} == {int}
