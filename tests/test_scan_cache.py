"""What a scan remembers, so that nothing is counted twice, and what it forgets."""

import copy
from collections.abc import Generator

import torch
from torch import nn

from compression.scan_cache import PointKey, ScanCache, content_digest
from compression.sensitivity import results_cache, scan
from tests import scan_cases
from tests.scan_cases import LEVELS, CountingEngine

sample = scan_cases.sample
tiny_preset = scan_cases.tiny_preset
model = scan_cases.model


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


def test_what_is_known_in_float32_serves_the_default_precision_too(model, sample):
    def forbidden(*_):
        raise AssertionError("it was counted again")

    pair, cache = (sample.images[:20], sample.labels[:20]), ScanCache()
    options = {"levels": [0.5], "layers": ["linear"], "cache": cache}
    exact = list(scan(model, *pair, precision="float32", **options))
    assert list(scan(model, *pair, precision="auto", engine=forbidden, **options)) == exact
