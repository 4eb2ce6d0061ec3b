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
    "Allocation": "allocation",
    "allocate": "allocation",
    "scan_settings": "allocation_scan",
    "load_settings": "allocation_records",
    "setting_table": "allocation_table",
    "fit": "budget_fit",
    "CODE_TRAINING": "code_training",
    "train_codes": "code_training",
    "train_codes_by_step": "code_training",
    "CentroidConfig": "centroids",
    "train_centroids": "centroids",
    "train_centroids_by_step": "centroids",
    "Checkpoint": "checkpoint",
    "CIFAR10_CLASSES": "data",
    "ImageSet": "data",
    "is_cached": "data",
    "load_cifar10": "data",
    "normalize": "data",
    "download_cifar10": "download",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "measure_complexity": "evaluation",
    "measure_latency": "evaluation",
    "measure_latency_by_round": "evaluation",
    "GridMask": "gridmask",
    "grid_mask": "gridmask",
    "kept_fraction": "gridmask",
    "stripe_width": "gridmask",
    "device_of": "inference",
    "weights_digest": "scan_cache",
    "resolved_precision": "inference",
    "magnitude_mask": "masks",
    "threshold_of": "masks",
    "build_model": "model",
    "load_checkpoint": "model",
    "prunable_layers": "model",
    "save_checkpoint": "model",
    "prune": "pruning",
    "with_model": "pruning",
    "with_present_zeros": "pruning",
    "weight_histogram": "pruning",
    "kmeans_1d": "quantization",
    "quantize": "quantization",
    "with_tied_model": "quantization",
    "quantize_compensated": "compensation",
    "fit_entropy": "entropy_quantization",
    "fit_entropy_by_trial": "entropy_quantization",
    "quantize_entropy": "entropy_quantization",
    "recalibrate_batch_norm": "recalibration",
    "Variant": "report",
    "make_variant": "report",
    "row_of": "report",
    "disagreements": "report",
    "to_csv": "report",
    "to_json": "report",
    "variant_of": "report",
    "with_latency": "report",
    "COARSE_IMAGES": "sensitivity",
    "dense_point": "sensitivity",
    "scan": "sensitivity",
    "scan_csv": "sensitivity",
    "suggest_sparsities": "sensitivity",
    "load_scan": "scan_records",
    "PackedFormatError": "packing",
    "inspect_packed": "packing",
    "description_bytes": "packing",
    "load_packed": "packing",
    "save_packed": "packing",
    "StoredModel": "stored",
    "load_stored": "stored",
    "measure_size": "sizes",
    "TrainConfig": "training",
    "EpochResult": "training",
    "fine_tune": "training",
    "train": "training",
    "train_by_step": "training",
    "StepResult": "training",
    "FINE_TUNE": "training",
    "unfold_batch_norm": "unfolding",
}

__all__ = sorted(_EXPORTS)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
