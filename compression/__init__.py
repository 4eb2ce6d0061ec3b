"""GridMask, magnitude pruning and k-means quantization of a ResNet-9 on CIFAR-10.

The public functions are re-exported here by name and loaded on first use, so that importing the
package costs nothing: torch alone takes longer than the page may take to appear.
"""

import pkgutil

# Python 3.14 has a standard package of this name, from which gzip, bz2, lzma and zipfile import.
# Extending the path lets `compression.zlib` and `compression.data` live side by side.
__path__ = pkgutil.extend_path(__path__, __name__)

import importlib
from typing import Any

_EXPORTS = {
    "Checkpoint": "model",
    "CIFAR10_CLASSES": "data",
    "ImageSet": "data",
    "load_cifar10": "data",
    "normalize": "data",
    "GridMask": "gridmask",
    "grid_mask": "gridmask",
    "build_model": "model",
    "load_checkpoint": "model",
    "prunable_layers": "model",
}

__all__ = sorted(_EXPORTS)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
