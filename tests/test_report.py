"""Rows, files and disagreements of variants, on models small enough to count by hand."""

import copy
import csv
import io
import json
from dataclasses import replace

import pytest
import torch

from compression.checkpoint import file_of
from compression.data import load_cifar10
from compression.inputs import InputError
from compression.latency import Latency
from compression.model import Checkpoint, build_model, prunable_layers
from compression.pruning import prune
from compression.quantization import quantize
from compression.report import (
    disagreements,
    make_variant,
    row_of,
    to_csv,
    to_json,
    variant_of,
    with_latency,
)
from compression.stored import load_stored, of_checkpoint


@pytest.fixture(scope="module")
def images():
    return load_cifar10("test", "sample").head(40)


@pytest.fixture(scope="module")
def dense(images):
    return make_variant("dense", ["as trained"], build_model(seed=0).eval(), images)


@pytest.fixture(scope="module")
def small(images):
    pruned = prune(build_model(seed=0).eval(), {"res2.first": 0.5})
    quantized = quantize(pruned.model, {"res2.first": 2, "linear": 4}, pruned.masks)
    return make_variant(
        "small", ["pruned", "quantized"], quantized.model, images,
        masks=quantized.masks, layers=quantized.layers,
    )  # fmt: skip


def test_row_holds_plain_numbers(dense, small):
    row = row_of(small)
    assert row["variant"] == "small" and row["steps"] == "pruned; quantized"
    assert row["dense_bytes"] == 4 * 1_646_122
    assert row["nonzero_parameters"] == row_of(dense)["nonzero_parameters"] - 589_824 // 2
    assert row["counted_bytes"] == small.size.stored_bytes
    assert row["times_smaller"] == pytest.approx(4 * 1_646_122 / small.size.stored_bytes)
    assert row_of(dense)["report_quantized_bytes"] is None


def test_csv_and_json_say_the_same(dense, small):
    times = {"median_ms": 2.0, "p10_ms": 1.5, "p90_ms": 3.0}
    timed = with_latency(small, [Latency(1, **times, repeats=5, threads=4, device="cpu")])
    text = to_csv([dense, timed])
    assert "\r" not in text and text.count("\n") == 3  # a system's own line ends come later
    broken = to_csv([replace(small, name="a\rb", steps=("one\r", "two"))])
    assert "\r" not in broken and next(csv.DictReader(io.StringIO(broken)))["variant"] == "a b"
    rows = list(csv.DictReader(io.StringIO(text)))
    listed = json.loads(to_json([dense, timed]))
    assert [row["variant"] for row in rows] == ["dense", "small"]
    assert float(rows[1]["accuracy"]) == listed[1]["accuracy"] == small.evaluation.accuracy
    for name, time in times.items():
        assert rows[0][f"batch1_{name}"] == "" and f"batch1_{name}" not in listed[0]
        assert float(rows[1][f"batch1_{name}"]) == listed[1][f"batch1_{name}"] == time
    assert int(rows[1]["threads"]) == listed[1]["threads"] == 4
    assert sum(entry["support"] for entry in listed[0]["classes"].values()) == 40


def test_disagreements_are_ordered_by_how_varied_the_answers_are(dense):
    def answering(name, predictions):
        evaluation = replace(dense.evaluation, predictions=torch.tensor(predictions), total=4)
        return replace(dense, name=name, evaluation=evaluation)

    variants = [
        answering("a", [1, 1, 1, 1]), answering("b", [1, 2, 1, 2]), answering("c", [1, 2, 1, 3])
    ]  # fmt: skip
    assert disagreements(variants) == [3, 1]
    assert disagreements(variants, limit=1) == [3]
    assert disagreements(variants[:1]) == []
    other = replace(dense, evaluation=replace(dense.evaluation, total=5))
    with pytest.raises(InputError, match="must be measured on the same test images.*got 4, 5"):
        disagreements([variants[0], other])


def test_checkpoint_file_gives_back_masks_and_codebooks(small, images):
    metadata = {"steps": ["pruned"], "bits": {"res2.first": 2, "linear": 4, "conv1": 2}}
    found = variant_of(of_checkpoint("file", Checkpoint(small.model, metadata)), images)
    assert set(found.masks) == {"res2.first"}
    assert torch.equal(found.masks["res2.first"], small.masks["res2.first"])
    assert set(found.layers) == {"res2.first", "linear"}  # conv1 holds more than 4 values
    for name, layer in found.layers.items():
        assert torch.equal(layer.weight(), prunable_layers(small.model)[name].weight)
    assert found.size == small.size
    assert found.steps == ("pruned",)


def test_a_packed_file_takes_what_it_takes_on_disk(images, tmp_path):
    """Packed anew under the longer name, it would take more."""
    path = tmp_path / "a-name-that-is-longer-than-its-own.safetensors"
    path.write_bytes(file_of("packed/resnet9-s-30x").read_bytes())
    stored = load_stored(path)
    assert variant_of(stored, images).packed_bytes == path.stat().st_size
    anew = variant_of(replace(stored, file_bytes=None), images).packed_bytes
    assert anew is not None and anew > path.stat().st_size
    changed = stored.unfolded(images.images)
    assert changed.model is not stored.model and changed.file_bytes is None
    assert changed.unfolded(images.images) is changed


def test_minus_zero_in_a_checkpoint_is_zero(small, images):
    """As a mask that multiplies leaves it; a codebook has one zero."""
    model = copy.deepcopy(small.model)
    weight = prunable_layers(model)["res2.first"].weight.data
    weight[weight == 0] = -0.0
    found = of_checkpoint("file", Checkpoint(model, {"bits": {"res2.first": 2}}))
    assert set(found.layers) == {"res2.first"} and variant_of(found, images).packed_bytes
    assert not prunable_layers(found.model)["res2.first"].weight[weight == 0].signbit().any()


def test_json_has_no_word_for_what_is_no_number(dense):
    odd = replace(dense, evaluation=replace(dense.evaluation, loss=float("nan")))
    (row,) = json.loads(to_json([odd]), parse_constant=pytest.fail)
    assert row["loss"] is None and row["accuracy"] == dense.evaluation.accuracy


@pytest.mark.parametrize("metadata", [{}, {"steps": 3, "bits": "four"}, {"bits": {"conv1": None}}])
def test_checkpoint_metadata_of_odd_types_is_passed_over(small, images, metadata):
    found = variant_of(of_checkpoint("file", Checkpoint(small.model, metadata)), images)
    assert found.steps == ("as trained",) and found.layers == {}
