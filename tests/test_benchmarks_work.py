"""The benchmarks' work: their peers do the same as ours, on inputs of their kind, as limits count.

Nothing is timed here. What needs a package of benchmarks/requirements.txt skips without it.
"""

import json
from itertools import islice

import numpy as np
import pytest
import torch

from benchmarks import codebooks, kmeans, limits
from benchmarks.codebooks import quantized
from benchmarks.kmeans_work import DISTRIBUTIONS, draw
from benchmarks.peers import clustering
from benchmarks.peers.gridmask import PublishedGridMask
from benchmarks.peers.scan import picture_loader, prune_, scan_loop, tensor_loader
from benchmarks.peers.training import eager_predictions, loader_predictions, training_steps
from benchmarks.subjects import images_of, shipped_model
from compression.evaluation import evaluate
from compression.gridmask import GridMask
from compression.kmeans import kmeans_1d, squared_error
from compression.masks import magnitude_mask
from compression.quantization import quantize
from compression.resnet9 import prunable_layers
from compression.sensitivity import scan


@pytest.fixture(scope="module")
def model():
    return shipped_model()


@pytest.fixture(scope="module")
def data():
    return images_of("validation", 60)


def needs(package):
    if not clustering.is_installed(package):
        pytest.skip(f"{package} is not installed: pip install -r benchmarks/requirements.txt")


@pytest.mark.parametrize("make_loader", [picture_loader, tensor_loader])
def test_the_scan_loop_counts_what_ours_counts(model, data, make_loader):
    layers, levels = ["res1.first", "linear"], [0.5, 0.9]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = scan_loop(model, make_loader(data.images, data.labels), levels, layers)
    ours = scan(
        model, data.images, data.labels, levels=levels, layers=layers, precision="float32",
        cache=None,
    )  # fmt: skip
    assert found == {(point.layer, point.sparsity): point.correct for point in ours}
    assert len(set(found.values())) > 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_loops_pruning_zeroes_what_ours_does(model):
    weight = prunable_layers(model)["conv2"].weight.detach().clone()
    expected = weight * magnitude_mask(weight, 0.7)
    prune_(weight, 0.7)
    assert torch.equal(weight, expected)
    assert int((weight == 0).sum()) == round(0.7 * weight.numel())


@pytest.mark.parametrize(("size", "d_range"), [(32, (12, 18)), (48, (20, 40))])
def test_published_gridmask_keeps_about_as_much_as_ours(size, d_range):
    images = torch.ones(300, 3, size, size)
    published = PublishedGridMask(d_range, 0.4, 360)(images)
    ours = GridMask(d_range, 0.4, 360, 1.0)(images)
    assert published.shape == ours.shape
    assert set(published.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(published[:, 0], published[:, 2])
    assert published.mean().item() == pytest.approx(ours.mean().item(), abs=0.03)


def test_published_gridmask_without_a_turn_is_our_pattern():
    published = PublishedGridMask((6, 6), 0.5, 1, seed=2).mask(12, 12)
    rows = published.min(1).values  # 1 in a kept stripe of rows
    columns = published.min(0).values
    assert torch.equal(published, torch.maximum(rows[:, None], columns[None, :]))
    assert rows.sum() == columns.sum() == 6
    assert torch.equal(rows[:6], rows[6:])


def test_published_gridmask_leaves_images_by_its_probability():
    images = torch.ones(4, 3, 32, 32)
    assert torch.equal(PublishedGridMask((12, 18), 0.4, 360, 0.0)(images), images)


@pytest.mark.parametrize("loop", [eager_predictions, loader_predictions])
def test_the_plain_loops_predict_what_evaluate_predicts(model, data, loop):
    predictions = loop(model, data.images)
    assert torch.equal(predictions, evaluate(model, data.images, data.labels).predictions)
    assert (predictions == data.labels).float().mean() > 0.8


def test_the_tutorials_training_starts_from_the_model_and_leaves_it(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = list(islice(training_steps(model, images_of("train", 256)), 2))
    assert losses[0] < 0.6  # of a trained model; 2.3 is that of guessing
    assert losses[1] != losses[0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("package", ["scikit-learn", "fast-pytorch-kmeans"])
def test_other_packages_are_never_better_than_ours(package):
    needs(package)
    values = draw("laplacian", 3000)
    for bits in (2, 4):
        ours = squared_error(values, *kmeans_1d(values, 2**bits))
        other = clustering.METHODS[package](values, 2**bits)
        assert ours <= squared_error(values, *other) * 1.001
        assert len(other[1]) == len(values) and other[1].max() < 2**bits


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_error_ratios_are_within_a_thousandth_of_the_optimum(distribution):
    needs("kmeans1d")
    values = draw(distribution, 2000)
    for bits in (2, 4):
        best = squared_error(values, *clustering.exact(values, 2**bits))
        ours = squared_error(values, *kmeans_1d(values, 2**bits))
        assert kmeans.excess_percent(ours, best) <= 0.1


def test_an_excess_over_nothing():
    assert kmeans.excess_percent(1.5, 1.0) == 50.0
    assert kmeans.excess_percent(0.0, 0.0) == 0.0
    assert kmeans.excess_percent(1.0, 0.0) == float("inf")


def test_draws_are_repeatable_and_of_their_kind():
    for name in DISTRIBUTIONS:
        values = draw(name, 500, seed=3)
        assert values.dtype == np.float32 and len(values) == 500 and np.isfinite(values).all()
        assert np.array_equal(values, draw(name, 500, seed=3))
    assert len(np.unique(draw("constant", 500))) == 1
    assert len(np.unique(draw("61 distinct values", 5000))) == 61
    assert 0.6 < (draw("pruned, with its zeros", 5000) == 0).mean() < 0.75


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(clustering.PACKAGES, "kmeans1d", "no_such_module")
    assert not clustering.is_installed("kmeans1d")
    with pytest.raises(RuntimeError, match="kmeans1d must be installed: pip install -r"):
        clustering.exact(np.zeros(3, np.float32), 2)


def test_codebooks_of_the_package_hold_few_values(model):
    needs("fast-pytorch-kmeans")
    found = quantized(model, 2, "fast-pytorch-kmeans", 0)
    for layer in prunable_layers(found).values():
        assert layer.weight.unique().numel() <= 4
    assert torch.equal(
        quantized(model, 2, "linear").conv1.conv.weight,
        prunable_layers(quantize(model, 2, kind="linear").model)["conv1"].weight,
    )


def test_codebook_rows_are_what_quantize_gives_and_are_kept(monkeypatch, tmp_path, model, data):
    monkeypatch.setattr(codebooks, "is_installed", lambda _: False)
    monkeypatch.setattr(codebooks, "FILE", tmp_path / "codebooks.json")
    found = list(codebooks.rows_of(model, data, (4,), (0,)))
    assert [(row.kind, row.bits, row.seed) for row in found] == [
        ("kmeans", 4, None), ("linear", 4, None)
    ]  # fmt: skip
    expected = evaluate(quantize(model, 4).model, data.images, data.labels)
    assert (found[0].correct, found[0].total) == (expected.correct, 60)
    assert 0 < found[0].squared_error < found[1].squared_error
    codebooks.write(found, data, 0.9)
    content = json.loads((tmp_path / "codebooks.json").read_text())
    assert content["command"] == "python -m benchmarks --only codebooks"
    assert content["rows"][0]["accuracy"] == expected.accuracy
    assert content["dense_accuracy"] == 0.9 and "processor" in content["machine"]


def test_the_limit_of_a_scan_counts_from_each_layer_on(model):
    macs = limits.layer_macs(model)
    assert macs["conv1"] == 32 * 32 * 32 * 27 and macs["linear"] == 2560
    assert list(macs) == list(prunable_layers(model))
    total = sum(macs.values())
    assert limits.scan_macs(model, 3, ["conv1", "linear"]) == total + 3 * (total + 2560)
    rates = limits.Rates(2e9, None, 1e9)
    assert rates.compute_seconds(1e9) == 1.0 and rates.traffic_seconds(5e8) == 0.5
    assert rates.text() == "2 GFLOP/s in float32, copies at 1.0 GB/s"
