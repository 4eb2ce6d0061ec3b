"""The bins of k-means keep counts and means, and their partition is near the optimum."""

import numpy as np
import pytest

from compression.kmeans_bins import make_bins, merge_bins
from compression.kmeans_partition import partition_bins
from tests.kmeans_draws import draw, optimum


def test_bins_cover_the_values_and_leave_outliers_alone() -> None:
    ordered = np.sort(draw("outliers", 50_000))
    bins = make_bins(ordered, 1000)
    assert 1000 <= len(bins.start) <= 1001
    assert bins.count.sum() == len(ordered)
    assert bins.start[0] == 0 and np.all(np.diff(bins.start) == bins.count[:-1])
    assert np.all(ordered[bins.start[1:]] > ordered[bins.start[1:] - 1])
    far = np.flatnonzero(np.abs(ordered) > 1e4)
    assert len(far) == 5 and np.all(bins.count[np.isin(bins.start, far)] == 1)


def test_few_distinct_values_are_one_bin_each() -> None:
    bins = make_bins(np.array([1, 1, 1, 2, 4, 4], np.float32), 3)
    assert bins.start.tolist() == [0, 3, 4]
    assert bins.count.tolist() == [3, 1, 2]
    assert bins.mean.tolist() == [1, 2, 4]


def test_merged_bins_keep_counts_and_means() -> None:
    bins = make_bins(np.array([1, 1, 1, 5, 9, 11], np.float32), 6)
    merged = merge_bins(bins, np.array([True, False, True, False]))
    assert merged.start.tolist() == [0, 4]
    assert merged.count.tolist() == [4, 2]
    assert merged.mean.tolist() == [2, 10]


@pytest.mark.parametrize(
    ("window", "band", "slack"), [(1200, 1200, 1e-9), (64, 1200, 1e-3), (300, 64, 1e-2)]
)
@pytest.mark.parametrize("kind", ["cauchy", "dense spot", "bimodal"])
def test_a_narrow_window_or_band_is_moved_until_it_fits(
    kind: str, window: int, band: int, slack: float
) -> None:
    ordered = np.sort(draw(kind, 1200))
    starts = partition_bins(make_bins(ordered, 1200), 64, window, band)
    assert len(starts) == 64 and starts[0] == 0 and np.all(np.diff(starts) > 0)
    x = ordered.astype(np.float64)
    error = sum(float(np.sum((part - part.mean()) ** 2)) for part in np.split(x, starts[1:]))
    exact = optimum(kind, 1200, 64)[64]  # about float32 centroids, which cost a little more
    assert error <= (1 + slack) * exact
