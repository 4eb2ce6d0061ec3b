"""The commands evaluate, scan, compare, average and shard: what they write and what they say,
against the functions behind them, on a tiny network and a few images."""

import csv
import functools
import importlib
import io
import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from compression import runs
from compression.__main__ import app
from compression.cli import measure
from compression.evaluation import evaluate
from compression.inputs import InputError
from compression.latency import Latency
from compression.model import build_model, load_checkpoint, save_checkpoint
from compression.scan_records import load_scan
from compression.sensitivity import dense_point, latest, scan, suggest_sparsities
from tests import cli_cases
from tests.cli_cases import few, measured, run, weights_of
from tests.training_cases import same_bits

few_images = cli_cases.few_images
start = cli_cases.start


def test_evaluate_says_each_class_in_percent(start):
    found = measured(start, "test")
    lines = dict(line.split(": ", 1) for line in run("evaluate", start).splitlines())
    assert lines["accuracy"] == f"{100 * found.correct / 50:.2f}%"
    assert lines["95 % interval"] == f"{found.low:.2%} to {found.high:.2%}"
    assert lines["correct"] == f"{found.correct} of 50 images"
    for report in found.per_class:
        scores = (report.precision, report.recall, report.f1)
        told = "precision {:.2%}, recall {:.2%}, F1 {:.2%}, {} images".format
        assert lines[report.name] == told(*scores, report.support).replace(
            ", 1 images", ", 1 image"
        )
    assert lines["macro"].endswith(f", recall {found.macro.recall:.2%}, F1 {found.macro.f1:.2%}")
    shown = json.loads(run("evaluate", start, "--json"))
    assert shown["interval"] == [found.low, found.high] and shown["images"] == 50
    assert shown["macro"] == asdict(found.macro)
    assert shown["classes"] == [asdict(report) for report in found.per_class]
    assert shown["confusion"] == found.confusion.tolist()
    assert {"weighted", "loss", "macs", "parameters", "nonzero_parameters"} <= set(shown)


@pytest.mark.parametrize("ending", ["json", "csv"])
def test_scan_writes_the_points_of_the_layers_and_levels_asked_for(start, tmp_path, ending):
    out = tmp_path / f"points.{ending}"
    words = ("--levels", "0.9,0.4", "--layers", "linear, conv2", "--images", 30, "--out", out)
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
    assert not any(name.endswith("_ms") for row in (*rows, *table) for name in row)


def test_compare_tells_models_of_one_name_apart(start, tmp_path):
    other = tmp_path / "two" / start.name
    save_checkpoint(build_model("tiny", seed=4), other, {})
    rows = json.loads(run("compare", start, other, "--images", 10, "--json"))
    assert [row["variant"] for row in rows] == [str(start), str(other)]
    words = ["compare", str(start), "--csv", "--json"]
    done = CliRunner().invoke(app, words)
    assert str(done.exception) == "Either --csv or --json can be given, got both."


def test_compare_times_each_in_its_own_row(start, tmp_path, monkeypatch):
    paths = (start, tmp_path / "other.safetensors")
    save_checkpoint(build_model("tiny", seed=4), paths[1], {})
    models = [load_checkpoint(path).model for path in paths]

    def timed(asked):
        """The times of each by its weights, whatever it is called, and the last one first."""
        places = {
            name: next(k for k, known in enumerate(models) if same_bits(model, known))
            for name, model in reversed(asked.items())
        }
        return {
            name: tuple(
                Latency(size, (k + 1) * 2.0 * size, (k + 1) * 1.5 * size, (k + 1) * 3.0 * size,
                        15, 6, "cpu")
                for size in (1, 256)
            )
            for name, k in places.items()
        }  # fmt: skip

    monkeypatch.setattr(measure, "measure_latency", timed)
    words = (*paths, "--images", 10, "--latency")
    listed = json.loads(run("compare", *words, "--json"))
    table = list(csv.DictReader(io.StringIO(run("compare", *words, "--csv"))))
    for rows in (listed, table):
        for scale, row in enumerate(rows, start=1):
            for size in (1, 256):
                found = [float(row[f"batch{size}_{name}_ms"]) for name in ("p10", "median", "p90")]
                assert found == [1.5 * size * scale, 2.0 * size * scale, 3.0 * size * scale]
            assert int(row["threads"]) == 6


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
    assert shown["files"] == [str(out)]
    assert same_bits(load_checkpoint(shown["checkpoint"]).model, load_checkpoint(out).model)
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


def test_shard_finds_what_is_in_the_way_before_it_measures(start, monkeypatch):
    def work(*asked):
        raise AssertionError("measured")

    monkeypatch.setattr(runs, "evaluate", work)
    done = CliRunner().invoke(app, ["shard", str(start), str(start), "--source", "sample"])
    assert str(done.exception).startswith("start.safetensors must be moved away before")


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
