"""The levels that answer best with the codes as they are: least squares on what a layer puts out.

k-means puts a centroid in the middle of its weights; where inputs go together, other values come
nearer to the layer's outputs. With the codes held, the squared error of the outputs is quadratic in
the levels, and its minimum is found by conjugate gradients (Hestenes & Stiefel 1952), one product
with the inputs' second moments a step. The zero of pruned weights stays zero.
"""

from dataclasses import replace

import torch
from torch import Tensor

from compression.quantization import QuantizedLayer

_STEPS = 16  # as many as there are levels are exact; with more levels there is less to gain


@torch.no_grad()
def fit_levels(layer: QuantizedLayer, wanted: Tensor, moments: Tensor) -> QuantizedLayer:
    """The layer with levels of least squared error in its outputs, its codes as they are.

    wanted: the weight (out, ...) that the layer stands for; moments: (d, d), the second moments of
    the d inputs to a row. Levels that no weight takes are left out, and codes numbered anew where
    levels changed places.
    """
    rows, moments = wanted.float().flatten(1), moments.float()
    codes, k = layer.indices.flatten().long(), len(layer.codebook)
    counts = torch.bincount(codes, minlength=k)
    free = counts > 0
    if layer.zero_code is not None:
        free[layer.zero_code] = False

    def per_code(values: Tensor) -> Tensor:
        summed = torch.bincount(codes, weights=values.flatten().double(), minlength=k)
        return summed.masked_fill(~free, 0.0)

    def product(levels: Tensor) -> Tensor:
        return per_code(levels.float()[codes].view_as(rows) @ moments)

    levels = layer.codebook.double()
    scale = per_code(moments.diagonal().expand_as(rows)).clamp(min=1e-30)
    rest = per_code((rows - layer.codebook[codes].view_as(rows)) @ moments)
    first = size = float((rest / scale * rest).sum())
    direction = rest / scale
    for _ in range(min(_STEPS, int(free.sum()))):
        if size <= 1e-10 * first:
            break
        turned = product(direction)
        curve = float((direction * turned).sum())
        if curve <= 0:  # an input that is always zero: its weights do not matter
            break
        levels = levels + size / curve * direction
        rest = rest - size / curve * turned
        before, size = size, float((rest / scale * rest).sum())
        direction = rest / scale + size / before * direction
    return _in_order(layer, levels, codes, counts)


def _in_order(
    layer: QuantizedLayer, levels: Tensor, codes: Tensor, counts: Tensor
) -> QuantizedLayer:
    """The layer with these levels, ascending, without those that no weight takes."""
    kept = counts > 0
    if layer.zero_code is not None:
        kept[layer.zero_code] = True
    codebook, place = torch.unique(levels[kept].float() + 0.0, return_inverse=True)
    number = torch.zeros(len(levels), dtype=torch.long, device=levels.device)
    number[kept] = place
    return replace(
        layer,
        codebook=codebook,
        indices=number[codes].to(torch.uint8).view(layer.indices.shape),
        zero_code=None if layer.zero_code is None else int(number[layer.zero_code]),
    )
