"""The scan against a plain loop over whole models, and what stops, suggests, caches and records."""

import copy
import json
from collections.abc import Generator

import pytest
import torch
from torch import nn
from torch.nn import functional

from compression.data import ImageSet, load_cifar10, normalize
from compression.evaluation import wilson_interval
from compression.hardware import has_bfloat16
from compression.inputs import InputError
from compression.presets import PRESETS, Preset
from compression.resnet9 import ResNet9, prunable_layers
from compression.scan_cache import PointKey, ScanCache, content_digest
from compression.scan_records import load_scan, record_scan, save_scan
from compression.sensitivity import (
    DEFAULT_LEVELS,
    SensitivityPoint,
    dense_point,
    latest,
    results_cache,
    scan,
    scan_csv,
    suggest_sparsities,
    tolerated_accuracy,
)

LEVELS = (0.3, 0.6, 0.9)
IMAGES = 120
bfloat16 = pytest.mark.skipif(
    not has_bfloat16(torch.device("cpu")), reason="this processor has no bfloat16 in hardware"
)


@pytest.fixture(scope="module")
def sample() -> ImageSet:
    return load_cifar10("test", "sample").head(IMAGES)


@pytest.fixture(scope="module", autouse=True)
def tiny_preset():
    PRESETS["tiny"] = Preset(width=8)
    yield
    del PRESETS["tiny"]


@pytest.fixture(scope="module")
def model(sample, tiny_preset) -> ResNet9:
    """A narrow ResNet-9 that has learned most of the images, so that pruning has much to break."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ResNet9("tiny")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    pixels = normalize(sample.images)
    for _ in range(14):
        for x, y in zip(pixels.split(30), sample.labels.split(30), strict=True):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def unhurried(model, sample) -> dict[tuple[str, float], int]:
    """Correct answers by (layer, level): a whole pruned model, eager, float32, nothing folded."""
    counts = {}
    for layer, module in prunable_layers(model).items():
        # the smallest magnitudes by a sort of pairs, independently of compression.masks
        magnitudes = enumerate(module.weight.detach().abs().flatten().tolist())
        order = [k for k, _ in sorted(magnitudes, key=lambda pair: (pair[1], pair[0]))]
        for level in DEFAULT_LEVELS:
            pruned = copy.deepcopy(model)
            weight = prunable_layers(pruned)[layer].weight
            weight.data.view(-1)[order[: round(level * len(order))]] = 0.0
            with torch.no_grad():
                hits = pruned(normalize(sample.images)).argmax(1) == sample.labels
            counts[layer, level] = int(hits.sum())
    return counts


def counted(points) -> dict[tuple[str, float], int]:
    return {(point.layer, point.sparsity): point.correct for point in points}


def test_the_model_under_test_is_worth_scanning(model, sample, unhurried):
    """Else the tests below could not fail: dense is good, and pruning takes every value between."""
    dense = dense_point(model, sample.images, sample.labels, precision="float32")
    assert dense.correct > 0.8 * IMAGES
    assert min(unhurried.values()) < 0.4 * IMAGES
    assert len(set(unhurried.values())) > 20


@pytest.mark.parametrize("exhaustive", [False, True])
def test_float32_counts_are_an_unhurried_evaluations(model, sample, unhurried, exhaustive):
    points = list(
        scan(
            model,
            sample.images,
            sample.labels,
            levels=DEFAULT_LEVELS,
            precision="float32",
            exhaustive=exhaustive,
            cache=None,
        )
    )
    assert len(points) == len(unhurried)
    assert counted(points) == unhurried
    for point in points:
        assert point.total == IMAGES and point.accuracy == point.correct / IMAGES
        assert (point.low, point.high) == wilson_interval(point.correct, IMAGES)


@bfloat16
def test_bfloat16_curves_stay_near_float32(model, sample, unhurried):
    points = scan(model, sample.images, sample.labels, precision="auto", cache=None)
    apart = [abs(count - unhurried[place]) for place, count in counted(points).items()]
    assert len(apart) == len(unhurried)
    assert max(apart) <= 3 and sum(apart) / len(apart) <= 0.5


def test_any_module_is_scanned_by_the_plain_engine(sample):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        other = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))
    levels = (0.0, 0.5, 1.0)
    points = scan(
        other, sample.images, sample.labels, levels=levels, precision="float32", cache=None
    )
    weight = prunable_layers(other)["2"].weight
    for point in points:
        pruned = copy.deepcopy(other)
        threshold = weight.detach().abs().flatten().sort().values
        zeros = round(point.sparsity * weight.numel())
        smallest = threshold[zeros - 1] if zeros else -1.0
        prunable_layers(pruned)["2"].weight.data[weight.abs() <= smallest] = 0.0
        with torch.no_grad():
            hits = pruned(normalize(sample.images)).argmax(1) == sample.labels
        assert point.correct == hits.sum()


def test_layers_come_in_the_models_order_and_levels_from_the_highest(model, sample):
    points = scan(
        model,
        sample.images[:20],
        sample.labels[:20],
        levels=(0.5, 0.9, 0.1),
        layers=["linear", "conv2"],
        cache=None,
    )
    got = [(point.layer, point.sparsity) for point in points]
    assert got == [(layer, level) for layer in ("conv2", "linear") for level in (0.9, 0.5, 0.1)]


def test_the_order_of_levels_and_layers_changes_nothing(model, sample):
    def run(levels, layers):
        return set(
            scan(model, sample.images, sample.labels, levels=levels, layers=layers, cache=None)
        )

    one = run((0.2, 0.5, 0.8), ["conv1", "res1.second", "conv4"])
    assert len(one) == 9
    assert one == run((0.8, 0.2, 0.5), ["conv4", "conv1", "res1.second"])


@pytest.mark.parametrize("stop_after", [0, 4, None])
@pytest.mark.parametrize("training", [False, True])
def test_the_model_stays_as_it_was_wherever_the_scan_stops(model, sample, stop_after, training):
    model = copy.deepcopy(model).train(training)
    before = copy.deepcopy(model.state_dict())
    options = {"levels": LEVELS, "layers": ["conv1", "res1.second"], "cache": None}
    points = scan(model, sample.images[:60], sample.labels[:60], **options)
    assert isinstance(points, Generator)
    for k, _ in enumerate(points):
        if k == stop_after:
            break
    points.close()
    assert model.training == training
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.stride() == before[name].stride(), name


def test_a_model_that_changes_while_it_is_scanned_changes_nothing(model, sample):
    changing = copy.deepcopy(model)
    options = {"levels": LEVELS, "layers": ["conv2", "conv4", "linear"], "cache": None}
    points = scan(changing, sample.images, sample.labels, **options)
    got = [next(points)]
    with torch.no_grad():
        for parameter in changing.parameters():
            parameter.zero_()
    got += points
    assert got == list(scan(model, sample.images, sample.labels, **options))


def test_coarse_points_come_first_and_are_refined(model, sample, unhurried):
    options = {"layers": ["conv1", "res2.second"], "precision": "float32", "cache": None}
    points = list(scan(model, sample.images, sample.labels, coarse_images=40, **options))
    assert [point.total for point in points] == [40] * 18 + [IMAGES] * 18
    assert list(scan(model, sample.images[:40], sample.labels[:40], **options)) == points[:18]
    assert all(unhurried[place] == count for place, count in counted(points).items())
    wide, narrow = points[0], points[18]
    assert wide.layer == narrow.layer and wide.high - wide.low > narrow.high - narrow.low


@pytest.mark.parametrize("coarse", [None, 1])
def test_a_small_memory_limit_changes_nothing(model, sample, unhurried, coarse):
    points = list(
        scan(
            model,
            sample.images,
            sample.labels,
            layers=["res1.second", "conv4"],
            levels=LEVELS,
            precision="float32",
            cache_mib=1,
            coarse_images=coarse,
            cache=None,
        )
    )
    blocks = len({point.total for point in points})
    assert blocks == 1 if coarse is None else blocks > 3
    assert len(points) == 6 * blocks
    assert all(unhurried[place] == count for place, count in counted(points).items())


class CountingEngine:
    """An engine of the test's own: counts the points that it is asked for; all images correct."""

    def __init__(self, model, images, labels, precision) -> None:
        self.asked: list[tuple[str, float, range]] = []
        self.total = len(labels)
        CountingEngine.last = self

    last: "CountingEngine | None" = None

    def blocks(self, first):
        return [range(self.total)]

    def count(self, layer, levels, rows):
        for level in levels:
            self.asked.append((layer, level, rows))
            yield level, len(rows)


def test_another_engine_can_take_over_and_nothing_is_counted_twice(model, sample):
    cache = ScanCache()

    def run(images, labels, subject=model, **options):
        CountingEngine.last = None
        points = list(scan(subject, images, labels, engine=CountingEngine, cache=cache, **options))
        return points, CountingEngine.last.asked if CountingEngine.last else []

    images, labels = sample.images, sample.labels
    points, asked = run(images, labels, levels=LEVELS, layers=["conv1", "conv3"])
    assert len(points) == len(asked) == 6 and all(point.accuracy == 1 for point in points)
    again, asked = run(images.clone(), labels.clone(), levels=LEVELS, layers=["conv1", "conv3"])
    assert again == points and not asked
    more, asked = run(images, labels, levels=(0.5, *LEVELS), layers=["conv1", "conv4"])
    assert [(layer, level) for layer, level, _ in asked] == [
        ("conv1", 0.5), ("conv4", 0.9), ("conv4", 0.6), ("conv4", 0.5), ("conv4", 0.3),
    ]  # fmt: skip
    assert len(more) == 8
    changed = images.clone()
    changed[7, 3, 2, 1] ^= 1
    other = copy.deepcopy(model)
    other.conv3.norm.bias.data[0] += 1e-3
    for subject, pixels, options in (
        (model, changed, {}),
        (other, images, {}),
        (model, images, {"precision": "float32", "exhaustive": True}),
    ):
        _, asked = run(pixels, labels, subject, levels=LEVELS, layers=["conv1"], **options)
        assert len(asked) == 3


def test_the_processes_own_cache_is_used_by_default(sample):
    with torch.random.fork_rng():
        torch.manual_seed(77)
        other = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(12, 10))
    before = len(results_cache())
    first = list(scan(other, sample.images, sample.labels))
    assert len(results_cache()) == before + 9
    assert list(scan(other, sample.images, sample.labels)) == first
    assert len(results_cache()) == before + 9


def test_a_stopped_or_coarse_point_is_not_remembered(model, sample):
    cache = ScanCache()
    options = {"levels": LEVELS, "layers": ["conv4", "linear"], "cache": cache}
    points = scan(model, sample.images, sample.labels, coarse_images=20, **options)
    assert isinstance(points, Generator)
    for _ in range(6):
        assert next(points).total == 20
    points.close()
    assert len(cache) == 0
    points = scan(model, sample.images, sample.labels, **options)
    assert isinstance(points, Generator)
    next(points)
    points.close()
    assert len(cache) == 1


def test_the_cache_is_bounded_and_lets_the_longest_unused_go():
    cache = ScanCache(capacity=2)
    a, b, c = (PointKey("x", "float32", False, "conv1", level) for level in (0.1, 0.2, 0.3))
    cache.put(a, 1)
    cache.put(b, 2)
    assert cache.get(a) == 1
    cache.put(c, 3)
    assert (cache.get(a), cache.get(b), cache.get(c), len(cache)) == (1, None, 3, 2)


def test_the_digest_is_of_content(model, sample):
    digest = content_digest(model, sample.images, sample.labels)
    assert digest == content_digest(copy.deepcopy(model), sample.images.clone(), sample.labels)
    moved = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert digest == content_digest(moved, sample.images, sample.labels)
    assert digest != content_digest(model, sample.images[:-1], sample.labels[:-1])
    relabelled = sample.labels.roll(1)
    assert digest != content_digest(model, sample.images, relabelled)


def test_a_scan_comes_back_from_its_file_and_is_not_run_again(model, sample, tmp_path):
    options = {"levels": LEVELS, "layers": ["conv1", "linear"]}
    points = list(scan(model, sample.images, sample.labels, cache=None, **options))
    dense = dense_point(model, sample.images, sample.labels)
    subject = (model, sample.images, sample.labels)
    recorded = record_scan(*subject, points, dense, about={"command": "test"})
    path = tmp_path / "deep" / "scan.json"
    save_scan(path, recorded)
    loaded = load_scan(path)
    assert loaded == recorded and loaded.about == {"command": "test"}
    assert list(path.parent.iterdir()) == [path]
    cache = ScanCache()
    loaded.remember(cache)
    CountingEngine.last = None
    again = list(scan(*subject, engine=CountingEngine, cache=cache, **options))
    assert again == points and CountingEngine.last is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.update(version=2), "must be a recorded scan, got 'another version'"),
        (lambda found: found.pop("points"), "must be a recorded scan, got .*points"),
        (lambda found: found.update(extra=1), "must be a recorded scan, got .*unexpected keyword"),
        (lambda found: found["dense"].update(accuracy=0.5), "dense at 0.0 that disagree"),
        (lambda found: found["points"][0].update(correct="many"), "must be a recorded scan"),
    ],
)
def test_other_files_are_refused(model, sample, tmp_path, change, message):
    dense = SensitivityPoint.counted("dense", 0.0, 100, IMAGES)
    points = [SensitivityPoint.counted("conv1", 0.5, 90, IMAGES)]
    path = tmp_path / "scan.json"
    save_scan(path, record_scan(model, sample.images, sample.labels, points, dense))
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match=message):
        load_scan(path)


def test_missing_broken_and_unfinished_scans_are_refused(model, sample, tmp_path):
    with pytest.raises(InputError, match="must be a recorded scan, got .*No such file"):
        load_scan(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"version": 1, "poi')
    with pytest.raises(InputError, match="must be a recorded scan"):
        load_scan(tmp_path / "half.json")
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="must be a recorded scan"):
        load_scan(tmp_path / "list.json")
    dense = SensitivityPoint.counted("dense", 0.0, 100, IMAGES)
    coarse = SensitivityPoint.counted("conv1", 0.5, 9, 10)
    with pytest.raises(InputError, match="count all 120 images, got 10 at conv1 0.5"):
        record_scan(model, sample.images, sample.labels, [coarse], dense)


def place(layer: str, sparsity: float, correct: int, total: int = 100) -> SensitivityPoint:
    return SensitivityPoint.counted(layer, sparsity, correct, total)


def test_suggestions_worked_by_hand():
    """Dense 90 %, at most 2 points lost: a level counts only if no lower one has fallen."""
    points = [
        place("a", 0.7, 88), place("a", 0.3, 95), place("a", 0.9, 20), place("a", 0.5, 89),
        place("b", 0.3, 87), place("b", 0.5, 90),
        place("c", 0.3, 89), place("c", 0.5, 80), place("c", 0.7, 89),
        place("d", 0.5, 10, 20), place("d", 0.5, 90),
    ]  # fmt: skip
    assert suggest_sparsities(points, 0.9, 0.02) == {"a": 0.7, "b": 0.0, "c": 0.3, "d": 0.5}
    assert suggest_sparsities(points, 0.9, 0.0) == {"a": 0.3, "b": 0.0, "c": 0.0, "d": 0.5}
    assert suggest_sparsities(points, 0.9, 1.0) == {"a": 0.9, "b": 0.5, "c": 0.7, "d": 0.5}
    assert suggest_sparsities([], 0.9, 0.02) == {}


def test_tolerated_accuracy():
    assert tolerated_accuracy(0.9, 0.02) == pytest.approx(0.88)
    assert tolerated_accuracy(0.1, 0.5) == 0.0
    with pytest.raises(InputError, match="max_drop must be a number from 0 to 1, got 2"):
        tolerated_accuracy(0.9, 2)
    with pytest.raises(InputError, match="dense_accuracy must be a number .*, got NaN"):
        suggest_sparsities([], float("nan"), 0.1)


def test_the_last_point_of_a_place_counts_and_makes_the_csv():
    points = [
        place("b", 0.5, 1, 2),
        place("a", 0.5, 2, 2),
        place("b", 0.25, 0, 2),
        place("b", 0.5, 3, 4),
    ]
    assert latest(points) == [points[2], points[3], points[1]]
    header, *rows = scan_csv(points).splitlines()
    assert header == "layer,sparsity,accuracy,correct,total,low,high"
    assert [row.split(",")[:5] for row in rows] == [
        ["b", "0.25", "0.0", "0", "2"],
        ["b", "0.5", "0.75", "3", "4"],
        ["a", "0.5", "1.0", "2", "2"],
    ]
    assert float(rows[1].split(",")[5]) == points[3].low


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ()}, "levels must be a list of 1 to 100 numbers from 0 to 1, got 0"),
        ({"levels": [k / 101 for k in range(101)]}, "1 to 100 numbers from 0 to 1, got 101"),
        ({"levels": 0.5}, "levels must be a list of 1 to 100 numbers from 0 to 1, got 0.5"),
        ({"levels": "0.5"}, "levels must be a list .*, got '0.5'"),
        ({"levels": None}, "levels must be a list .*, got nothing"),
        ({"levels": [1.1]}, "level must be a number from 0 to 1, got 1.1"),
        ({"levels": [-0.1]}, "level must be a number from 0 to 1, got -0.1"),
        ({"levels": [float("nan")]}, "level must be a number from 0 to 1, got NaN"),
        ({"levels": ["0.5"]}, "level must be a number from 0 to 1, got '0.5'"),
        ({"levels": [0.5, 0.25, 0.5]}, "levels must be different, got 0.5 2 times"),
        ({"layers": ["conv9"]}, "layer must be one of conv1, conv2, .*, got 'conv9'"),
        ({"layers": ["conv1", "conv1"]}, "layers must be different, got conv1 2 times"),
        ({"layers": []}, "layers must name at least one of conv1, .*, got none"),
        ({"layers": "conv1"}, "layers must be a list of layer names, got 'conv1'"),
        ({"layers": [3]}, "layer must be one of conv1, .*, got 3"),
        ({"precision": "float8"}, "precision must be one of auto, float32, bfloat16"),
        ({"coarse_images": 0}, "coarse_images must be a whole number from 1 to 1000000 images"),
        ({"cache_mib": 0}, "cache_mib must be a whole number from 1 to 1048576 MiB, got 0"),
    ],
)
def test_what_is_out_of_range_is_refused_at_the_call(model, sample, options, message):
    with pytest.raises(InputError, match=message):
        scan(model, sample.images, sample.labels, **options)


def test_other_images_and_labels_are_refused_at_the_call(model, sample):
    with pytest.raises(InputError, match=r"shape \(120,\), got int64 \(119,\)"):
        scan(model, sample.images, sample.labels[:-1])
    with pytest.raises(InputError, match="at least one image, got none"):
        dense_point(model, sample.images[:0], sample.labels[:0])


def test_what_is_known_in_float32_serves_the_default_precision_too(model, sample):
    def forbidden(*_):
        raise AssertionError("it was counted again")

    pair, cache = (sample.images[:20], sample.labels[:20]), ScanCache()
    options = {"levels": [0.5], "layers": ["linear"], "cache": cache}
    exact = list(scan(model, *pair, precision="float32", **options))
    assert list(scan(model, *pair, precision="auto", engine=forbidden, **options)) == exact
