"""The scan against a plain loop over whole models, and what stops, reorders and refuses it."""

import copy
from collections.abc import Generator

import pytest
import torch
from torch import nn

from compression.data import normalize
from compression.evaluation import wilson_interval
from compression.hardware import has_bfloat16
from compression.inputs import InputError
from compression.resnet9 import prunable_layers
from compression.sensitivity import DEFAULT_LEVELS, dense_point, scan
from tests import scan_cases
from tests.scan_cases import IMAGES, LEVELS

bfloat16 = pytest.mark.skipif(
    not has_bfloat16(torch.device("cpu")), reason="this processor has no bfloat16 in hardware"
)

sample = scan_cases.sample
tiny_preset = scan_cases.tiny_preset
model = scan_cases.model


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
