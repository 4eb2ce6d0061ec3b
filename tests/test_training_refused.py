"""What training refuses: recipes out of range, empty sets, masks that do not fit."""

import pytest

from compression.inputs import InputError
from compression.training import GridMaskConfig, TrainConfig, train
from tests import training_cases
from tests.training_cases import TINY, tiny_net

images = training_cases.images
validation = training_cases.validation
masks = training_cases.masks


@pytest.mark.parametrize(
    ("name", "bad", "text"),
    [
        ("epochs", 0, "epochs must be a whole number from 1 to 1000, got 0."),
        ("epochs", None, "epochs must be a whole number from 1 to 1000, got nothing."),
        ("batch_size", 1, "batch_size must be a whole number from 2 to 50000 images, got 1."),
        ("optimizer", "adam", "optimizer must be one of muon, sgd, got 'adam'."),
        ("muon_lr", -1, "muon_lr must be a number from 0 to 100, got -1."),
        ("sgd_lr", float("nan"), "sgd_lr must be a number from 0 to 100, got NaN (not a number)."),
        ("muon_momentum", 1.1, "muon_momentum must be a number from 0 to 1, got 1.1."),
        ("sgd_momentum", "0.9", "sgd_momentum must be a number from 0 to 1, got '0.9'."),
        ("muon_weight_decay", 11, "muon_weight_decay must be a number from 0 to 10, got 11."),
        ("sgd_weight_decay", -1, "sgd_weight_decay must be a number from 0 to 10, got -1."),
        (
            "sgd_conv_lr",
            0.1,
            "sgd_conv_lr must be left out where muon trains the convolutions, got 0.1.",
        ),
        ("warmup", 2, "warmup must be a number from 0 to 1, got 2."),
        ("label_smoothing", -0.1, "label_smoothing must be a number from 0 to 1, got -0.1."),
        ("translate", 17, "translate must be a whole number from 0 to 16 pixels, got 17."),
        ("cutout", 33, "cutout must be a whole number from 0 to 32 pixels, got 33."),
        ("precision", "half", "precision must be one of auto, float32, bfloat16, got 'half'."),
        ("seed", -1, "seed must be a whole number from 0 to 2147483647, got -1."),
    ],
)
def test_a_recipe_out_of_range_is_refused(name, bad, text):
    with pytest.raises(InputError) as caught:
        TrainConfig(**{name: bad})
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"d_range": (18, 12)}, "d_range must go from low to high"),
        ({"ratio": 1.5}, "ratio must be a number from 0 to 1, got 1.5"),
        ({"probability": -1}, "probability must be a number from 0 to 1, got -1"),
    ],
)
def test_gridmask_in_a_recipe_is_checked_at_once(change, text):
    with pytest.raises(InputError, match=f"^{text}"):
        GridMaskConfig(**change)


@pytest.mark.parametrize("name", ["train_set", "validation_set"])
def test_an_empty_set_is_refused(images, validation, name):
    sets = {"train_set": images, "validation_set": validation}
    sets[name] = sets[name].head(0)
    with pytest.raises(InputError, match=f"^{name} must hold at least one image, got none"):
        next(train(tiny_net(), **sets, config=TINY))


def test_masks_of_unknown_layers_and_other_shapes_are_refused(images, validation, masks):
    with pytest.raises(
        InputError, match="^layer must be one of first, second, linear, got 'conv1'"
    ):
        next(train(tiny_net(), images, validation, TINY, masks={"conv1": masks["first"]}))
    with pytest.raises(InputError, match="^mask of first must be a bool tensor of shape "):
        next(train(tiny_net(), images, validation, TINY, masks={"first": masks["second"]}))
