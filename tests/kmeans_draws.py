"""Values of many kinds for the tests of k-means, and the least error that clusters of them have."""

import functools

import numpy as np
import torch
from numpy.typing import NDArray

Values = NDArray[np.float32]

KINDS = [
    *("gaussian", "laplacian", "student 3", "student 1.5", "cauchy", "bimodal", "lognormal"),
    *("uniform", "pruned", "pruned with zeros", "few distinct", "outliers", "denormal", "offset"),
    *("dense spot", "bfloat16"),
]


def draw(kind: str, n: int, seed: int = 0) -> Values:
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=n)
    match kind:
        case "gaussian":
            values = 0.02 * normal
        case "laplacian":
            values = rng.laplace(size=n)
        case "student 3" | "student 1.5":
            values = rng.standard_t(float(kind.split()[1]), size=n)
        case "cauchy":
            values = rng.standard_cauchy(size=n)
        case "bimodal":
            values = np.where(rng.random(n) < 0.3, 0.1 * normal - 3, normal + 2)
        case "lognormal":
            values = np.exp(1.5 * normal)
        case "uniform":
            values = rng.random(n)
        case "pruned":
            wide = rng.normal(size=3 * n)
            values = wide[np.argsort(np.abs(wide))[2 * n :]]
        case "pruned with zeros":
            values = np.where(np.abs(normal) < 1, 0, normal)
        case "few distinct":
            values = np.round(30 * normal)
        case "outliers":
            values = np.where(np.arange(n) < 5, 1e6 * (np.arange(n) - 1.5), normal)
        case "denormal":
            values = 1e-40 * normal
        case "offset":
            values = 1000 + 1e-3 * normal
        case "dense spot":
            values = np.where(rng.random(n) < 0.7, 1e-4 * normal, 100 * normal)
        case "bfloat16":
            return torch.from_numpy(normal).bfloat16().float().numpy()
        case _:
            raise AssertionError(kind)
    return values.astype(np.float32)


@functools.cache
def optimum(kind: str, n: int, k_max: int) -> NDArray[np.float64]:
    """The least squared error for 0..k_max clusters with float32 centroids: O(k n^2), exact."""
    values, counts = np.unique(draw(kind, n), return_counts=True)
    x, m = values.astype(np.float64), len(values)
    cost = np.full((m, m + 1), np.inf)  # cost[i, j] of x[i:j], grown one value at a time (Welford)
    mean, weight, error = np.zeros(m), np.zeros(m), np.zeros(m)
    for j in range(m):
        head = slice(0, j + 1)
        apart = x[j] - mean[head]
        weight[head] += counts[j]
        mean[head] += apart * counts[j] / weight[head]
        error[head] += counts[j] * apart * (x[j] - mean[head])
        rounded = mean[head].astype(np.float32)
        cost[head, j + 1] = error[head] + weight[head] * (mean[head] - rounded) ** 2
    best = np.full(m + 1, np.inf)
    best[0] = 0.0
    result = [np.inf]
    for _ in range(k_max):
        best = np.concatenate([[np.inf], np.min(best[:m, None] + cost, axis=0)[1:]])
        result.append(best[m])
    return np.array(result)
