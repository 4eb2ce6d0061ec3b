"""What is shipped is what its records say: packed files, byte for byte, and their accuracy."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from compression.allocation_records import load_settings
from compression.checkpoint import load_checkpoint
from compression.data import load_cifar10
from compression.evaluation import evaluate
from compression.packing import inspect_packed, load_packed
from compression.presets import SHIPPED, layer_names
from compression.scan_cache import weights_digest

ASSETS = Path(__file__).resolve().parent.parent / "assets"
PACKED = sorted(ASSETS.glob("packed/*.safetensors"))


def test_every_packed_file_has_its_record_and_the_other_way_round():
    recorded = {path.stem.removeprefix("shrink-") for path in ASSETS.glob("results/shrink-*.json")}
    assert recorded == {path.stem for path in PACKED}


@pytest.mark.parametrize("path", PACKED, ids=lambda path: path.stem)
def test_a_packed_file_is_what_its_record_says(path):
    record = json.loads((ASSETS / "results" / f"shrink-{path.stem}.json").read_text())
    info = inspect_packed(path)
    assert info.total_bytes == path.stat().st_size == record["result"]["packed_bytes"]
    assert [asdict(rung) for rung in info.ladder] == record["ladder"]
    bundled = load_cifar10("test", "sample")
    found = evaluate(load_packed(path), bundled.images, bundled.labels)
    assert found.total == record["bundled_test"]["total"]
    assert abs(found.correct - record["bundled_test"]["correct"]) <= 2  # ties, on other processors


@pytest.mark.parametrize("name", SHIPPED)
def test_recorded_settings_are_of_the_shipped_weights(name):
    recorded = load_settings(ASSETS / "results" / f"settings-{name.replace('/', '-')}.json")
    model = load_checkpoint(name).model
    assert recorded.weights == weights_digest(model)
    assert {point.layer for point in recorded.points} == set(layer_names(model.preset))


def test_no_file_is_too_large_for_a_space():
    assert all(path.stat().st_size < 10_000_000 for path in ASSETS.rglob("*") if path.is_file())
