"""CIFAR-10 (Krizhevsky 2009): the bundled sample, the full set from the cache, normalization.

Splits: `train` is the first 45,000 official training images, `validation` the last 5,000, `test`
the official 10,000. Everything that is chosen (best epoch, recipe, sparsity, bits) is chosen on
`validation`; `test` only reports. Fetching the full set is `download.py`'s work, never this one's:
nothing here touches the network.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from compression.inputs import InputError, choice, shown
from compression.presets import CIFAR10_CLASSES

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SOURCES = ("auto", "sample", "full")

IMAGE_SHAPE = (32, 32, 3)
TRAIN_SIZE, VALIDATION_SIZE, TEST_SIZE = 45_000, 5_000, 10_000

# Per-channel mean and standard deviation of the 50,000 official training images, in [0, 1] units.
CHANNEL_MEAN = (0.4914, 0.4822, 0.4465)
CHANNEL_STD = (0.2470, 0.2435, 0.2616)

# SHA-256 of the official arrays: uint8 NHWC images in official order, labels as uint8.
DIGESTS = {
    "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
CACHE_FILE = "cifar10.safetensors"
BATCHES_FOLDER = "cifar-10-batches-py"
SAMPLE_FOLDER = Path(__file__).resolve().parent.parent / "assets" / "cifar10-sample"


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels.

    images: (N, 32, 32, 3) uint8; labels: (N,) int64 in 0..9; classes: the 10 names in label order;
    source: `sample` or `full`; indices: (N,) int64, each image's row in its official array (train
    and validation count in the 50,000 training images).
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    source: str
    indices: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, count: int) -> "ImageSet":
        """The first `count` images; both sources are in an order that mixes the classes."""
        return ImageSet(
            self.images[:count],
            self.labels[:count],
            self.classes,
            self.source,
            self.indices[:count],
        )


def cache_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """Where the full set is kept: `root`, else $COMPRESSION_DATA, else the user's cache folder.

    Raises InputError for a `root` that is no path, and a `~` that is nobody's home.
    """
    given = os.environ.get("COMPRESSION_DATA") if root is None else root
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(given or Path(base, "compression-explorer")).expanduser()
    except (TypeError, RuntimeError) as error:
        raise InputError(f"The data folder must be a path, got {shown(root or given)}.") from error


def is_cached(root: str | os.PathLike[str] | None = None) -> bool:
    """Whether the full set is there, so that `auto` means `full`."""
    return any(found(cache_folder(root)) for found in (_cache_file, _batches_folder))


def check_cached(root: str | os.PathLike[str] | None = None) -> None:
    """Raise InputError unless the full set is there."""
    if not is_cached(root):
        raise InputError(
            f"The full CIFAR-10 is expected in {cache_folder(root)}, got an empty place: "
            "run `python -m compression download` first, or use the bundled sample."
        )


def load_cifar10(
    split: Split = "test", source: str = "auto", root: str | os.PathLike[str] | None = None
) -> ImageSet:
    """One split of CIFAR-10; see ImageSet for shapes and dtypes.

    source: `sample` (bundled: 3,000 train, 2,000 validation, 2,000 test images), `full` (45,000,
    5,000 and 10,000; must have been downloaded), or `auto` (full if cached, else sample). Raises
    InputError for an unknown split or source, when `full` is not there, and when cached arrays do
    not have the published digests.
    """
    choice("split", split, SPLITS)
    choice("source", source, SOURCES)
    if source == "sample" or (source == "auto" and not is_cached(root)):
        return _load_sample(split)
    return _load_full(split, cache_folder(root))


def normalize(images: Tensor) -> Tensor:
    """(N, 32, 32, 3) uint8 NHWC -> (N, 3, 32, 32) float32, zero mean and unit spread a channel.

    The result keeps the channels-last memory of its input, which convolutions prefer on a CPU.
    Raises InputError for another dtype or shape (any height and width will do).
    """
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[-1] != 3:
        raise InputError(
            "images must be a uint8 tensor of shape (N, height, width, 3), "
            f"got {str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}."
        )
    std = torch.tensor(CHANNEL_STD, device=images.device)
    mean = torch.tensor(CHANNEL_MEAN, device=images.device)
    pixels = images.float().mul_(1 / (255 * std)).sub_(mean / std)
    return pixels.permute(0, 3, 1, 2)


def verify(name: str, array: np.ndarray, where: str) -> None:
    """Raise InputError unless the official array `name` has its published SHA-256."""
    digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    if digest != DIGESTS[name]:
        raise InputError(
            f"{name} from {where} must have SHA-256 {DIGESTS[name][:12]}..., got {digest[:12]}...: "
            "remove it and download again."
        )


def _load_full(split: Split, root: Path) -> ImageSet:
    half = "test" if split == "test" else "train"
    if _cache_file(root):
        read: Callable[[Path, str], tuple[np.ndarray, np.ndarray]] = _read_cache_file
        where = root / CACHE_FILE
    else:
        check_cached(root)
        read, where = read_batches, _batches_folder(root) or root
    images, labels = read(where, half)
    verify(f"{half}_images", images, str(where))
    verify(f"{half}_labels", labels, str(where))
    rows = {
        "train": slice(0, TRAIN_SIZE),
        "validation": slice(TRAIN_SIZE, TRAIN_SIZE + VALIDATION_SIZE),
        "test": slice(0, TEST_SIZE),
    }[split]
    return ImageSet(
        torch.from_numpy(images[rows]),
        torch.from_numpy(labels[rows].astype(np.int64)),
        CIFAR10_CLASSES,
        "full",
        torch.arange(rows.start, rows.stop),
    )


def _cache_file(root: Path) -> Path | None:
    path = root / CACHE_FILE
    return path if os.path.isfile(path) else None  # no error for a folder that may not be read


def _batches_folder(root: Path) -> Path | None:
    for folder in (root, root / BATCHES_FOLDER):
        if folder.name == BATCHES_FOLDER and os.path.isfile(folder / "test_batch"):
            return folder
    return None


def _read_cache_file(path: Path, half: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels out of the cache file, or InputError that says to download again."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 (kept off the page's start)

    try:
        with safe_open(path, "numpy") as file:
            return file.get_tensor(f"{half}_images"), file.get_tensor(f"{half}_labels")
    except (SafetensorError, OSError, struct.error) as error:
        raise InputError(
            f"{path} must be a CIFAR-10 cache file, got {shown(str(error))}: "
            "remove it and download again."
        ) from error


def read_batches(folder: Path, half: str) -> tuple[np.ndarray, np.ndarray]:
    """The official python batches, through torchvision, which checks each file's MD5 first."""
    from torchvision.datasets import CIFAR10  # noqa: PLC0415 (a second of import, seldom needed)

    try:
        dataset = CIFAR10(str(folder.parent), train=half == "train", download=False)
    except RuntimeError as error:
        raise InputError(
            f"{folder} must hold the official CIFAR-10 batches, got {shown(str(error))}."
        ) from error
    return dataset.data, np.asarray(dataset.targets, np.uint8)


def _load_sample(split: Split) -> ImageSet:
    """The bundled PNG sheet of a split: a grid of 32 x 32 tiles in order of official index."""
    index = json.loads((SAMPLE_FOLDER / "index.json").read_text())["splits"][split]
    with Image.open(SAMPLE_FOLDER / index["sheet"]) as image:
        sheet = np.asarray(image.convert("RGB"))
    columns = sheet.shape[1] // 32
    rows = sheet.shape[0] // 32
    tiles = sheet.reshape(rows, 32, columns, 32, 3).transpose(
        0, 2, 1, 3, 4
    )  # (row, col, 32, 32, 3)
    images = np.ascontiguousarray(tiles.reshape(rows * columns, *IMAGE_SHAPE))
    return ImageSet(
        torch.from_numpy(images[: len(index["labels"])]),
        torch.tensor(index["labels"]),
        CIFAR10_CLASSES,
        "sample",
        torch.tensor(index["indices"]),
    )
