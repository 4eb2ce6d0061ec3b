"""CIFAR-10's bundled sample by digest, the full set out of faked caches, normalization by hand."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torchvision.datasets import CIFAR10
from torchvision.transforms import v2

from compression import data
from compression.data import (
    CHANNEL_MEAN,
    CHANNEL_STD,
    CIFAR10_CLASSES,
    cache_folder,
    is_cached,
    load_cifar10,
    normalize,
    verify,
)
from compression.inputs import InputError

# SHA-256 of the sample's images, and of its labels as uint8, cut to 16 digits.
GOLDEN = {
    "train": (3000, "e0434e073127cfaa", "040f803fdbc14718"),
    "validation": (2000, "69bea39ae32b9463", "d1d281ffdd756de3"),
    "test": (2000, "2604dccd3d4c3aa0", "0eeebe13288931f8"),
}


@pytest.fixture(autouse=True)
def no_cache_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("COMPRESSION_DATA", str(tmp_path / "unused"))


def small_half(half, seed):
    """A stand-in for an official half: tiny, so that its digests have to be faked too."""
    generator = np.random.default_rng(seed)
    count = {"train": 60, "test": 10}[half]
    images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return images, generator.integers(0, 10, count, dtype=np.uint8)


def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.fixture
def small_official(monkeypatch):
    """The sizes and digests of a small stand-in for CIFAR-10; gives its four arrays."""
    arrays = {}
    for seed, half in enumerate(("train", "test")):
        arrays[f"{half}_images"], arrays[f"{half}_labels"] = small_half(half, seed)
    monkeypatch.setattr(data, "DIGESTS", {name: digest(array) for name, array in arrays.items()})
    monkeypatch.setattr(data, "TRAIN_SIZE", 45)
    monkeypatch.setattr(data, "VALIDATION_SIZE", 15)
    monkeypatch.setattr(data, "TEST_SIZE", 10)
    return arrays


@pytest.mark.parametrize("split", data.SPLITS)
def test_the_sample_is_what_was_committed(split):
    sample = load_cifar10(split, "sample")
    count, images, labels = GOLDEN[split]
    assert (sample.images.shape, sample.images.dtype) == ((count, 32, 32, 3), torch.uint8)
    assert (sample.labels.shape, sample.labels.dtype) == ((count,), torch.int64)
    assert (sample.indices.shape, sample.indices.dtype) == ((count,), torch.int64)
    assert sample.classes == CIFAR10_CLASSES
    assert sample.source == "sample"
    assert torch.bincount(sample.labels).tolist() == [count // 10] * 10
    assert digest(sample.images.numpy())[:16] == images
    assert digest(sample.labels.numpy().astype(np.uint8))[:16] == labels


def test_the_sample_is_the_first_images_of_each_class_of_the_full_set(monkeypatch):
    monkeypatch.delenv("COMPRESSION_DATA")
    if not is_cached():
        pytest.skip("the full CIFAR-10 is not in this user's cache")
    full, sample = load_cifar10("test", "full"), load_cifar10("test", "sample")
    for label in range(10):
        first = torch.nonzero(full.labels == label)[:200, 0]
        assert torch.equal(sample.indices[sample.labels == label], first)
    assert torch.equal(full.images[sample.indices], sample.images)


def test_the_splits_of_the_sample_do_not_overlap():
    train, validation = load_cifar10("train", "sample"), load_cifar10("validation", "sample")
    assert train.indices.max() < 45_000 <= validation.indices.min()
    assert validation.indices.max() < 50_000
    for sample in (train, validation):
        assert bool((sample.indices.diff() > 0).all())


def test_the_sample_says_where_it_comes_from():
    index = json.loads((data.SAMPLE_FOLDER / "index.json").read_text())
    assert "Krizhevsky" in index["citation"]
    assert (data.SAMPLE_FOLDER / "make_sample.py").is_file()
    assert all(path.stat().st_size < 10e6 for path in data.SAMPLE_FOLDER.iterdir())


def test_two_loads_share_no_memory():
    first = load_cifar10("test", "sample")
    first.images.zero_()
    assert load_cifar10("test", "sample").images.any()


def test_head_takes_the_first_images_of_everything():
    sample = load_cifar10("test", "sample")
    few = sample.head(7)
    assert len(few) == len(few.images) == len(few.indices) == 7
    assert torch.equal(few.labels, sample.labels[:7])
    assert few.source == "sample"


def test_normalize_is_torchvisions():
    images = load_cifar10("test", "sample").images[:5]
    reference = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize(CHANNEL_MEAN, CHANNEL_STD)]
    )(images.permute(0, 3, 1, 2))
    result = normalize(images)
    torch.testing.assert_close(result, reference, rtol=1e-5, atol=1e-6)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_normalize_gives_the_channels_zero_mean_and_unit_spread():
    pixels = normalize(load_cifar10("train", "sample").images)
    assert pixels.mean((0, 2, 3)).abs().max() < 0.05
    assert (pixels.std((0, 2, 3)) - 1).abs().max() < 0.05


def test_normalize_takes_an_empty_batch_and_any_side():
    assert normalize(torch.zeros(0, 32, 32, 3, dtype=torch.uint8)).shape == (0, 3, 32, 32)
    assert normalize(torch.zeros(2, 5, 7, 3, dtype=torch.uint8)).shape == (2, 3, 5, 7)


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (torch.zeros(2, 32, 32, 3), r"float32 \(2, 32, 32, 3\)"),
        (torch.zeros(32, 32, 3, dtype=torch.uint8), r"uint8 \(32, 32, 3\)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), r"uint8 \(2, 3, 32, 32\)"),
        (torch.zeros(2, 32, 32, 4, dtype=torch.uint8), r"uint8 \(2, 32, 32, 4\)"),
    ],
)
def test_normalize_refuses_other_images(images, got):
    with pytest.raises(InputError, match=rf"images must be a uint8 tensor .*, got {got}\.$"):
        normalize(images)


def test_the_cache_folder_is_the_argument_then_the_variable_then_the_users(monkeypatch):
    assert cache_folder("/given") == Path("/given")
    monkeypatch.setenv("COMPRESSION_DATA", "/configured")
    assert cache_folder("/given") == Path("/given")
    assert cache_folder() == Path("/configured")
    monkeypatch.setenv("COMPRESSION_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/compression-explorer")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somebody")
    assert cache_folder() == Path("/somebody/.cache/compression-explorer")
    assert cache_folder("~/cifar") == Path("/somebody/cifar")


@pytest.mark.parametrize("root", [5, b"bytes", "~nobody-has-this-name/x"])
def test_a_data_folder_that_is_no_path_is_refused(root):
    with pytest.raises(InputError, match="^The data folder must be a path, got "):
        cache_folder(root)


def test_auto_is_the_sample_until_the_full_set_is_cached(monkeypatch, tmp_path, small_official):
    monkeypatch.setenv("COMPRESSION_DATA", str(tmp_path))
    assert not is_cached()
    assert load_cifar10("test").source == "sample"
    save_file(small_official, tmp_path / data.CACHE_FILE)
    assert is_cached()
    assert load_cifar10("test").source == "full"
    assert load_cifar10("test", "sample").source == "sample"
    assert load_cifar10("test", "auto", tmp_path / "elsewhere").source == "sample"


def test_the_full_set_is_split_in_official_order(tmp_path, small_official):
    save_file(small_official, tmp_path / data.CACHE_FILE)
    train, validation, test = (load_cifar10(s, "full", tmp_path) for s in data.SPLITS)
    assert (len(train), len(validation), len(test)) == (45, 15, 10)
    joined = torch.cat([train.images, validation.images]).numpy()
    assert np.array_equal(joined, small_official["train_images"])
    assert np.array_equal(validation.labels.numpy(), small_official["train_labels"][45:])
    assert np.array_equal(test.images.numpy(), small_official["test_images"])
    assert validation.indices.tolist() == list(range(45, 60))
    assert train.labels.dtype == torch.int64


def test_the_published_sizes():
    assert (data.TRAIN_SIZE, data.VALIDATION_SIZE, data.TEST_SIZE) == (45_000, 5_000, 10_000)
    assert data.DIGESTS["test_labels"].startswith("cec8a24a1e92aa2e")


def test_an_existing_folder_of_batches_is_used(monkeypatch, tmp_path, small_official):
    """Written as the official python batches are, with the checksums of what was written."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    checksums = {}
    names = {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]}
    for half, files in names.items():
        images = small_official[f"{half}_images"].transpose(0, 3, 1, 2).reshape(-1, 3072)
        labels = small_official[f"{half}_labels"]
        parts = zip(files, np.split(images, len(files)), np.split(labels, len(files)), strict=True)
        for file, rows, classes in parts:
            content = pickle.dumps({"data": rows, "labels": classes.tolist()})
            (folder / file).write_bytes(content)
            checksums[file] = hashlib.md5(content).hexdigest()
    meta = pickle.dumps({"label_names": list(CIFAR10_CLASSES)})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR10, "train_list", [[f, checksums[f]] for f in names["train"]])
    monkeypatch.setattr(CIFAR10, "test_list", [[f, checksums[f]] for f in names["test"]])
    official = CIFAR10.meta | {"md5": hashlib.md5(meta).hexdigest()}
    monkeypatch.setattr(CIFAR10, "meta", official)
    for root in (tmp_path, folder):
        assert is_cached(root)
        test = load_cifar10("test", "auto", root)
        assert np.array_equal(test.images.numpy(), small_official["test_images"])
        validation = load_cifar10("validation", "full", root)
        assert np.array_equal(validation.images.numpy(), small_official["train_images"][45:])


def test_a_damaged_folder_of_batches_is_refused(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(b"cut off")
    with pytest.raises(InputError, match="must hold the official CIFAR-10 batches, got "):
        load_cifar10("test", "full", tmp_path)


def test_the_full_set_is_never_fetched_unasked(tmp_path):
    with pytest.raises(InputError, match=r"expected in .*: run `python -m compression download`"):
        load_cifar10("test", "full", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 7, 40, 100_000])
def test_a_truncated_cache_is_one_sentence(tmp_path, small_official, size):
    path = tmp_path / data.CACHE_FILE
    save_file(small_official, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError) as caught:
        load_cifar10("test", "auto", tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{path} must be a CIFAR-10 cache file, got ")
    assert text.endswith(": remove it and download again.")


def test_another_safetensors_file_is_no_cache(tmp_path):
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / data.CACHE_FILE)
    with pytest.raises(InputError, match="must be a CIFAR-10 cache file, got .*test_images"):
        load_cifar10("test", "full", tmp_path)


@pytest.mark.parametrize("name", ["test_images", "test_labels"])
def test_one_changed_byte_is_noticed(tmp_path, small_official, name):
    small_official[name].flat[3] ^= 1
    save_file(small_official, tmp_path / data.CACHE_FILE)
    with pytest.raises(InputError, match=f"{name} from .* must have SHA-256 .*download again"):
        load_cifar10("test", "full", tmp_path)


def test_verify_compares_with_the_published_digest():
    with pytest.raises(InputError, match=r"test_labels from here must have SHA-256 cec8a24a1e92"):
        verify("test_labels", np.zeros(10_000, np.uint8), "here")


@pytest.mark.parametrize(("argument", "value"), [("split", "valid"), ("split", None)])
def test_an_unknown_split_is_refused(argument, value):
    with pytest.raises(InputError, match="split must be one of train, validation, test, got "):
        load_cifar10(**{argument: value})


@pytest.mark.parametrize("source", ["web", None, 3])
def test_an_unknown_source_is_refused(source):
    with pytest.raises(InputError, match="source must be one of auto, sample, full, got "):
        load_cifar10("test", source)
