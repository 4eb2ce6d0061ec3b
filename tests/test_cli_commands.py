"""The commands prune, quantize, scan, compare, average and shard: what they write and what they
say, against the functions behind them, on a tiny network and a few images."""

import csv
import functools
import importlib
import io
import json
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from compression.__main__ import app
from compression.cli import compress, measure, train
from compression.compensation import quantize_compensated
from compression.data import load_cifar10
from compression.evaluation import evaluate
from compression.inputs import InputError
from compression.model import build_model, load_checkpoint, prunable_layers, save_checkpoint
from compression.pruning import prune
from compression.recalibration import recalibrate_batch_norm
from compression.scan_records import load_scan
from compression.sensitivity import dense_point, latest, scan, suggest_sparsities
from compression.stored import load_stored
from compression.training import FINE_TUNE, fine_tune
from tests.training_cases import same_bits

SIZES = {"train": 64, "validation": 40, "test": 50}


@functools.cache
def few(split, source="sample", root=None):
    assert (source, root) == ("sample", None)
    return load_cifar10(split, source).head(SIZES[split])


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    for module in (compress, measure, train):
        monkeypatch.setattr(module, "load_cifar10", few)


@pytest.fixture
def start(tiny_network, tmp_path):
    path = tmp_path / "start.safetensors"
    save_checkpoint(tiny_network, path, {})
    return path


def run(command, *words):
    asked = [command, *map(str, words), "--source", "sample"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def weights_of(path):
    layers = prunable_layers(load_checkpoint(path).model)
    return {name: module.weight.detach() for name, module in layers.items()}


def measured(path, split):
    images = few(split)
    return evaluate(load_stored(path).model, images.images, images.labels)


def test_prune_leaves_the_zeros_that_it_is_asked_for(start, tmp_path):
    out, single = tmp_path / "pruned.safetensors", tmp_path / "single.safetensors"
    words = ("--sparsity", 0.5, "--layer", "conv1=0.25", "--layer", "linear=0")
    shown = json.loads(run("prune", start, out, *words, "--json"))
    before, after = weights_of(start), weights_of(out)
    wanted = dict.fromkeys(before, 0.5) | {"conv1": 0.25, "linear": 0.0}
    for name, weight in after.items():
        kept, old = weight != 0, before[name]
        assert int((~kept).sum()) == round(wanted[name] * weight.numel())
        assert torch.equal(weight[kept], old[kept])
        if wanted[name]:
            assert old[~kept].abs().max() < old[kept].abs().min()
    assert load_checkpoint(out).metadata["sparsity"] == wanted
    found = measured(out, "test")
    assert (shown["checkpoint"], shown["accuracy"]) == (str(out), found.accuracy)
    assert (shown["loss"], shown["test_images"]) == (found.loss, 50)
    run("prune", start, single, "--layer", "conv2=0.75")
    zeros = {name: int((weight == 0).sum()) for name, weight in weights_of(single).items()}
    assert zeros == dict.fromkeys(before, 0) | {"conv2": 0.75 * before["conv2"].numel()}


@pytest.mark.parametrize("words", [("prune", "--sparsity", 0.5), ("quantize", "--bits", 3)])
def test_batch_norm_alone_is_recalibrated_on_training_images(start, tmp_path, words):
    plain, again = tmp_path / "plain.safetensors", tmp_path / "again.safetensors"
    command, *options = words
    run(command, start, plain, *options)
    run(command, start, again, *options, "--recalibrate")
    before = load_checkpoint(plain).model
    expected = recalibrate_batch_norm(before, few("train").images)
    assert same_bits(load_checkpoint(again).model, expected)
    assert not same_bits(before, expected)
    assert load_stored(again).steps == (*load_stored(plain).steps, "batch norm recalibrated")


def test_prune_fine_tunes_with_the_zeros_held(start, tmp_path):
    out = tmp_path / "tuned.safetensors"
    run("prune", start, out, "--sparsity", 0.5, "--fine-tune-epochs", 1, "--seed", 3)
    dense = load_checkpoint(start).model
    cut = prune(dense, dict.fromkeys(prunable_layers(dense), 0.5))
    sets = (few("train"), few("validation"))
    recipe = replace(FINE_TUNE, epochs=1, seed=3)
    *_, last = fine_tune(cut.model, *sets, recipe, masks=cut.masks)
    assert same_bits(load_checkpoint(out).model, last.best_model.cpu())
    for name, weight in weights_of(out).items():
        kept = cut.masks[name]
        assert not weight[~kept].any()
        assert not torch.equal(weight[kept], prunable_layers(cut.model)[name].weight[kept])
    assert load_stored(out).steps[-1] == "fine-tuned 1 epochs, best of them 1"


def test_prune_holds_the_zeros_that_a_checkpoint_has_already(start, tmp_path):
    once, twice = tmp_path / "once.safetensors", tmp_path / "twice.safetensors"
    run("prune", start, once, "--layer", "conv2=0.75", "--layer", "conv3=0.5")
    words = ("--layer", "conv1=0.5", "--layer", "conv3=0.25", "--fine-tune-epochs", 1)
    run("prune", once, twice, *words)
    zeros = {name: float((w == 0).double().mean()) for name, w in weights_of(twice).items()}
    assert {name: each for name, each in zeros.items() if each} == {
        "conv1": 0.5, "conv2": 0.75, "conv3": 0.5,
    }  # fmt: skip
    assert load_checkpoint(twice).metadata["sparsity"] == zeros


def test_quantize_keeps_the_zeros_of_a_pruned_checkpoint(tiny_network, tmp_path):
    start, out = tmp_path / "pruned.safetensors", tmp_path / "small.safetensors"
    every = list(prunable_layers(tiny_network))
    cut = prune(tiny_network, dict.fromkeys(every[1:], 0.6))
    save_checkpoint(cut.model, start, {"steps": ["as trained", "pruned"]})  # pyright: ignore[reportArgumentType]
    run("quantize", start, out, "--bits", 2, "--layer", "conv1=8", "--compensate", 32)
    widths = dict.fromkeys(every, 2) | {"conv1": 8}
    expected = quantize_compensated(cut.model, widths, few("train").images[:32], cut.masks)
    found = load_stored(out)
    for name, weight in weights_of(out).items():
        assert torch.equal(weight, expected.layers[name].weight())
        assert torch.equal(weight == 0, prunable_layers(cut.model)[name].weight == 0)
    assert {name: layer.bits for name, layer in found.layers.items()} == widths
    sizes = {name: len(layer.codebook) for name, layer in found.layers.items()}
    assert sizes.pop("conv1") > 16 and set(sizes.values()) == {4}
    assert found.steps == (
        "as trained", "pruned", "k-means quantized to mixed bits",
        "rounding errors made up for on 32 training images",
    )  # fmt: skip


@pytest.mark.parametrize("ending", ["json", "csv"])
def test_scan_writes_the_points_of_the_layers_and_levels_asked_for(start, tmp_path, ending):
    out = tmp_path / f"points.{ending}"
    words = ("--levels", "0.9,0.4", "--layers", "linear,conv2", "--images", 30, "--out", out)
    words += ("--precision", "float32", "--max-drop", 4, "--json")
    shown = json.loads(run("scan", start, *words))
    model, images = load_checkpoint(start).model, few("validation").head(30)
    pair = (images.images, images.labels)
    exact = functools.partial(scan, model, *pair, precision="float32", cache=None)
    points = latest(exact(levels=[0.4, 0.9], layers=["conv2", "linear"]))
    dense = dense_point(model, *pair, precision="float32")
    assert len(points) == 4
    assert shown["points"] == [asdict(point) for point in points]
    assert (shown["dense_accuracy"], shown["images"]) == (dense.accuracy, 30)
    assert shown["suggested"] == suggest_sparsities(points, dense.accuracy, 0.04)
    if ending == "json":
        recorded = load_scan(out)
        assert (list(recorded.points), recorded.dense) == (points, dense)
        assert recorded.precision == "float32"
    else:
        rows = list(csv.DictReader(io.StringIO(out.read_text())))
        found = [(row["layer"], float(row["sparsity"]), int(row["correct"])) for row in rows]
        assert found == [(point.layer, point.sparsity, point.correct) for point in points]
        assert {row["total"] for row in rows} == {"30"}


def test_compare_measures_each_on_the_same_first_images(start, tmp_path):
    other = tmp_path / "other.safetensors"
    save_checkpoint(build_model("tiny", seed=4), other, {})
    words = (start, other, "--images", 30)
    rows = json.loads(run("compare", *words, "--json"))
    table = list(csv.DictReader(io.StringIO(run("compare", *words, "--csv"))))
    test = few("test").head(30)
    for path, row, line in zip((start, other), rows, table, strict=True):
        found = evaluate(load_checkpoint(path).model, test.images, test.labels)
        assert row["variant"] == line["variant"] == path.stem
        assert row["accuracy"] == float(line["accuracy"]) == found.accuracy
        assert row["loss"] == float(line["loss"]) == found.loss
        assert row["test_images"] == int(line["test_images"]) == 30
    assert rows[0]["loss"] != rows[1]["loss"]


def test_average_writes_the_mean_weights_and_measures_them(tiny_network, tmp_path):
    out, paths = tmp_path / "mean.safetensors", []
    for seed in range(3):
        paths.append(tmp_path / f"{seed}.safetensors")
        save_checkpoint(build_model("tiny", seed=seed), paths[-1], {})
    shown = json.loads(run("average", out, *paths, "--json"))
    each = [weights_of(path) for path in paths]
    for name, weight in weights_of(out).items():
        mean = sum(weights[name].double() for weights in each) / 3
        torch.testing.assert_close(weight, torch.as_tensor(mean).float())
    assert shown == {
        "checkpoint": str(out),
        "validation_accuracy": measured(out, "validation").accuracy,
        "test_accuracy": measured(out, "test").accuracy,
    }


def test_shard_writes_half_precision_and_measures_it(start, tmp_path):
    shown = json.loads(run("shard", start, tmp_path / "half.safetensors", "--json"))
    out = tmp_path / "half-1-of-1.safetensors"
    before, stored = load_checkpoint(start).model.state_dict(), load_file(out)
    assert set(stored) == set(before)
    for name, value in stored.items():
        whole = not before[name].is_floating_point()
        assert value.dtype == (torch.int64 if whole else torch.float16)
        assert torch.equal(value, before[name] if whole else before[name].half())
    recorded = load_checkpoint(out).metadata
    for split in ("validation", "test"):
        name = f"{split}_accuracy"
        assert recorded[name] == shown[name] == measured(out, split).accuracy
    assert recorded["data"] == {"test": measured(out, "test").total}
    assert recorded["sharded"].startswith("python -m compression shard ")
    assert recorded["sharded"].endswith(" half.safetensors --source sample")
    mean = tmp_path / "mean.safetensors"
    run("average", mean, start, out)  # which is in float32 again
    assert not {"precision", "sharded"} & set(load_checkpoint(mean).metadata)


@pytest.mark.parametrize(
    ("words", "module", "worker"),
    [
        (("prune", "START", "OUT", "--sparsity", 0.5), "compress", "load_checkpoint"),
        (("quantize", "START", "OUT"), "compress", "load_checkpoint"),
        (("shrink", "START", "OUT", "--max-kib", 30), "shrink", "load_stored"),
        (("shrink", "START", "x", "--max-kib", 30, "--results", "OUT"), "shrink", "load_stored"),
        (("pack", "START", "OUT"), "pack", "load_stored"),
        (("scan", "START", "--out", "OUT.json"), "measure", "dense_point"),
        (
            ("allocate", "START", "--max-drop", 1, "--settings", "OUT"),
            "allocate",
            "measured_settings",
        ),
        (("front", "START", "OUT"), "front", "measured_settings"),
        (("study", "OUT", "--seeds", "0"), "study", "run_study"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_before_any_work(
    start, tmp_path, monkeypatch, words, module, worker
):
    def work(*asked, **options):
        raise AssertionError("worked")

    monkeypatch.setattr(importlib.import_module(f"compression.cli.{module}"), worker, work)
    out = tmp_path / ("taken.json" if "OUT.json" in words else "taken.safetensors")
    out.mkdir()
    places = {"START": start, "OUT": out, "OUT.json": out, "x": tmp_path / "x.safetensors"}
    done = CliRunner().invoke(app, [str(places.get(word, word)) for word in words])
    assert isinstance(done.exception, InputError), done.output
    assert str(out) in str(done.exception)
