"""Shrinking step by step, each replaced by a stand-in: what it is asked for, and what is kept."""

import copy
import importlib
from types import SimpleNamespace

import pytest
import torch

from compression.data import load_cifar10
from compression.model import build_model
from compression.quantization import quantize
from compression.shrink import ShrinkConfig, shrink

module = importlib.import_module("compression.shrink")
FEW = {"compensation_images": 32, "recalibration_images": 48}


@pytest.fixture(scope="module")
def sets():
    return {split: load_cifar10(split, "sample").head(64) for split in ("train", "validation")}


@pytest.fixture(scope="module")
def rounded(tiny_network):
    return quantize(tiny_network, 3)


@pytest.fixture
def fitted(monkeypatch, rounded):
    """What the size was fitted on; the fit itself is left out."""
    asked = []

    def fit(model, max_bytes, images, *, overhead):
        asked.append((model, max_bytes, images))
        return rounded

    monkeypatch.setattr(module, "fit_entropy", fit)
    return asked


@pytest.mark.parametrize(("compensate", "images"), [(True, 32), (False, 0)])
def test_every_setting_reaches_the_training(
    monkeypatch, tiny_network, rounded, sets, compensate, images
):
    asked = {}

    def learned(model, max_bytes, train_set, validation_set, recipe, **options):
        asked.update(options, model=model, max_bytes=max_bytes, recipe=recipe)
        asked["sets"] = (train_set, validation_set)
        yield SimpleNamespace(
            epoch=4, epochs=4, accuracy=0.5, packed_bytes=29_000, quantized=rounded
        )

    monkeypatch.setattr(module, "train_entropy", learned)
    config = ShrinkConfig(
        30_000, epochs=4, learning_rate=0.03, conv_learning_rate=0.2, shrinking=0.25, first_ratio=2,
        worth_power=0.5, compensate=compensate, draws=3, seed=5, centroid_epochs=0, **FEW,
    )  # fmt: skip
    teacher = build_model("tiny", seed=7).eval()
    shrink(tiny_network, sets, config, teachers=[teacher])
    assert (asked["model"], asked["teacher"], asked["start"]) == (tiny_network, teacher, None)
    assert asked["max_bytes"] == 30_000
    assert all(map(lambda a, b: a is b, asked["sets"], sets.values()))
    assert (asked["first_ratio"], asked["shrinking"], asked["worth_power"]) == (2, 0.25, 0.5)
    assert asked["compensation_images"] == images
    recipe = asked["recipe"]
    assert (recipe.epochs, recipe.draws, recipe.seed) == (4, 3, 5)
    assert (recipe.optimizer, recipe.sgd_lr, recipe.sgd_conv_lr) == ("sgd", 0.03, 0.2)


@pytest.mark.parametrize(("as_it_was", "recalibrated"), [(5, 6), (6, 5)])
def test_batch_norm_is_recalibrated_where_that_is_better_on_validation(
    monkeypatch, tiny_network, rounded, sets, fitted, as_it_was, recalibrated
):
    other, seen = copy.deepcopy(rounded.model), []

    def recalibrate(model, images):
        assert model is rounded.model and torch.equal(images, sets["train"].images[:48])
        return other

    def right(model, images, labels):
        seen.append(images is sets["validation"].images and labels is sets["validation"].labels)
        return recalibrated if model is other else as_it_was

    monkeypatch.setattr(module, "recalibrate_batch_norm", recalibrate)
    monkeypatch.setattr(module, "count_correct", right)
    config = ShrinkConfig(30_000, epochs=0, centroid_epochs=0, **FEW)
    small = shrink(tiny_network, sets, config)
    assert (small.model is other) == (recalibrated > as_it_was)
    assert seen == [True, True]
    ((model, max_bytes, images),) = fitted
    assert (model, max_bytes) == (tiny_network, 30_000)
    assert torch.equal(images, sets["train"].images[:32])


@pytest.mark.parametrize("taught", [True, False])
def test_the_best_levels_are_kept_and_learn_from_the_teacher(
    monkeypatch, tiny_network, rounded, sets, fitted, taught
):
    asked, found = {}, [quantize(tiny_network, bits) for bits in (4, 5)]

    def trained(quantized, train_set, validation_set, recipe, **options):
        asked.update(options, quantized=quantized, recipe=recipe)
        asked["sets"] = (train_set, validation_set)
        for epoch, best in enumerate(found, start=1):
            yield SimpleNamespace(
                epoch=epoch, epochs=2, accuracy=0.5, best=best, best_model=best.model
            )

    monkeypatch.setattr(module, "train_centroids", trained)
    config = ShrinkConfig(30_000, epochs=0, centroid_epochs=2, centroid_lr=0.1, seed=5, **FEW)
    teachers = [build_model("tiny", seed=7).eval()] if taught else []
    small = shrink(tiny_network, sets, config, teachers=teachers)
    assert small.parts is found[1]
    assert asked["quantized"].layers is rounded.layers
    assert all(map(lambda a, b: a is b, asked["sets"], sets.values()))
    assert asked["teacher"] is (teachers[0] if taught else tiny_network)
    recipe = asked["recipe"]
    assert (recipe.epochs, recipe.learning_rate, recipe.seed) == (2, 0.1, 5)
    source = " from a tiny" if taught else ""
    assert small.steps[-1] == f"2 epochs of centroid distillation{source}, best on validation"
