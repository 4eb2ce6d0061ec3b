"""Weighted bins for one-dimensional k-means: a few thousand that stand in for millions of values.

For many clusters the best centroids lie as densely as the cube root of the data's density (Panter &
Dite 1951), so bins of equal integral of density^(1/3) give each cluster about the same number.
Between sorted neighbours the density is one over the gap: the integral is the sum of gap^(2/3), up
to a constant. A gap counts as one bin at most: an outlier is a bin of its own, a hole costs one.
Sums are taken bin by bin, never as differences of running sums: outliers cost no precision.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Bins:
    """Contiguous runs of ascending values, all arrays (m,), m >= 1.

    start: index of the run's first value; count: how many values; mean: of the values.
    """

    start: Ints
    count: Floats
    mean: Floats


def make_bins(ordered: NDArray[np.float32], target: int) -> Bins:
    """Bins of `ordered` ((n,) float32, ascending, finite, n >= 1): at most `target` + 1 of them.

    With `target` distinct values or fewer each of them is a bin, which loses nothing. Equal values
    always share a bin. Takes about eight times the memory of `ordered`.
    """
    start = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
    if len(start) > target:
        count = np.diff(start, append=len(ordered))
        position = positions(ordered[start].astype(np.float64), count, target)
        new = np.diff(np.floor(position), prepend=-1.0) > 0
        start = start[new]
    count = np.diff(start, append=len(ordered)).astype(np.float64)
    return Bins(start, count, np.add.reduceat(ordered, start, dtype=np.float64) / count)


def positions(level: Floats, count: Ints | Floats, parts: int) -> Floats:
    """(m,) where each of `level` ((m,) strictly ascending, m > parts >= 1) lies among `parts`.

    The integral of density^(1/3) from the first level on, in units of one part; a gap that would
    count more counts as one part. Repeated values (`count`) raise the density; of two neighbours
    the lesser count is taken, so that one heavy value does not draw all the parts to itself.
    """
    steps = np.diff(level)
    steps *= steps
    steps *= np.minimum(count[1:], count[:-1])
    np.cbrt(steps, out=steps)
    steps /= _step_length(steps, parts)
    np.minimum(steps, 1.0, out=steps)
    place = np.zeros(len(level))
    np.cumsum(steps, out=place[1:])
    return place


def _step_length(steps: Floats, target: int) -> float:
    """The h > 0 at which sum(min(steps, h)) = target * h; at least `target` steps are positive.

    Steps above h are cut to h. With the `target` largest steps t_0 <= t_1 <= ... and the sum c_q of
    all steps up to t_q, cutting all above t_q gives h = c_q / (q + 1); it is consistent for the
    largest q with t_q <= h, and that test is monotone in q.
    """
    parted = np.partition(steps, len(steps) - target)
    largest = np.sort(parted[-target:])
    upto = parted[:-target].sum() + np.cumsum(largest)
    rank = np.arange(1.0, target + 1)
    last = int(np.flatnonzero(largest * rank <= upto * (1 + 1e-12))[-1])
    return float(upto[last] / rank[last])


def merge_bins(bins: Bins, keep: NDArray[np.bool_]) -> Bins:
    """Bins whose edges are those of `bins` where `keep` ((m,) bool, first True) is True."""
    first = np.flatnonzero(keep)
    count = np.add.reduceat(bins.count, first)
    # Means relative to the first bin merged: nothing is lost to a large offset.
    offset = bins.mean - np.repeat(bins.mean[first], np.diff(first, append=len(keep)))
    mean = bins.mean[first] + np.add.reduceat(bins.count * offset, first) / count
    return Bins(bins.start[first], count, mean)
