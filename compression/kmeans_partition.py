"""The best split of weighted bins into k contiguous clusters, by dynamic programming.

On a line the best clusters are intervals: with cost(p, i) the squared error of bins p..i-1 in one
cluster, best_j(i) = min over p of best_{j-1}(p) + cost(p, i) (Wang & Song 2011, Ckmeans.1d.dp). The
cost is Monge (Wu 1991; Gronlund et al. 2017), so the best p moves right with i and with j and stays
near an estimate: p is sought in a window below i, and i in a band. That is no proof, so a result
that nears the end of a window or a band is not trusted: see `partition_bins`.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from compression.kmeans_bins import Bins, Floats, Ints, merge_bins, positions

_ROUNDS = 20
_WORTHWHILE = 5e-4  # relative gain below which bands are not centred once more


def partition_bins(bins: Bins, k: int, window: int, band: int) -> Ints:
    """First values of the k clusters of least squared error: (k,) int64 indices into the values.

    Needs 1 <= k < len(bins.count) <= k * window. `window`: most bins a cluster may hold; `band`:
    how far, in bins, a boundary may lie from its estimate. One round takes at most about
    2 * k * band * window sums. Where a cluster fills more than half a window (two such
    might be better as one, which the window forbids), its bins are finer than its error deserves:
    they are merged in pairs. Where an edge strays by half a band, the bands are centred on the
    result. Either way it is solved again.
    """
    place = positions(bins.mean, bins.count, k)
    edges = np.searchsorted(place, np.linspace(0.0, place[-1], k + 1))
    best = np.inf
    for _ in range(_ROUNDS):
        m = len(bins.count)
        width = min(window, m)
        guess = _feasible(edges, k, m, width)
        edges, cost = _solve(bins, guess, width, band)
        widths = np.diff(edges)
        if width < m and widths.max() > width // 2:
            bins, edges = _coarsen(bins, edges, width // 2)
        elif np.abs(edges - guess).max() < band / 2 or cost >= best * (1 - _WORTHWHILE):
            break
        else:
            best = cost
    return bins.start[edges[:-1]]


def _feasible(guess: Ints, k: int, m: int, width: int) -> Ints:
    """`guess` (k + 1,) moved to edges 0..m whose differences all lie in 1..width."""
    j = np.arange(k + 1)
    low = np.maximum(j, m - (k - j) * width)
    high = np.minimum(m - (k - j), j * width)
    edges = np.clip(guess, low, high)
    edges = np.maximum.accumulate(edges - j) + j
    return np.minimum.accumulate(edges - width * j) + width * j


def _coarsen(bins: Bins, edges: Ints, most: int) -> tuple[Bins, Ints]:
    """Bins merged in pairs within clusters of more than `most`; and the edges among them."""
    widths = np.diff(edges)
    inside = np.arange(edges[-1]) - np.repeat(edges[:-1], widths)
    keep = (inside % 2 == 0) | np.repeat(widths <= most, widths)
    return merge_bins(bins, keep), np.concatenate([[0], np.cumsum(keep)])[edges]


def _costs(bins: Bins, width: int) -> Floats:
    """(width, m + 1): [w - 1, i] is the squared error of bins i-w..i-1 in one cluster, or inf.

    Grown one bin at a time by the update of Chan, Golub & LeVeque 1979, in which every term is
    positive: differences of prefix sums would lose small clusters beside far outliers. The error
    is about the mean as float32 can hold it, which counts when the spread is some units of that.
    """
    m = len(bins.count)
    table = np.full((width, m + 1), np.inf)
    count, mean, cost = bins.count, bins.mean, np.zeros(m)
    table[0, 1:] = count * (mean - mean.astype(np.float32)) ** 2
    for w in range(1, width):
        added = bins.count[: m - w]
        total = count[1:] + added
        apart = bins.mean[: m - w] - mean[1:]
        share = added / total
        cost = cost[1:] + apart * apart * (share * count[1:])
        mean = mean[1:] + apart * share
        count = total
        table[w, w + 1 :] = cost + count * (mean - mean.astype(np.float32)) ** 2
    return table


def _solve(bins: Bins, guess: Ints, width: int, band: int) -> tuple[Ints, float]:
    """Edges (k + 1,) of least cost, within `band` of `guess`, differences in 1..width; the cost."""
    k, m = len(guess) - 1, len(bins.count)
    j = np.arange(k + 1)
    low = np.maximum(guess - band, np.maximum(j, m - (k - j) * width))
    high = np.minimum(guess + band, np.minimum(m - (k - j), j * width))
    costs = _costs(bins, width)
    # layers[j][width + i - low[j]] is the least cost of bins 0..i-1 in j clusters, inf before it.
    layers = [np.concatenate([np.full(width, np.inf), [0.0]])]
    room = np.empty(width * int((high - low).max() + 1))
    for c in range(1, k + 1):
        layers.append(_layer(layers[-1], costs, (low[c - 1], low[c], high[c]), room))
    edges = np.empty(k + 1, dtype=np.int64)
    edges[k] = m
    for c in range(k, 0, -1):
        edges[c - 1] = _previous(layers[c - 1], int(low[c - 1]), costs[:, edges[c]], int(edges[c]))
    return edges, float(layers[k][-1])


def _layer(before: Floats, costs: Floats, span: tuple[int, int, int], room: Floats) -> Floats:
    """The next layer for edges low..high, from `before`, whose edges begin at before_low."""
    before_low, low, high = span
    width, length = len(costs), high - low + 1
    after = np.full(width + length, np.inf)
    reach = after[: width + length - 1].copy()  # best cost of edges low - width .. high - 1
    part = before[low - before_low :][: len(reach)]
    reach[: len(part)] = part
    sums = room[: width * length].reshape(width, length)
    np.add(sliding_window_view(reach, length)[::-1], costs[:, low : high + 1], out=sums)
    np.min(sums, axis=0, out=after[width:])
    return after


def _previous(before: Floats, before_low: int, costs: Floats, edge: int) -> int:
    """The edge before `edge` on the best path; `costs` (width,) of the clusters ending there."""
    reach = before[edge - before_low :][: len(costs)]  # from edge - width up
    sums = reach + costs[::-1][: len(reach)]
    return edge - len(costs) + int(np.argmin(sums))
