"""Make the bundled sample from the full CIFAR-10: `python assets/cifar10-sample/make_sample.py`.

Takes the first 200 test, 200 validation and 300 training images of each class, in official order,
and writes one lossless PNG sheet a split (a grid of 32 x 32 tiles, 50 a row, read row by row) with
`index.json`: each tile's label, and its row in the official array.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from compression.data import CIFAR10_CLASSES, SPLITS, load_cifar10  # noqa: E402

PER_CLASS = {"train": 300, "validation": 200, "test": 200}
COLUMNS = 50


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of the first `count` images of each class, ascending."""
    chosen = [np.flatnonzero(labels == label)[:count] for label in range(len(CIFAR10_CLASSES))]
    return np.sort(np.concatenate(chosen))


def sheet_of(images: np.ndarray) -> Image.Image:
    """(N, 32, 32, 3) uint8 -> one picture of N / COLUMNS rows of COLUMNS tiles."""
    rows = len(images) // COLUMNS
    grid = images.reshape(rows, COLUMNS, 32, 32, 3).transpose(0, 2, 1, 3, 4)
    return Image.fromarray(grid.reshape(rows * 32, COLUMNS * 32, 3))


def main() -> None:
    index: dict[str, object] = {
        "citation": "Alex Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009",
        "made_by": "python assets/cifar10-sample/make_sample.py",
        "order": "tiles row by row; indices are rows of the official 50,000 or 10,000 images",
        "classes": list(CIFAR10_CLASSES),
    }
    splits = {}
    for split in SPLITS:
        full = load_cifar10(split, "full")
        chosen = first_of_each_class(full.labels.numpy(), PER_CLASS[split])
        sheet_of(full.images.numpy()[chosen]).save(HERE / f"{split}.png", optimize=True)
        splits[split] = {
            "sheet": f"{split}.png",
            "indices": full.indices[chosen].tolist(),
            "labels": full.labels[chosen].tolist(),
        }
    (HERE / "index.json").write_text(json.dumps(index | {"splits": splits}) + "\n")


if __name__ == "__main__":
    main()
