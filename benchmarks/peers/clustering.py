"""k-means of numbers on a line by the packages that people use: (values, k) -> centroids, labels.

kmeans1d is exact (dynamic programming with SMAWK, Gronlund et al. 2017, arXiv 1701.07204);
scikit-learn runs Lloyd's iterations from a k-means++ start; fast-pytorch-kmeans, which courses use,
runs them from values drawn at random until the centroids move by less than a fixed amount. Each is
imported when it is called, so that the others can be measured without it.
"""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Values = NDArray[np.float32]
Clustering = tuple[NDArray[Any], NDArray[Any]]
PACKAGES = {"kmeans1d": "kmeans1d", "scikit-learn": "sklearn.cluster"}
PACKAGES |= {"fast-pytorch-kmeans": "fast_pytorch_kmeans"}


def is_installed(package: str) -> bool:
    """Whether one of PACKAGES is there, with what it needs."""
    try:
        _package(package)
    except RuntimeError:
        return False
    return True


def exact(values: Values, k: int) -> Clustering:
    """kmeans1d, on values less their median: its prefix sums lose precision far from zero."""
    middle = float(np.median(values))
    result = _package("kmeans1d").cluster((values.astype(np.float64) - middle).tolist(), k)
    return np.array(result.centroids) + middle, np.array(result.clusters)


def scikit_learn(values: Values, k: int) -> Clustering:
    """scikit-learn's KMeans with one start; fewer clusters where there are fewer values."""
    k = min(k, len(np.unique(values)))
    means = _package("scikit-learn").KMeans(n_clusters=k, n_init=1, random_state=0)
    labels = means.fit_predict(values[:, None])
    return means.cluster_centers_[:, 0], labels


def fast_pytorch(values: Values, k: int, seed: int = 0) -> Clustering:
    """fast-pytorch-kmeans as courses call it: its defaults, and the centroids it ends with."""
    np.random.seed(seed)  # its starts are drawn from NumPy's global generator
    torch.manual_seed(seed)
    means = _package("fast-pytorch-kmeans").KMeans(n_clusters=k, mode="euclidean", verbose=0)
    labels = means.fit_predict(torch.from_numpy(values).view(-1, 1))
    return means.centroids.view(-1).numpy(), labels.numpy()


METHODS = {"kmeans1d": exact, "scikit-learn": scikit_learn, "fast-pytorch-kmeans": fast_pytorch}


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(PACKAGES[name])
    except ImportError as error:
        raise RuntimeError(
            f"{name} must be installed: pip install -r benchmarks/requirements.txt"
        ) from error
