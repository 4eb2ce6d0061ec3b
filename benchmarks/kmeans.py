"""k-means on a line beside kmeans1d (exact) and scikit-learn: time, memory, and squared error.

Every comparison gives all of them the same values in the same run, in turn; a time is the median
over the runs, as wall time and as processor time of the process. Run `python -m benchmarks.kmeans`.
The peers are imported when a function that needs them is called.
"""

import importlib
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.kmeans import kmeans_1d, squared_error

Values = NDArray[np.float32]
Clustering = tuple[NDArray[Any], NDArray[Any]]

LAYER_SIZES = (864, 18432, 36864, 36864, 73728, 294912, 589824, 589824, 2560)
LARGE_SIZES = (1728, 73728, 147456, 589824, 589824, 1179648, 4718592, 9437184, 9437184, 4194304)
DISTRIBUTIONS = (
    *("gaussian", "laplacian", "student t 3", "student t 1.5", "cauchy", "bimodal", "lognormal"),
    *("uniform", "pruned", "outliers"),
)


def speed(n: int = 589_824, bits: int = 8, runs: int = 5, exact_runs: int = 1) -> dict[str, Any]:
    """Times and squared errors of the three on `n` Laplacian values, 2^bits clusters.

    kmeans1d takes over half a minute a run at the default size, so it has `exact_runs` runs only.
    """
    values, k = draw("laplacian", n), 2**bits
    methods = {"ours": kmeans_1d, "scikit-learn": _scikit_learn, "kmeans1d": _exact}
    for method in methods.values():  # imports, and threads started
        method(values[:1000], 4)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    errors: dict[str, float] = {}
    for run in range(runs):
        for name, method in methods.items():
            if name != "kmeans1d" or run < exact_runs:
                result, *taken = _timed(method, values, k)
                times[name].append((taken[0], taken[1]))
                errors[name] = squared_error(values, *result)
    rows = {name: _summary(times[name]) | {"squared_error": errors[name]} for name in methods}
    ours = rows["ours"]
    for row in rows.values():
        row["wall_over_ours"] = row["wall_s"] / ours["wall_s"]
        row["cpu_over_ours"] = row["cpu_s"] / ours["cpu_s"]
        row["error_over_exact"] = row["squared_error"] / errors["kmeans1d"]
    return {"values": n, "clusters": k, "distribution": "laplacian", "methods": rows}


def layers(sizes: tuple[int, ...] = LAYER_SIZES, bits: int = 8, runs: int = 5) -> dict[str, Any]:
    """Time of ours for all layers of a model together, and the most memory held beyond its input.

    Memory is what Python and NumPy allocate (tracemalloc), in a run that is not timed; labels and
    centroids of one layer are let go before the next.
    """
    inputs = [draw("laplacian", n, seed) for seed, n in enumerate(sizes)]
    kmeans_1d(inputs[0], 4)

    def all_layers(*_: Any) -> Clustering:
        for values in inputs:
            result = kmeans_1d(values, 2**bits)
        return result

    times = [_timed(all_layers, inputs[0], 0)[1:] for _ in range(runs)]
    tracemalloc.start()
    all_layers()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"sizes": list(sizes), "values": sum(sizes), "clusters": 2**bits} | (
        _summary(times) | {"peak_extra_bytes": peak}
    )


def error_ratios(n: int = 65_536, bits: tuple[int, ...] = (2, 3, 4, 8)) -> list[dict[str, Any]]:
    """Squared error of ours and of scikit-learn over the optimum, by distribution and bit width.

    The optimum's centroids are float64; ours are float32.
    """
    rows = []
    for distribution in DISTRIBUTIONS:
        values = draw(distribution, n)
        for width in bits:
            best = squared_error(values, *_exact(values, 2**width))
            ours = squared_error(values, *kmeans_1d(values, 2**width))
            other = squared_error(values, *_scikit_learn(values, 2**width))
            row = {"distribution": distribution, "bits": width, "values": n}
            rows.append(row | {"ours": ours / best, "scikit-learn": other / best})
    return rows


def draw(distribution: str, n: int, seed: int = 0) -> Values:
    """`n` float32 values of one of DISTRIBUTIONS; the same for the same seed."""
    rng = np.random.default_rng(seed)
    if distribution.startswith("student"):
        return rng.standard_t(float(distribution.split()[-1]), size=n).astype(np.float32)
    if distribution == "pruned":  # the largest third in magnitude of three times as many
        wide = rng.normal(size=3 * n)
        return wide[np.argsort(np.abs(wide))[2 * n :]].astype(np.float32)
    sources: dict[str, Callable[[], NDArray[np.float64]]] = {
        "gaussian": lambda: rng.normal(size=n),
        "laplacian": lambda: rng.laplace(size=n),
        "cauchy": lambda: rng.standard_cauchy(size=n),
        "bimodal": lambda: np.where(
            rng.random(n) < 0.3, rng.normal(-3, 0.1, n), rng.normal(2, 1, n)
        ),
        "lognormal": lambda: rng.lognormal(0, 1.5, n),
        "uniform": lambda: rng.random(n),
        "outliers": lambda: np.where(
            np.arange(n) < 5, 1e6 * np.arange(-2, n - 2), rng.normal(size=n)
        ),
    }
    return sources[distribution]().astype(np.float32)


def _exact(values: Values, k: int) -> Clustering:
    """kmeans1d, on values less their median: its prefix sums lose precision far from zero."""
    middle = float(np.median(values))
    result = _peer("kmeans1d").cluster((values.astype(np.float64) - middle).tolist(), k)
    return np.array(result.centroids) + middle, np.array(result.clusters)


def _scikit_learn(values: Values, k: int) -> Clustering:
    means = _peer("sklearn.cluster").KMeans(n_clusters=k, n_init=1, random_state=0)
    labels = means.fit_predict(values[:, None])
    return means.cluster_centers_[:, 0], labels


def _peer(module: str) -> ModuleType:
    package = {"sklearn.cluster": "scikit-learn"}.get(module, module)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeError(f"This comparison needs {package}: pip install {package}") from error


def _timed(
    method: Callable[[Values, int], Clustering], values: Values, k: int
) -> tuple[Clustering, float, float]:
    """The result, wall seconds, and processor seconds of all threads of the process."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = method(values, k)
    return result, time.perf_counter() - wall, time.process_time() - cpu


def _summary(times: list[Any]) -> dict[str, Any]:
    walls, cpus = zip(*times, strict=True)
    median = statistics.median
    return {"runs": len(times), "wall_s": median(walls), "cpu_s": median(cpus)}


def run() -> dict[str, Any]:
    """Everything above at its default size: several minutes, nearly all of it kmeans1d's."""
    return {
        "speed": speed(),
        "layers": layers(),
        "large_layers": layers(LARGE_SIZES, runs=3),
        "error_ratios": error_ratios(),
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
