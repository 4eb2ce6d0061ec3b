"""Quantizing a pruned model on the page: errors that make up, a file for a size, recalibration."""

import functools

import pytest
import torch

import compression
from compression.entropy_quantization import fit_entropy_by_trial
from compression.ui import quantize_steps, size_fit
from compression.ui.quantize_steps import ROUNDINGS, SOURCES, quantize_layers, recalibrate
from compression.ui.size_fit import quantize_for_size
from tests import visit_cases
from tests.training_cases import same_bits
from tests.visit_cases import TO_MEASURE

explorer = visit_cases.explorer
start = visit_cases.start
pruned = visit_cases.pruned

IMAGES = 96
PRICE = 5e-5  # nats for a bit, at which the first file fits


@pytest.fixture
def few(monkeypatch, explorer):
    """The training images that errors make up for each other on: fewer, which is sooner done."""
    for module in (quantize_steps, size_fit):
        monkeypatch.setattr(module, "COMPENSATION_IMAGES", IMAGES)
    return explorer.images("train", "full").images[:IMAGES]


@pytest.fixture(scope="module")
def quantized(explorer, pruned):
    """The pruned model's visit with each weight at the nearest of few values."""
    rows = with_cell(explorer, pruned, "conv2", "3")
    *_, (session, *_) = quantize_layers(explorer, pruned, SOURCES[1], 2, rows, ROUNDINGS[0])
    return session


def with_cell(explorer, session, layer, cell):
    """The table of widths with one cell filled in."""
    return [
        [name, cell if name == layer else ""]
        for name, _ in quantize_steps.empty_overrides(explorer, session)
    ]


@pytest.mark.parametrize(
    ("bits", "cell", "spare", "label"),
    [(2, "", False, "2 bits"), (2, "", True, "2 bits, first and last 8"), (8, "", True, "8 bits"),
     (2, "3", True, "mixed bits")],
)  # fmt: skip
def test_sparing_the_first_and_the_last_layer_is_in_the_name(
    explorer, start, bits, cell, spare, label
):
    rows = with_cell(explorer, start, "conv2", cell)
    said = list(quantize_layers(explorer, start, SOURCES[0], bits, rows, ROUNDINGS[0], spare))
    session, status, *_ = said[-1]
    found = explorer.variant(str(session.quantized))
    assert found.name == f"tiny · {label}"
    sizes = [len(found.layers[name].codebook) for name in ("conv1", "linear")]
    assert sizes == ([216, 256] if spare or bits == 8 else [4, 4])  # conv1 has 216 weights
    assert ("spare the first and the last layer" in status) == (label == "2 bits")


def same_layers(one, other):
    """Whether layers have the same codes, centroids and zeros, bit for bit."""
    assert list(one) == list(other)
    return all(
        torch.equal(one[name].indices, other[name].indices)
        and torch.equal(one[name].codebook, other[name].codebook)
        and one[name].zero_code == other[name].zero_code
        for name in one
    )


def same_masks(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_errors_make_up_for_each_other_on_training_images_and_zeros_stay(explorer, pruned, few):
    before = explorer.variant(pruned.pruned)
    rows = [[name, "3" if name == "conv2" else ""] for name in before.masks]
    asked = (explorer, pruned, SOURCES[1], 2, rows, ROUNDINGS[1])
    said, seen, measured = explorer.told(quantize_layers(*asked))
    session, status, *_ = said[-1]
    found = explorer.variant(session.quantized)
    widths = {name: 3 if name == "conv2" else 2 for name in before.masks}
    wanted = compression.quantize_compensated(before.model, widths, few, before.masks)
    assert same_layers(found.layers, wanted.layers) and same_masks(found.masks, before.masks)
    assert same_bits(found.model, wanted.model)
    assert (seen, measured) == (set(), {"full train"} | TO_MEASURE)
    assert session.unquantized == pruned.pruned
    assert found.name == f"{before.name} · mixed bits · compensated"
    made_up = f"rounding errors made up for on {IMAGES} training images"
    assert found.steps == (*before.steps, "k-means quantized to mixed bits", made_up)
    assert "let errors make up" not in status


def test_a_file_for_a_size_keeps_the_zeros_of_pruning(monkeypatch, explorer, pruned, few):
    fit = functools.partial(fit_entropy_by_trial, first_price=PRICE)
    monkeypatch.setattr(compression, "fit_entropy_by_trial", fit)
    before = explorer.variant(pruned.pruned)
    said, seen, measured = explorer.told(quantize_for_size(explorer, pruned, SOURCES[1], 16.2))
    session, status, *_ = said[-1]
    found = explorer.variant(session.quantized)
    budget, overhead = 16.2 * 1024, compression.description_bytes(found.name, found.steps)
    *_, last = fit(before.model, budget, few, before.masks, overhead=overhead)
    assert last.best is not None and same_layers(found.layers, last.best.layers)
    assert same_masks(found.masks, last.best.masks)
    for name, layer in compression.prunable_layers(found.model).items():
        assert (layer.weight[~before.masks[name]] == 0).all()
    images = explorer.images("train", "full").images
    assert same_bits(found.model, compression.recalibrate_batch_norm(last.best.model, images))
    assert found.packed_bytes <= budget
    assert (seen, measured) == ({"full train"}, TO_MEASURE)
    assert session.unquantized == pruned.pruned and found.name == f"{before.name} · 16.2 KiB"
    assert found.steps[-2:] == (
        f"rounding errors made up for on {IMAGES} training images", "batch norm recalibrated",
    )  # fmt: skip
    assert f"Quantized to a file of {last.best_bytes / 1024:.1f} KiB" in status


def test_recalibration_is_that_of_the_training_images_and_changes_no_code(explorer, quantized):
    before = explorer.variant(quantized.quantized)
    said, seen, measured = explorer.told(recalibrate(explorer, quantized))
    session, status, *_ = said[-1]
    found = explorer.variant(session.quantized)
    images = explorer.images("train", "full").images
    assert same_bits(found.model, compression.recalibrate_batch_norm(before.model, images))
    assert not same_bits(found.model, before.model)
    assert same_layers(found.layers, before.layers) and same_masks(found.masks, before.masks)
    assert (seen, measured) == ({"full train"}, TO_MEASURE)
    assert session.unquantized == quantized.unquantized
    assert found.name == f"{before.name} · recalibrated"
    assert found.steps == (*before.steps, "batch norm recalibrated")
    gain = found.evaluation.accuracy - before.evaluation.accuracy
    assert f"Recalibrated: {100 * gain:+.2f} points." in status
