"""The command that spreads sparsity and bits: measurements are kept, and not mixed up."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from compression.__main__ import app
from compression.allocation_records import load_settings
from compression.cli import allocate as command
from compression.cli import front
from compression.data import load_cifar10
from compression.model import load_checkpoint
from compression.packing import load_packed, save_packed
from compression.pruning import prune
from compression.scan_cache import content_digest, weights_digest
from compression.unfolding import is_folded

SETTINGS = (
    Path(__file__).resolve().parent.parent / "assets/results/settings-resnet9-s-baseline.json"
)
BASELINE = ("resnet9-s/baseline", "--settings", str(SETTINGS))


def allocated(*words):
    return CliRunner().invoke(app, ["allocate", *words, "--source", "sample", "--json"])


def test_both_goals_are_met_by_kept_measurements():
    small = json.loads(allocated(*BASELINE, "--max-kib", "250").stdout)
    assert 0.98 * 250 * 1024 < small["packed_bytes"] <= 250 * 1024
    assert small["dense_accuracy"] - small["predicted_accuracy"] > 0.01
    near = json.loads(allocated(*BASELINE, "--max-drop", "1").stdout)
    assert near["packed_bytes"] > small["packed_bytes"]
    assert near["predicted_accuracy"] >= near["dense_accuracy"] - 0.01


def test_it_is_said_on_what_the_accuracies_are():
    words = ["allocate", *BASELINE, "--max-kib", "250", "--source", "sample"]
    told = CliRunner().invoke(app, words).stdout
    count = load_settings(SETTINGS).points[0].total
    on = f"{count:,} validation images that the settings were measured on"
    assert f"\nboth accuracies: of the {on}\n" in told


def test_what_was_measured_is_kept_and_used_again(tmp_path, monkeypatch):
    points, seen = load_settings(SETTINGS).points, load_cifar10("validation", "sample").head(60)

    def scanned(model, images, labels):
        assert torch.equal(images, seen.images) and torch.equal(labels, seen.labels)
        return iter(points)

    monkeypatch.setattr(command, "scan_settings", scanned)
    kept = tmp_path / "kept.json"
    words = ("resnet9-s/baseline", "--settings", str(kept), "--max-kib", "300")
    first = allocated(*words, "--images", "60")
    assert first.exit_code == 0, first.output
    recorded = load_settings(kept)
    assert [asdict(p) for p in recorded.points] == [asdict(p) for p in points]
    dense = load_checkpoint("resnet9-s/baseline").model
    assert recorded.content == content_digest(dense, seen.images, seen.labels)
    assert recorded.about["command"] == (
        "python -m compression allocate resnet9-s/baseline --max-kib 300 --settings kept.json "
        "--images 60 --source sample"
    )
    monkeypatch.setattr(command, "scan_settings", None)
    assert allocated(*words).stdout == first.stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (BASELINE, "One goal must be given, --max-kib or --max-drop, got both or neither."),
        (
            ("resnet9-s/gridmask", *BASELINE[1:], "--max-kib", "300"),
            "settings-resnet9-s-baseline.json must hold settings measured on the weights of "
            "resnet9-s/gridmask, got those of others: name another file.",
        ),
    ],
)
def test_what_does_not_fit_is_said(words, text):
    before = SETTINGS.read_bytes()
    assert str(allocated(*words).exception) == text
    assert SETTINGS.read_bytes() == before


def test_a_front_of_a_packed_file_takes_its_batch_norm_apart(tmp_path, monkeypatch):
    """Folded, recalibration would leave it as it was."""
    path, seen = tmp_path / "small.safetensors", []
    save_packed(prune(load_checkpoint("resnet9-s/baseline").model, {}), path)

    def begun(dense, *asked):
        seen.append(dense)
        raise KeyboardInterrupt

    monkeypatch.setattr(front, "Front", begun)
    monkeypatch.setattr(front, "measured_settings", lambda *asked: load_settings(SETTINGS))
    monkeypatch.setattr(front, "_known", lambda out, about: seen.append(about) or ([], 1, []))
    CliRunner().invoke(app, ["front", str(path), str(tmp_path / "f.json"), "--source", "sample"])
    about, dense = seen
    packed = load_packed(path)
    assert is_folded(packed) and not is_folded(dense)
    assert about["weights"] == weights_digest(packed)
