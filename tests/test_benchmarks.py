"""The benchmarks' peers do the same work as ours, and their machinery keeps what they find.

Nothing is timed here. What needs a package of benchmarks/requirements.txt skips without it.
"""

import importlib
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import codebooks, fresh, kmeans, limits, pairs, plot, results, suite, tables
from benchmarks.codebooks import quantized
from benchmarks.kmeans_work import DISTRIBUTIONS, draw
from benchmarks.peers import clustering
from benchmarks.peers.gridmask import PublishedGridMask
from benchmarks.peers.scan import picture_loader, prune_, scan_loop, tensor_loader
from benchmarks.peers.training import eager_predictions, loader_predictions, training_steps
from benchmarks.results import Comparison, Figure, Growth, Section, Spread
from benchmarks.subjects import images_of, shipped_model
from compression.evaluation import evaluate
from compression.gridmask import GridMask
from compression.kmeans import kmeans_1d, squared_error
from compression.masks import magnitude_mask
from compression.quantization import quantize
from compression.resnet9 import prunable_layers
from compression.sensitivity import scan

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def model():
    return shipped_model()


@pytest.fixture(scope="module")
def data():
    return images_of("validation", 60)


# The peers.


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


# The machinery.


def test_a_spread_is_median_least_and_greatest():
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)
    assert Spread.of([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)


def test_works_run_in_turn_and_their_share_is_scaled(monkeypatch, capsys):
    ticks = iter(range(0, 1000, 2))  # every look at the clock is 2 s after the last
    monkeypatch.setattr(pairs.time, "perf_counter", lambda: float(next(ticks)))
    calls = []
    works = [
        pairs.Work("a", lambda turn: calls.append(("a", turn))),
        pairs.Work("b", lambda turn: calls.append(("b", turn)), share=0.25),
    ]
    ours, peer = pairs.in_turn(works, 2)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert (ours.seconds, peer.seconds) == ([2.0, 2.0], [8.0, 8.0])
    row = pairs.compared("scan", "work", ours, peer, at_least=5)
    assert (row.ratio, row.holds, row.pairs) == (Spread(4.0, 4.0, 4.0), False, 2)
    assert row.aim == "at least 5 times as fast"
    assert pairs.compared("scan", "work", ours, peer, at_least=4).holds
    assert pairs.compared("scan", "work", ours).peer is None
    assert "round 2 of 2" in capsys.readouterr().err


def test_a_short_work_is_repeated():
    calls = []
    run, count = pairs.often(lambda: calls.append(0), 0.001)
    before = len(calls)
    run(0)
    assert len(calls) - before == count > 1


def rows():
    ours, peer = Spread(0.5, 0.4, 0.6), Spread(5.0, 4.0, 6.0)
    return (
        Comparison(
            "scan", "a scan", "ours", ours, 5, "the loop", peer, Spread(10.0, 9.0, 11.0), 20.0,
            30.0, 0.0002, "arithmetic", "at least 10 times as fast", True, "the same counts",
        ),
        Comparison("scan", "alone", "ours", ours, 5),
        Figure("scan", "a figure", 1.25, "s", "at most 1 s", False, "a note"),
        Figure("scan", "missing", None, "s", note="no Chromium"),
        Growth("scan", "growth", "images", (1.0, 2.0), {"ours": (0.1, 0.2), "the loop": (1.0,)}),
    )  # fmt: skip


@pytest.fixture
def section():
    machine = {"processor": "a processor", "threads": 2, "python": "3.11", "commit": "abc"}
    versions, rates = {"torch": "2"}, {"text": "100 GFLOP/s in float32"}
    return Section(rows(), "python -m benchmarks", machine | {"load": 0.1}, versions, rates)


def test_results_come_back_from_their_file(tmp_path, section):
    path = tmp_path / "results.json"
    assert results.load(path) == {}
    results.save(path, {"scan": section})
    assert results.load(path) == {"scan": section}
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_versions_of_packages_that_are_absent_are_left_out():
    assert set(results.package_versions(["torch", "no-such-package"])) == {"torch"}


def test_a_table_says_what_was_measured(section):
    text = tables.section_text("scan", section)
    assert text.startswith("### Sensitivity scan\n")
    assert (
        "| a scan | ours: 500 ms (400 ms to 600 ms) | the loop: 5 s (4 s to 6 s) | **10** (9 to "
        "11), 5 pairs | 20 MiB, 30 MiB | 200 us | at least 10 times as fast | yes |"
    ) in text
    assert "- a scan, ours and the loop: the same counts.\n- Limit of a scan: arithmetic." in text
    assert "| a figure | 1.25 s | at most 1 s | **no** | a note |" in text
    assert "| missing | not measured |  |  | no Chromium |" in text
    assert "on a processor, 2 threads, Python 3.11, commit abc, load 0.1 before" in text


def test_tables_stand_between_the_markers(section):
    readme = f"before\n{tables.BEGIN}\nlast year\n{tables.END}\nafter\n"
    text = tables.with_tables(readme, {"scan": section})
    assert text.startswith(f"before\n{tables.BEGIN}\n### Sensitivity scan")
    assert text.endswith(f"\n{tables.END}\nafter\n") and "last year" not in text
    assert tables.with_tables(text, {"scan": section}) == text
    assert tables.NOT_YET in tables.with_tables(readme, {})


def test_the_readme_has_the_tables_of_the_recorded_results():
    readme = tables.README.read_text()
    assert tables.with_tables(readme, results.load(results.RESULTS)) == readme


@pytest.mark.parametrize(
    ("seconds", "text"), [(1234.0, "1234 s"), (2.0, "2 s"), (0.0123, "12.3 ms"), (5e-6, "5 us")]
)
def test_times_have_a_unit_that_suits_them(seconds, text):
    assert tables.seconds_text(seconds) == text


def test_every_subject_is_a_module_with_a_title():
    assert set(command.NAMES) == set(tables.TITLES)
    for name in command.NAMES:
        assert callable(importlib.import_module(f"benchmarks.{name}").run)


def test_subjects_are_saved_apart_and_a_failing_one_is_told(monkeypatch, tmp_path, section, capsys):
    monkeypatch.setattr(results, "QUICK_RESULTS", tmp_path / "last.json")
    monkeypatch.setattr(suite, "measured_rates", lambda _: limits.Rates(2e9, None, 1e9))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    drawn = []
    monkeypatch.setattr(suite.plot, "draw", lambda panels, path: drawn.append((panels, path.name)))
    found = {"scan": lambda *_: iter(rows()[:2]), "page": lambda *_: iter([1 / 0])}
    modules = {f"benchmarks.{name}": type("M", (), {"run": staticmethod(run)})
               for name, run in found.items()}  # fmt: skip
    importer = type("I", (), {"import_module": staticmethod(modules.__getitem__)})
    monkeypatch.setattr(suite, "importlib", importer)
    results.save(tmp_path / "last.json", {"kmeans": section})
    assert not suite.run(["scan", "page"], quick=True, threads=1)
    saved = results.load(tmp_path / "last.json")
    assert list(saved) == ["kmeans", "scan"]
    assert saved["scan"].rows == rows()[:2]
    assert saved["scan"].command == "python -m benchmarks --quick"
    assert drawn == [([rows()[-1]], "last.png")]
    assert "page failed after" in capsys.readouterr().err


def test_the_plot_has_a_panel_for_each_growth_and_a_line_may_end_early():
    drawn = plot.figure([rows()[-1], rows()[-1]])
    lines = [
        (line["name"], list(line["x"]), list(line["y"]), line["showlegend"])
        for line in drawn.to_dict()["data"]
    ]
    assert lines[:2] == [("ours", [1, 2], [0.1, 0.2], True), ("the loop", [1], [1.0], True)]
    assert [line[-1] for line in lines[2:]] == [False, False]
    layout = drawn.to_dict()["layout"]
    assert layout["xaxis2"]["title"]["text"] == "images"
    assert layout["xaxis"]["type"] == layout["yaxis2"]["type"] == "log"


def test_the_limit_of_a_scan_counts_from_each_layer_on(model):
    macs = limits.layer_macs(model)
    assert macs["conv1"] == 32 * 32 * 32 * 27 and macs["linear"] == 2560
    assert list(macs) == list(prunable_layers(model))
    total = sum(macs.values())
    assert limits.scan_macs(model, 3, ["conv1", "linear"]) == total + 3 * (total + 2560)
    rates = limits.Rates(2e9, None, 1e9)
    assert rates.compute_seconds(1e9) == 1.0 and rates.traffic_seconds(5e8) == 0.5
    assert rates.text() == "2 GFLOP/s in float32, copies at 1.0 GB/s"


def test_a_fresh_process_answers_and_its_failure_is_told():
    assert fresh.call("math", "gcd", 12, 18) == 6
    with pytest.raises(RuntimeError, match=r"math.sqrt ended with (.|\n)*math domain error"):
        fresh.call("math", "sqrt", -1)


def test_peak_memory_counts_what_the_work_takes(monkeypatch, tmp_path):
    source = "def prepare(name, quick):\n    return lambda: bytearray(2**26)"
    (tmp_path / "takes_memory.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert fresh.peak_mib("takes_memory", "name", True) == pytest.approx(64, abs=8)


def test_a_section_can_be_replaced_alone(tmp_path, section):
    path = tmp_path / "results.json"
    results.save(path, {"scan": section, "page": section})
    other = replace(section, command="another")
    results.save(path, results.load(path) | {"scan": other})
    assert results.load(path) == {"scan": other, "page": section}


def test_a_thread_count_below_one_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--threads", "0"])
    assert "--threads must be at least 1, got 0" in capsys.readouterr().err
