"""Fronts: what is measured is what the packed file answers, and a killed run goes on."""

import contextlib
import math
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compression import fronts
from compression.__main__ import app
from compression.allocation import allocate
from compression.allocation_records import load_settings
from compression.allocation_scan import scan_settings
from compression.allocation_table import setting_table
from compression.budget_fit import fit
from compression.cli import front
from compression.compensation import quantize_compensated
from compression.data import SPLITS, load_cifar10
from compression.entropy_quantization import Trial
from compression.evaluation import evaluate
from compression.front_records import (
    COMPENSATED,
    OURS,
    PRICED,
    RIVALS,
    FrontPoint,
    load_front,
    save_front,
)
from compression.fronts import LARGEST, SMALLEST, Front, FrontConfig
from compression.inputs import InputError
from compression.model import load_checkpoint
from compression.packing import load_packed, save_packed
from compression.pruning import prune
from compression.quantization import quantize
from compression.recalibration import recalibrate_batch_norm
from compression.rival_allocations import (
    global_allocation,
    random_allocation,
    uniform_allocation,
)

SETTINGS = (
    Path(__file__).resolve().parent.parent / "assets/results/settings-resnet9-s-baseline.json"
)
FEW = FrontConfig(sizes=1, randoms=1, recalibration_images=100, compensation_images=64, widths=1)


@pytest.fixture(scope="module")
def sets():
    return {split: load_cifar10(split, "sample").head(200) for split in SPLITS}


@pytest.fixture(scope="module")
def dense():
    return load_checkpoint("resnet9-s/baseline").model


@pytest.fixture(scope="module")
def recorded():
    """Recorded settings without the widths whose codebooks take longest."""
    found = load_settings(SETTINGS)
    return replace(found, points=[p for p in found.points if p.bits is None or p.bits <= 4])


@pytest.fixture(scope="module")
def settings(recorded):
    return recorded.points


@pytest.fixture(scope="module")
def points(dense, settings, sets):
    return list(Front(dense, settings, sets, FEW).points())


def test_every_way_meets_every_size_and_ours_the_random_ones(points, dense, settings):
    sized = [point for point in points if point.goal == "size"]
    assert [point.way for point in sized] == [OURS, COMPENSATED, PRICED, *RIVALS]
    dense_bytes = 4 * sum(parameter.numel() for parameter in dense.parameters())
    low, high = round(SMALLEST * dense_bytes), round(LARGEST * dense_bytes)
    assert {point.goal_bytes for point in sized} == {low}
    whole = Front(dense, settings, {}, FrontConfig())
    assert whole.dense_bytes == dense_bytes
    assert [whole.goals(12)[0], whole.goals(12)[-1], len(whole.goals(12))] == [low, high, 12]
    assert len(set(whole.random_goals())) == 20
    assert low < min(whole.random_goals()) and max(whole.random_goals()) < high
    (drawn,) = (point for point in points if point.goal == "random")
    assert drawn.way == OURS and low < drawn.goal_bytes < high
    for point in points:
        room = 1.02 if point.way == COMPENSATED else 1  # its codes are others than were counted
        assert 0.85 * point.goal_bytes <= point.packed_bytes <= room * point.goal_bytes
        assert point.total == 200


def test_a_point_is_its_packed_files(points, dense, settings, sets, tmp_path):
    point = points[-1]
    table = setting_table(dense, settings)
    found, _ = fit(dense, point.goal_bytes, lambda aim: allocate(table, max_bytes=aim))
    cut = prune(dense, found.sparsities)
    small = quantize(cut.model, found.bits, cut.masks)
    model = recalibrate_batch_norm(small.model, sets["train"].images[:100])
    info = save_packed(replace(small, model=model), tmp_path / "x.safetensors")
    answers = evaluate(
        load_packed(tmp_path / "x.safetensors"), sets["test"].images, sets["test"].labels
    )
    assert (info.total_bytes, answers.correct) == (point.packed_bytes, point.correct)


@pytest.fixture(scope="module")
def tiny_settings(tiny_network, sets):
    few = sets["train"].head(60)
    pair = (few.images, few.labels)
    return list(scan_settings(tiny_network, *pair, sparsities=(0.9,), bits=(2, 3)))


@pytest.fixture(scope="module")
def tiny_table(tiny_network, tiny_settings):
    return setting_table(tiny_network, tiny_settings)


def least(table, make):
    """Of every bit width the allocation of least divergence, where there is one."""
    found = []
    for bits in table.layers[0].bits:
        with contextlib.suppress(InputError):
            found.append(make(bits))
    return min(found, key=lambda allocation: allocation.divergence)


ALLOCATIONS = {
    COMPENSATED: lambda table, model, size: allocate(table, max_bytes=size),
    RIVALS[0]: lambda table, model, size: least(
        table, lambda bits: uniform_allocation(table, size, bits)
    ),
    RIVALS[1]: lambda table, model, size: least(
        table, lambda bits: global_allocation(table, model, size, bits)
    ),
    RIVALS[2]: lambda table, model, size: least(
        table, lambda bits: random_allocation(table, size, bits, 3)
    ),
}


@pytest.mark.parametrize("way", ALLOCATIONS)
def test_a_point_of_every_way_is_its_packed_files(
    way, tiny_network, tiny_settings, tiny_table, sets, tmp_path, monkeypatch
):
    monkeypatch.setattr(fronts, "fit", lambda model, size, make, sizes: (make(size), size))
    config = FrontConfig(recalibration_images=100, compensation_images=50, seed=3, widths=1)
    point = Front(tiny_network, tiny_settings, sets, config)._point(way, "size", 24_000)
    train, test = sets["train"], sets["test"]
    found = ALLOCATIONS[way](tiny_table, tiny_network, 24_000)
    cut = prune(tiny_network, found.sparsities)
    if way == COMPENSATED:
        small = quantize_compensated(cut.model, found.bits, train.images[:50], cut.masks)
    else:
        small = quantize(cut.model, found.bits, cut.masks)
    model = recalibrate_batch_norm(small.model, train.images[:100])
    info = save_packed(replace(small, model=model), tmp_path / "x.safetensors")
    answers = evaluate(load_packed(tmp_path / "x.safetensors"), test.images, test.labels)
    assert point is not None and (point.way, point.goal_bytes) == (way, 24_000)
    assert (point.packed_bytes, point.correct) == (info.total_bytes, answers.correct)
    assert (point.predicted_bytes, point.predicted_drop) == (found.size_bytes, found.predicted_drop)


def test_another_seed_draws_other_goals(tiny_network, tiny_settings):
    drawn = [
        Front(tiny_network, tiny_settings, {}, FrontConfig(seed=seed)).random_goals()
        for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1] and len(drawn[0]) == len(drawn[1]) == 20


def test_a_size_begins_where_the_two_before_led(dense, settings, sets, monkeypatch):
    """Bytes as the power -0.5 of the price, as the trials below have them."""
    begun = []

    def trials(model, size, few, *, first_price):
        begun.append(first_price)
        price = first_price or (100.0 / size) ** 2
        yield Trial(price, round(100 / price**0.5), object(), 0)

    monkeypatch.setattr(fronts, "fit_entropy_by_trial", trials)
    whole = Front(dense, settings, sets, FrontConfig())
    for size in (1000, 2000, 4000):
        trial = whole._priced(size)
        whole._trials.append((trial.packed_bytes, trial.price))
    assert begun == [None, None, pytest.approx((100 / 4000) ** 2)]


def test_the_search_goes_on_from_points_that_are_known(dense, settings, sets, monkeypatch):
    goals = Front(dense, settings, {}, FrontConfig()).goals(3)
    rest = (OURS, COMPENSATED, *RIVALS)
    known = [FrontPoint(way, "size", size, None, None, 1, 1, 200) for size in goals for way in rest]
    tried = [(0.5, 100), (0.25, 200)]
    known += [
        FrontPoint(PRICED, "size", size, None, None, 1, 1, 200, *each)
        for size, each in zip(goals, tried, strict=False)
    ]
    begun = []

    def trials(model, size, few, *, first_price):
        begun.append(first_price)
        raise KeyboardInterrupt

    monkeypatch.setattr(fronts, "fit_entropy_by_trial", trials)
    with pytest.raises(KeyboardInterrupt):
        list(Front(dense, settings, sets, FrontConfig(sizes=3, randoms=0), known).points())
    assert begun == [pytest.approx(0.25 * 0.5 ** math.log2(goals[2] / 200))]


def test_known_points_are_not_measured_again(points, dense, settings, sets, monkeypatch):
    again = Front(dense, settings, sets, FEW, points)
    monkeypatch.setattr(again, "_measured", None)
    assert list(again.points()) == points


def test_known_points_are_predicted_anew(points, dense, settings, sets, monkeypatch):
    stale = [p if p.way == PRICED else replace(p, predicted_drop=0.5) for p in points]
    again = Front(dense, settings, sets, FEW, stale)
    monkeypatch.setattr(again, "_measured", None)
    assert list(again.points()) == points
    other = replace(stale[0], predicted_bytes=stale[0].predicted_bytes - 5000)
    assert again._foretold(other) == points[0]
    assert again._foretold(points[2]) is points[2]  # of no allocation


def test_a_size_that_no_bit_width_reaches_has_no_point(tiny_network, tiny_settings, sets):
    front = Front(tiny_network, tiny_settings, sets, FEW)
    assert front._point(RIVALS[0], "size", 100) is None


@pytest.mark.parametrize(("widths", "place"), [(2, 1), (1, 0)])
def test_a_usual_way_takes_the_width_that_is_best_on_validation(
    widths, place, tiny_network, tiny_settings, tiny_table, sets, monkeypatch
):
    """Not the one that is predicted to be, nor one beyond the few that are tried."""
    monkeypatch.setattr(fronts, "fit", lambda model, size, make, sizes: (make(size), size))
    config = FrontConfig(recalibration_images=50, widths=widths)
    front = Front(tiny_network, tiny_settings, sets, config)
    found = [uniform_allocation(tiny_table, 60_000, bits) for bits in tiny_table.layers[0].bits]
    found.sort(key=lambda allocation: allocation.divergence)
    models = [front._made(allocation).model for allocation in found]  # the later, the better

    def right(self, model, split):
        assert split == "validation"
        return [m.conv4.conv.weight.equal(model.conv4.conv.weight) for m in models].index(True)

    monkeypatch.setattr(Front, "_right", right)
    bits, allocation, _ = front._best_width(RIVALS[0], 60_000)
    assert allocation == found[place] and set(allocation.bits.values()) <= {bits}


def test_the_command_goes_on_where_it_was(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(Front, "_measured", lambda self, small: (123_456, 7))
    monkeypatch.setattr(fronts, "fit", lambda model, size, make, sizes: (make(size), size))
    plain = quantize(load_checkpoint("resnet9-s/baseline").model, 2)
    monkeypatch.setattr(Front, "_priced", lambda *asked: Trial(0.1, 123_456, plain, 123_456))
    for name in ("quantize", "quantize_compensated"):
        monkeypatch.setattr(fronts, name, lambda *asked: plain)
    monkeypatch.setattr(Front, "_right", lambda self, model, split: 7)
    monkeypatch.setattr(fronts, "recalibrate_batch_norm", lambda model, images: model)
    monkeypatch.setattr(front, "measured_settings", lambda *asked: recorded)
    out = tmp_path / "front.json"
    asked = ["front", "resnet9-s/baseline", str(out), "--sizes", "1", "--randoms", "1"]
    asked += ["--source", "sample"]
    first = CliRunner().invoke(app, [*asked, "--json"])
    assert first.exit_code == 0, first.output
    found, about = load_front(out)
    assert len(found) == 7
    earlier = [replace(point, correct=1) for point in found]
    earlier[0] = replace(earlier[0], predicted_drop=0.9)  # by an earlier way to predict
    save_front(out, earlier[:3], about["dense_correct"], about["dense_bytes"], about)
    assert CliRunner().invoke(app, asked).exit_code == 0
    again = load_front(out)[0]
    assert [point.correct for point in again] == [1, 1, 1, 7, 7, 7, 7]
    for after, first in zip(again, found, strict=True):  # of sizes, which are told in whole bytes
        assert (after.predicted_drop is None) == (first.predicted_drop is None)
        assert (after.predicted_drop or 0) == pytest.approx(first.predicted_drop or 0, rel=1e-3)
    save_front(out, found, 1, 1, about | {"machine": (before := {"commit": "before"})})
    for _ in range(2):
        assert CliRunner().invoke(app, asked).exit_code == 0
        assert load_front(out)[1]["earlier_machines"] == [before]
    assert about["command"].endswith("--seed 0 --source sample --images 512")
    assert about["settings"]["command"].startswith("python -m compression allocate resnet9-s/base")
    asked_of = [*asked, "--settings", "s.json", "--images", "100"]
    assert CliRunner().invoke(app, asked_of).exit_code == 0  # the same settings, from a file
    assert load_front(out)[1]["command"].endswith("sample --settings s.json --images 100")
    (tmp_path / "kept.json").write_text("{}")
    asked_of = [*asked, "--settings", str(tmp_path / "kept.json")]
    assert CliRunner().invoke(app, asked_of).exit_code == 0  # which were measured before
    assert load_front(out)[1]["command"].endswith("sample --settings kept.json")
    save_front(out, found, 1, 1, about | {"images": about["images"] | {"test": 10_000}})
    other = CliRunner().invoke(app, asked)
    assert "must hold the same run or not exist" in str(other.exception)
    save_front(out, found, 1, 1, about)
    other = CliRunner().invoke(app, [*asked, "--seed", "1"])
    assert "must hold the same run or not exist" in str(other.exception)
