"""What is shipped is what its records say: packed files, byte for byte, and their accuracy."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from compression.allocation_records import load_settings
from compression.checkpoint import load_checkpoint
from compression.data import load_cifar10
from compression.evaluation import evaluate
from compression.front_records import COMPENSATED, OURS, PRICED, RIVALS, load_front
from compression.packing import inspect_packed, load_packed
from compression.packing_info import GZIPPED
from compression.presets import SHIPPED, layer_names
from compression.scan_cache import weights_digest
from compression.study_records import WAYS, load_study

ASSETS = Path(__file__).resolve().parent.parent / "assets"
PACKED = sorted(ASSETS.glob("packed/*.safetensors"))
UNSEEN = sorted(ASSETS.glob("results/unseen-*.json"))
REPRODUCED = sorted(ASSETS.glob("results/reproduce-*.json"))


def test_every_packed_file_has_its_record_and_the_other_way_round():
    recorded = {path.stem.removeprefix("shrink-") for path in ASSETS.glob("results/shrink-*.json")}
    assert recorded == {path.stem for path in PACKED}


@pytest.mark.parametrize("path", PACKED, ids=lambda path: path.stem)
def test_a_packed_file_is_what_its_record_says(path):
    record = json.loads((ASSETS / "results" / f"shrink-{path.stem}.json").read_text())
    info = inspect_packed(path)
    assert info.total_bytes == path.stat().st_size == record["result"]["packed_bytes"]
    for rung, recorded in zip(info.ladder, record["ladder"], strict=True):
        if rung.name == GZIPPED:  # by whatever zlib there is, and under an earlier name
            assert rung.size_bytes == pytest.approx(recorded["size_bytes"], rel=0.01)
        else:
            assert asdict(rung) == recorded
    assert info.total_bytes <= 1.03 * info.bound_bytes
    assert info.ratio >= int(path.stem.rpartition("-")[2].removesuffix("x"))  # as its name says
    bundled = load_cifar10("test", "sample")
    found = evaluate(load_packed(path), bundled.images, bundled.labels)
    assert found.total == record["bundled_test"]["total"]
    assert abs(found.correct - record["bundled_test"]["correct"]) <= 2  # ties, on other processors


# File -> at least how many times smaller than dense float32, and points that it may lose.
RECORD = {"resnet9-60x": (60, 0.5), "resnet9-100x": (100, 1.0), "resnet9-s-30x": (30, 0.5)}


@pytest.mark.parametrize("name", RECORD)
def test_the_record_is_small_enough_and_loses_little_enough(name):
    smaller, most = RECORD[name]
    record = json.loads((ASSETS / "results" / f"shrink-{name}.json").read_text())
    found = record["result"]
    assert (ASSETS / "packed" / f"{name}.safetensors").stat().st_size == found["packed_bytes"]
    assert found["packed_bytes"] * smaller <= found["dense_bytes"]
    assert found["test_images"] == 10_000
    dense = load_checkpoint(record["start"]).metadata["test_accuracy"]
    assert dense == pytest.approx(found["dense_accuracy"], abs=0.0002)
    assert 100 * (dense - found["accuracy"]) <= most


@pytest.mark.parametrize("path", REPRODUCED, ids=lambda path: path.stem)
def test_half_precision_of_the_vectors_moved_at_most_one_answer(path):
    """Rows are measured on packed files; the checkpoints' own figures are not."""
    content = json.loads(path.read_text())
    assert {row["test_images"] for row in content["rows"]} == {10_000}
    accuracy = {row["variant"]: row["accuracy"] for row in content["rows"]}
    for name, cycles in content["config"]["models"].items():
        if "/" in cycles[0]:
            own = load_checkpoint(cycles[0]).metadata["test_accuracy"]
            assert abs(accuracy[f"{name}, dense"] - own) < 0.00015  # of 10,000 images


# Points that 4 bits may lose: without any weight trained, and with trained centroids.
MOST_LOST = {"resnet9": (0.5, 0.2), "resnet9-s": (0.8, 0.3)}


@pytest.mark.parametrize("name", ["two-bits-mixed", "resnet9-two-bits-mixed"])
def test_two_bits_between_spared_layers_lose_less_than_a_point(name):
    content = json.loads((ASSETS / "results" / f"reproduce-{name}.json").read_text())
    found = {row["variant"].partition(", ")[2]: row for row in content["rows"]}
    row = found["dense, 2 bits, first and last 8, compensated"]
    assert row["test_images"] == 10_000 and row["packed_bytes"] * 16 < row["dense_bytes"]
    assert found["dense"]["accuracy"] - row["accuracy"] < 0.01


@pytest.mark.parametrize("name", ["two-bits", "resnet9"])
def test_two_bits_in_every_layer_lose_less_than_two_points(name):
    content = json.loads((ASSETS / "results" / f"reproduce-{name}.json").read_text())
    found = {row["variant"].partition(", ")[2]: row for row in content["rows"]}
    for way in ("compensated", "trained"):
        row = found[f"dense, 2 bits, {way}"]
        assert row["test_images"] == 10_000 and row["packed_bytes"] * 16 < row["dense_bytes"]
        assert found["dense"]["accuracy"] - row["accuracy"] < 0.02


def test_four_bits_are_recorded_of_both_networks():
    configs = [json.loads(path.read_text())["config"] for path in REPRODUCED]
    assert {config["preset"] for config in configs if 4 in config["bits"]} == set(MOST_LOST)


@pytest.mark.parametrize("path", REPRODUCED, ids=lambda path: path.stem)
def test_four_bits_lose_next_to_nothing(path):
    content = json.loads(path.read_text())
    config, rows = content["config"], content["rows"]
    if 4 not in config["bits"]:
        pytest.skip("a run without 4 bits")
    right = {row["variant"]: round(row["accuracy"] * row["test_images"]) for row in rows}
    assert {row["test_images"] for row in rows} == {10_000}
    dense = f"{config['compress']}, dense"
    for way, most in zip(("compensated", "trained"), MOST_LOST[config["preset"]], strict=True):
        assert right[dense] - right[f"{dense}, 4 bits, {way}"] <= 100 * most


@pytest.mark.parametrize("name", SHIPPED)
def test_recorded_settings_are_of_the_shipped_weights(name):
    recorded = load_settings(ASSETS / "results" / f"settings-{name.replace('/', '-')}.json")
    model = load_checkpoint(name).model
    assert recorded.weights == weights_digest(model)
    assert {point.layer for point in recorded.points} == set(layer_names(model.preset))


@pytest.mark.parametrize("name", ["resnet9-s/baseline", "resnet9/gridmask"])
def test_a_front_of_each_network_is_whole_and_of_the_shipped_weights(name):
    points, about = load_front(ASSETS / "results" / f"front-{name.replace('/', '-')}.json")
    assert about["model"] == name
    assert about["weights"] == weights_digest(load_checkpoint(about["model"]).model)
    sizes = {p.goal_bytes for p in points if p.goal == "size"}
    assert len(sizes) >= 12 and len([p for p in points if p.goal == "random"]) >= 20
    for way in (OURS, COMPENSATED, PRICED):
        mine = [p for p in points if p.way == way and p.goal == "size"]
        assert {p.goal_bytes for p in mine} == sizes
        room = 1.02 if way == COMPENSATED else 1  # its codes are others than were counted
        assert all(p.packed_bytes <= room * p.goal_bytes for p in mine)
    for size in sizes:  # what was measured is on or above the usual ways, from the same size
        at = {p.way: p.correct for p in points if p.goal == "size" and p.goal_bytes == size}
        assert at[OURS] >= max(at[way] for way in RIVALS)


def test_unseen_goals_are_recorded():
    assert UNSEEN


@pytest.mark.parametrize("path", UNSEEN, ids=lambda path: path.stem)
def test_unseen_goals_are_of_the_fronts_weights_and_images_and_other_than_its_own(path):
    points, about = load_front(path)
    front, of = load_front(path.with_name(path.name.replace("unseen-", "front-")))
    for same in ("model", "weights", "dense_correct", "dense_bytes"):
        assert about[same] == of[same]
    assert about["images"] == of["images"] and points[0].total == front[0].total
    drawn = {p.goal_bytes for p in points if p.goal == "random"}
    assert len(drawn) >= 20 and not drawn & {p.goal_bytes for p in front}


def test_the_short_reproduction_took_less_than_five_minutes():
    record = json.loads((ASSETS / "results" / "quick-reproduction.json").read_text())
    assert record["seconds"] < 300 and record["config"]["bits"] == [8, 4, 2]


def test_the_recorded_study_has_three_seeds_of_each_way():
    runs, about = load_study(ASSETS / "results" / "study-resnet9-s.json")
    seeds = {way: {run.seed for run in runs if run.way == way} for way in WAYS}
    assert seeds["plain"] == seeds["cutout"] == seeds["gridmask"] and len(seeds["plain"]) >= 3
    assert {run.total for run in runs} == {10_000}
    assert {len(run.curve) for run in runs} == {about["config"]["epochs"]}


def test_no_file_is_too_large_for_a_space():
    assert all(path.stat().st_size < 10_000_000 for path in ASSETS.rglob("*") if path.is_file())
