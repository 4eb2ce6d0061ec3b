"""What a layer's settings would cost, where what was measured does not tell it outright."""

import numpy as np
import pytest
import torch

from compression.allocation_scan import SettingPoint
from compression.allocation_table import _layer_table
from compression.kmeans import kmeans_1d, squared_error


def test_a_layer_that_was_quantized_before_has_a_price_all_the_same():
    """Rounding to its own 8 values costs nothing, which tells nothing of what an error costs: that
    comes from 2 bits. Before, it was a division by nothing."""
    values = torch.randn(4608, generator=torch.Generator().manual_seed(0))
    centroids, labels = kmeans_1d(values, 8)
    weights = centroids[labels].numpy()
    for measured in (0.0, 1e-9):
        points = [
            SettingPoint("conv1", sparsity, bits, divergence, 90, 90, 100)
            for sparsity, bits, divergence in (
                (0.1, None, 0.002), (0.9, None, 0.2), (0.0, 2, 0.05), (0.0, 3, measured),
            )
        ]  # fmt: skip
        table = _layer_table("conv1", weights, points)
        plain, two, three = table.divergence
        assert three[0] == pytest.approx(measured) and np.isfinite(three).all()
        assert (three >= plain).all() and (three <= two + 1e-8).all()
        # Zeros leave 7 levels for 8 values, whose error costs as much as 2 bits' does.
        error = [
            squared_error(values, *kmeans_1d(torch.tensor(values), levels))
            for levels, values in ((4, weights), (7, kept_of(weights, 0.1)))
        ]
        at = list(table.sparsities).index(0.1)
        assert error[1] > 0
        assert three[at] - plain[at] == pytest.approx(0.05 * error[1] / error[0], rel=0.05)


def kept_of(weights, sparsity):
    return np.array(sorted(weights, key=abs)[round(sparsity * len(weights)) :])
