"""What the k-means benchmark runs: weights of many shapes, whole models, and their memory."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.clustering import METHODS, Clustering
from benchmarks.subjects import shipped_model
from compression.kmeans import kmeans_1d
from compression.quantization import quantize
from compression.resnet9 import ResNet9, build_model, prunable_layers

LAYER, BITS, OURS = "res2.first", 8, "kmeans_1d"
Values = NDArray[np.float32]

_SHAPES: dict[str, Callable[[np.random.Generator, int], NDArray[np.floating]]] = {
    "gaussian": lambda rng, n: rng.normal(size=n),
    "laplacian": lambda rng, n: rng.laplace(size=n),
    "student t, 3 degrees": lambda rng, n: rng.standard_t(3, n),
    "student t, 1.5 degrees": lambda rng, n: rng.standard_t(1.5, n),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "bimodal": lambda rng, n: np.where(
        rng.random(n) < 0.3, rng.normal(-3, 0.1, n), rng.normal(2, 1, n)
    ),
    "skewed (lognormal)": lambda rng, n: rng.lognormal(0, 1.5, n),
    "uniform": lambda rng, n: rng.random(n),
    "pruned": lambda rng, n: _largest_third(rng.normal(size=3 * n)),
    "pruned, with its zeros": lambda rng, n: _zero_below(rng.normal(size=n), 1),
    "few far outliers": lambda rng, n: np.where(
        np.arange(n) < 5, 1e6 * np.arange(-2, n - 2), rng.normal(size=n)
    ),
    "constant": lambda rng, n: np.full(n, 0.25),
    "61 distinct values": lambda rng, n: rng.integers(-30, 31, n) / 8,
}
DISTRIBUTIONS = tuple(_SHAPES)


def draw(distribution: str, n: int, seed: int = 0) -> Values:
    """`n` float32 values of one of DISTRIBUTIONS; the same for the same seed."""
    return _SHAPES[distribution](np.random.default_rng(seed), n).astype(np.float32)


def _largest_third(wide: NDArray[np.floating]) -> NDArray[np.floating]:
    return wide[np.argsort(np.abs(wide))[2 * len(wide) // 3 :]]


def _zero_below(values: NDArray[np.floating], edge: float) -> NDArray[np.floating]:
    return np.where(np.abs(values) < edge, 0, values)


def weights(quick: bool) -> Values:
    """The 589,824 weights of the shipped checkpoint's largest layer; a part of them when quick."""
    flat = prunable_layers(shipped_model())[LAYER].weight.detach().flatten().numpy()
    return flat[:20_000] if quick else flat


def cluster(name: str, values: Values, k: int) -> Clustering:
    """Centroids and labels by ours or by one of the packages."""
    return kmeans_1d(values, k) if name == OURS else METHODS[name](values, k)


def model_to_quantize(preset: str) -> ResNet9:
    """The shipped model, or for another preset one of Laplacian weights (untrained ones are
    uniform, which no trained layer is)."""
    if preset == "resnet9-s":
        return shipped_model()
    model = build_model(preset)
    for seed, layer in enumerate(prunable_layers(model).values()):
        drawn = draw("laplacian", layer.weight.numel(), seed).reshape(layer.weight.shape)
        layer.weight.data = 0.02 * torch.from_numpy(drawn)
    return model


def prepare(name: str, quick: bool) -> Callable[[], object]:
    """The work whose peak memory is measured, its inputs loaded."""
    if name.startswith("resnet9"):
        model = model_to_quantize(name)
        quantize(build_model("resnet9-s"), 1)  # what a first call loads is not the work's
        return lambda: quantize(model, BITS)
    values, k = weights(quick), 2 ** (4 if quick else BITS)
    cluster(name, values[:1000], 4)
    return lambda: cluster(name, values, k)
