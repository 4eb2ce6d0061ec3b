"""k-means quantization: a codebook and an index a layer (Deep Compression, arXiv 1510.00149).

The weights of a layer are replaced by the nearest of at most 2^bits float32 values, which k-means
in one dimension chooses. In a pruned layer zero has a code of its own out of the 2^bits, so pruned
weights stay exactly zero and the kept ones share the other 2^bits - 1 values. Evenly spaced levels
are there for comparison. Left out: quantized activations; the arithmetic stays in floating point,
what shrinks is the file.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compression.inputs import InputError, choice, shown, whole
from compression.kmeans import kmeans_1d
from compression.model import prunable_layers
from compression.pruning import check_masks

__all__ = [
    "CODEBOOK_KINDS",
    "QuantizedLayer",
    "QuantizedModel",
    "kmeans_1d",
    "linear_codebook",
    "quantize",
    "quantized_layer_of",
    "with_codebooks",
    "with_layers",
    "with_tied_model",
]


@dataclass(frozen=True)
class QuantizedLayer:
    """One layer's weights as codebook[indices].

    codebook: (K,) float32, strictly ascending, K <= 2^bits; indices: uint8 of the weight's shape;
    zero_code: the index of the exact zero that pruned weights have, None in an unpruned layer.
    """

    name: str
    bits: int
    codebook: Tensor = field(compare=False)
    indices: Tensor = field(repr=False, compare=False)
    zero_code: int | None

    def weight(self) -> Tensor:
        """codebook[indices]: float32 of the weight's shape, contiguous, in the indices' place."""
        return self.codebook[self.indices.long()]


@dataclass(frozen=True)
class QuantizedModel:
    """A model whose weights in `layers` equal their codebook[indices] bit for bit.

    layers: only those that are quantized, in the model's order; the others stay float32. masks:
    layer -> True where the weight is kept, as given to `quantize`, or where a weight is not zero.
    """

    model: nn.Module = field(repr=False)
    layers: dict[str, QuantizedLayer]
    masks: dict[str, Tensor] = field(repr=False, compare=False)


def linear_codebook(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """At most `k` evenly spaced levels from the least to the greatest value, and the nearest each.

    values: (n,) float32, n >= 1; k: 1..256. Returns levels, ascending (one where all values are
    equal or k is 1: their middle), and labels (n,) int64; a value half way goes to the lower level.
    """
    k = whole("k", k, 1, 256)
    low, high = values.double().aminmax()
    levels = torch.linspace(0, 1, k, dtype=torch.float64) if k > 1 else torch.full((1,), 0.5)
    levels = torch.unique((low + (high - low) * levels).float() + 0.0)  # + 0 turns -0 into 0
    middles = (levels.double()[1:] + levels.double()[:-1]) / 2
    return levels, torch.bucketize(values.double(), middles)


# How a layer's levels may be chosen: (values (n,), k) -> (levels ascending, labels (n,) int64).
CODEBOOK_KINDS: dict[str, Callable[[Tensor, int], tuple[Tensor, Tensor]]] = {
    "kmeans": kmeans_1d,
    "linear": linear_codebook,
}


def quantize(
    model: nn.Module,
    bits: int | Mapping[str, int],
    masks: Mapping[str, Tensor] | None = None,
    *,
    kind: str = "kmeans",
) -> QuantizedModel:
    """A copy of `model`, in the same mode, with quantized weights.

    bits: 1..8 for all convolution and linear layers, or a mapping of layer to bits; layers that it
    does not name stay float32. masks: layer -> bool, True where the weight is kept, of a pruned
    model; a layer whose mask prunes nothing needs no zero code. kind: a name in CODEBOOK_KINDS.
    Raises InputError for bits out of range, unknown layers or kinds, masks of other shapes, and
    pruned weights that are not zero.
    """
    find_levels = CODEBOOK_KINDS[choice("kind", kind, CODEBOOK_KINDS)]
    masks = dict(masks or {})
    check_masks(model, masks)
    layers = {}
    for name, layer_bits in _bits_by_layer(model, bits).items():
        weight = prunable_layers(model)[name].weight.detach()
        layers[name] = quantize_layer(name, weight, layer_bits, masks.get(name), find_levels)
    return QuantizedModel(_with_weights(model, layers), layers, masks)


def with_codebooks(
    quantized: QuantizedModel, codebooks: Mapping[str, Tensor], *, model: nn.Module | None = None
) -> QuantizedModel:
    """The same clusters with other values: codebooks[layer][code] for each code of a layer.

    codebooks: layer -> (K,) float32 in the order of the layer's codes; other layers keep theirs.
    Codes are numbered anew where the values are no longer ascending, and merged where two are
    equal. The rest of the network comes from `model`, by default the quantized one. Raises
    InputError for an unknown layer, another length, values that are not finite, and another value
    than zero for the zero code.
    """
    layers = dict(quantized.layers)
    for name, codebook in codebooks.items():
        layer = layers[choice("layer", name, layers)]
        layers[name] = _renumbered(layer, _checked_codebook(layer, codebook))
    return QuantizedModel(_with_weights(model or quantized.model, layers), layers, quantized.masks)


def with_layers(quantized: QuantizedModel, layers: Mapping[str, QuantizedLayer]) -> QuantizedModel:
    """The model with these layers in place of its own of the same names."""
    merged = {name: layers.get(name, layer) for name, layer in quantized.layers.items()}
    return QuantizedModel(_with_weights(quantized.model, merged), merged, quantized.masks)


def with_tied_model(quantized: QuantizedModel, model: nn.Module) -> QuantizedModel:
    """The same clusters, their values read off `model`: after recalibration or centroid training.

    Raises InputError where the weights of a cluster differ from each other.
    """
    weights = prunable_layers(model)
    codebooks = {}
    for name, layer in quantized.layers.items():
        weight = weights[choice("layer", name, weights)].weight.detach().to(layer.indices.device)
        codebook = layer.codebook.clone()  # a code that no weight has keeps its value
        codebook[layer.indices.long()] = weight
        if not torch.equal(codebook[layer.indices.long()], weight):
            raise InputError(f"weights of {name} must be one value a cluster, got several.")
        codebooks[name] = codebook
    return with_codebooks(quantized, codebooks, model=model)


def quantized_layer_of(
    name: str, weight: Tensor, bits: int, mask: Tensor | None = None
) -> QuantizedLayer | None:
    """The codebook and indices of a weight that holds at most 2^bits distinct values, else None.

    mask: True where the weight is kept; where it prunes some, the zero's code is the zero code.
    """
    codebook, codes = torch.unique(weight.detach() + 0.0, return_inverse=True)  # -0 counts as 0
    if len(codebook) > 2**bits:
        return None
    pruned = mask is not None and not bool(mask.all())
    zero_code = int(torch.searchsorted(codebook, 0.0)) if pruned else None
    return QuantizedLayer(name, bits, codebook, codes.to(torch.uint8), zero_code)


def _bits_by_layer(model: nn.Module, bits: int | Mapping[str, int]) -> dict[str, int]:
    """Layer -> bits in the model's order, checked."""
    known = prunable_layers(model)
    if not isinstance(bits, Mapping):
        return dict.fromkeys(known, whole("bits", bits, 1, 8))
    for name in bits:
        choice("layer", name, known)
    return {name: whole(f"bits of {name}", bits[name], 1, 8) for name in known if name in bits}


def quantize_layer(
    name: str,
    weight: Tensor,
    bits: int,
    mask: Tensor | None,
    find_levels: Callable[[Tensor, int], tuple[Tensor, Tensor]] = CODEBOOK_KINDS["kmeans"],
) -> QuantizedLayer:
    """One layer as `quantize` gives it; its pruned weights are zero already."""
    flat = weight.flatten().cpu()
    kept = None if mask is None else mask.flatten().cpu()
    if kept is None or bool(kept.all()):
        codebook, codes = find_levels(flat, 2**bits)
        zero_code = None
    else:
        codebook, codes, zero_code = _with_zero_code(flat, kept, bits, find_levels)
    indices = codes.to(torch.uint8).view(weight.shape).to(weight.device)
    return QuantizedLayer(name, bits, codebook.to(weight.device), indices, zero_code)


def _with_zero_code(
    flat: Tensor, kept: Tensor, bits: int, find_levels: Callable[[Tensor, int], tuple]
) -> tuple[Tensor, Tensor, int]:
    """Codebook with an exact zero in its place, (n,) codes, and the zero's code.

    A level of the kept weights that is exactly zero already serves as the pruned weights' too.
    """
    levels, labels = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    if kept.any():
        levels, labels = find_levels(flat[kept], 2**bits - 1)
    codebook = torch.unique(torch.cat([levels, torch.zeros(1)]))
    zero_code = int(torch.searchsorted(codebook, 0.0))
    codes = torch.full((len(flat),), zero_code)
    codes[kept] = torch.searchsorted(codebook, levels)[labels]
    return codebook, codes, zero_code


def _checked_codebook(layer: QuantizedLayer, codebook: Tensor) -> Tensor:
    """The codebook as float32 beside the layer's own, or InputError."""
    if codebook.shape != layer.codebook.shape or not torch.isfinite(codebook).all():
        raise InputError(
            f"codebook of {layer.name} must be {len(layer.codebook)} finite numbers, "
            f"got {shown(codebook.tolist())}."
        )
    if layer.zero_code is not None and codebook[layer.zero_code] != 0:
        raise InputError(
            f"codebook of {layer.name} must be 0 at its zero code {layer.zero_code}, "
            f"got {codebook[layer.zero_code]:.6g}."
        )
    return codebook.detach().to(layer.codebook)


def _renumbered(layer: QuantizedLayer, codebook: Tensor) -> QuantizedLayer:
    """The layer with these values, its codes in their ascending order."""
    levels, place = torch.unique(codebook + 0.0, return_inverse=True)  # + 0 turns -0 into 0
    zero_code = None if layer.zero_code is None else int(place[layer.zero_code])
    indices = place.to(torch.uint8)[layer.indices.long()]
    return QuantizedLayer(layer.name, layer.bits, levels, indices, zero_code)


@torch.no_grad()
def _with_weights(model: nn.Module, layers: Mapping[str, QuantizedLayer]) -> nn.Module:
    """A copy of `model` with the weights of `layers`."""
    copied = copy.deepcopy(model)
    weights = prunable_layers(copied)
    for name, layer in layers.items():
        weights[name].weight.copy_(layer.weight())
    return copied
