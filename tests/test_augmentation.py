"""Augmented batches against crops of numpy's reflection padding, counts, and plain loops."""

import numpy as np
import pytest
import torch

from compression.augmentation import Batches
from compression.data import CIFAR10_CLASSES, ImageSet, load_cifar10, normalize
from compression.gridmask import GridMask


@pytest.fixture(scope="module")
def images():
    return load_cifar10("train", "sample").head(50)


def numbered(count):
    """Images that are all one colour, their own number: (N, 32, 32, 3) with value k in image k."""
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 32, 32, 3)
    labels = torch.arange(count) % 10
    return ImageSet(pixels.clone(), labels, CIFAR10_CLASSES, "sample", torch.arange(count))


def numbers_of(batch):
    """Which image of `numbered` each of a batch is, from one normalized pixel."""
    colours = normalize(numbered(256).images)[:, 0, 0, 0]
    return (batch[:, 0, 5, 5][:, None] - colours).abs().argmin(1)


def test_without_augmentation_they_are_the_normalized_images(images):
    batches = Batches(images, batch_size=25, seed=1)
    reference = normalize(images.images)
    seen = []
    for batch, labels in batches.epoch(1):
        assert batch.shape == (25, 3, 32, 32)
        assert batch.is_contiguous(memory_format=torch.channels_last)
        for image, label in zip(batch, labels, strict=True):
            (k,) = torch.nonzero((reference == image).flatten(1).all(1))[:, 0].tolist()
            assert label == images.labels[k]
            seen.append(k)
    assert sorted(seen) == list(range(50))
    assert seen != sorted(seen)


def test_a_last_batch_of_fewer_images_is_left_out():
    batches = Batches(numbered(50), batch_size=16)
    epoch = [numbers_of(batch) for batch, _ in batches.epoch(1)]
    assert len(batches) == len(epoch) == 3
    joined = torch.cat(epoch).tolist()
    assert len(set(joined)) == len(joined) == 48


def test_a_batch_larger_than_the_set_is_the_set():
    batches = Batches(numbered(5), batch_size=512)
    ((batch, labels),) = batches.epoch(1)
    assert sorted(numbers_of(batch).tolist()) == [0, 1, 2, 3, 4]
    assert sorted(labels.tolist()) == [0, 1, 2, 3, 4]


def epoch_of(images, epoch, seed=3):
    gridmask = GridMask(probability=0.5)
    options = {"translate": 4, "flip": True, "cutout": 8, "gridmask": gridmask}
    batches = Batches(images, batch_size=25, seed=seed, **options)
    return torch.cat([batch for batch, _ in batches.epoch(epoch)])


def test_an_epoch_depends_on_the_seed_and_its_number_alone(images):
    first = epoch_of(images, 2)
    assert torch.equal(first, epoch_of(images, 2))
    assert not torch.equal(first, epoch_of(images, 1))
    assert not torch.equal(first, epoch_of(images, 2, seed=4))
    batches = Batches(images, batch_size=25, translate=4, flip=True, seed=3)
    one = [batch for batch, _ in batches.epoch(2)]
    list(batches.epoch(1))
    again = [batch for batch, _ in batches.epoch(2)]
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))


def test_each_image_is_a_crop_of_its_reflection_flipped_or_not(images):
    margin, seen = 2, set()
    padding = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    padded = np.pad(images.images.numpy(), padding, mode="reflect")
    crops = {}
    for row in range(2 * margin + 1):
        for column in range(2 * margin + 1):
            crop = padded[:, row : row + 32, column : column + 32]
            for flipped, pixels in ((False, crop), (True, crop[:, :, ::-1])):
                for k, pixel in enumerate(normalize(torch.from_numpy(pixels.copy()))):
                    crops[pixel.numpy().tobytes()] = (k, row, column, flipped)
    batches = Batches(images, batch_size=50, translate=margin, flip=True, seed=0)
    for epoch in range(1, 7):
        ((batch, labels),) = batches.epoch(epoch)
        for image, label in zip(batch, labels, strict=True):
            k, *how = crops[image.contiguous().numpy().tobytes()]
            assert label == images.labels[k]
            seen.add(tuple(how))
    assert len(seen) == 5 * 5 * 2  # every shift occurs, both ways round


def test_flip_alone_mirrors_about_half_of_the_images(images):
    batches = Batches(images, batch_size=50, flip=True, seed=0)
    reference = normalize(images.images)
    flips = 0
    for epoch in range(1, 9):
        ((batch, _),) = batches.epoch(epoch)
        straight = (batch[:, None] == reference).flatten(2).all(2).any(1)
        mirrored = (batch.flip(3)[:, None] == reference).flatten(2).all(2).any(1)
        assert bool((straight | mirrored).all())
        flips += int(mirrored.sum())
    assert 150 < flips < 250


def test_cutout_deletes_one_square_cut_by_the_border():
    batches = Batches(numbered(100), batch_size=100, cutout=8, seed=0)
    ((batch, _),) = batches.epoch(1)
    sizes = set()
    for image in batch:
        hole = image[0] == 0
        assert torch.equal(hole, image[2] == 0)
        rows, columns = torch.nonzero(hole).unbind(1)
        height, width = (int(axis.max() - axis.min()) + 1 for axis in (rows, columns))
        assert int(hole.sum()) == height * width
        inside = rows.min() > 0 and rows.max() < 31 and columns.min() > 0 and columns.max() < 31
        assert (height, width) == (8, 8) if inside else 4 <= min(height, width)
        assert max(height, width) <= 8
        sizes.add((height, width))
    assert len(sizes) > 3


def test_gridmask_is_applied_with_the_epochs_probability_and_draws():
    source = numbered(60)
    mine = GridMask((4, 9), probability=0.9, ramp_epochs=4)
    batches = Batches(source, batch_size=30, gridmask=mine, seed=5)
    plain = Batches(source, batch_size=30, seed=5)
    for epoch, probability in ((1, 0.0), (3, 0.45), (9, 0.9)):
        expected = GridMask((4, 9), probability=probability, seed=5 * 1_000_003 + epoch)
        pairs = zip(batches.epoch(epoch), plain.epoch(epoch), strict=True)
        for (masked, labels), (whole, same_labels) in pairs:
            assert torch.equal(masked, expected(whole))
            assert torch.equal(labels, same_labels)
        assert mine.current_probability == pytest.approx(probability)


def test_the_images_given_are_not_changed(images):
    before = images.images.clone()
    epoch_of(images, 1)
    assert torch.equal(images.images, before)


def test_the_first_epochs_see_smaller_images():
    images = load_cifar10("train", "sample").head(20)
    batches = Batches(images, batch_size=10, small_epochs=2, small_side=20)
    sizes = [next(iter(batches.epoch(epoch)))[0].shape for epoch in (1, 2, 3)]
    assert [tuple(size) for size in sizes] == [(10, 3, 20, 20)] * 2 + [(10, 3, 32, 32)]
    whole, small = (
        next(iter(Batches(images, batch_size=20, small_epochs=k).epoch(1)))[0] for k in (0, 1)
    )
    assert small.shape[2:] == (24, 24)
    assert torch.allclose(whole.mean((2, 3)), small.mean((2, 3)), atol=0.05)
    assert small.is_contiguous(memory_format=torch.channels_last)
