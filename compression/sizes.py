"""How many bytes a model takes: dense, by the course report's formulas, and counted honestly.

The report's formulas forget what makes the values usable: its sparse size has no index, its
quantized size gives every parameter `bits` bits, pruned or not. The honest count adds, layer by
layer, codebooks, codes at their nominal bits, a sparse index where it pays (a bitmap, or the
relative index of Deep Compression, arXiv 1510.00149), biases and batch norm in float32. Left out:
a file's header and entropy coding.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compression.inputs import InputError, choice
from compression.model import count_parameters, prunable_layers
from compression.pruning import check_masks
from compression.quantization import QuantizedLayer

_FLOAT = 32  # bits
_MAX_GAP_BITS = 16
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


@dataclass(frozen=True)
class SparseIndex:
    """Where a layer's kept weights are, in the cheapest way found.

    kind: `none` (every weight is stored, zeros too), `bitmap` (a bit a weight) or `relative` (the
    gap to the next kept weight in gap_bits bits; a gap that does not fit takes padding zeros, each
    with a value of its own). size_bytes: of the index alone.
    """

    kind: str
    gap_bits: int
    padding: int
    size_bytes: int


@dataclass(frozen=True)
class LayerSize:
    """One convolution or linear layer, in bytes; bits is 32 where it is not quantized.

    value_bytes: the stored weights or codes, padding zeros included; bias_bytes: its bias.
    """

    name: str
    weights: int
    nonzeros: int
    bits: int
    index: SparseIndex
    codebook_bytes: int
    value_bytes: int
    bias_bytes: int

    @property
    def dense_bytes(self) -> int:
        """Weights and bias in float32."""
        return 4 * self.weights + self.bias_bytes

    @property
    def stored_bytes(self) -> int:
        """Everything that the layer needs, counted honestly."""
        return self.codebook_bytes + self.value_bytes + self.index.size_bytes + self.bias_bytes


@dataclass(frozen=True)
class SizeLine:
    """One figure of a report: its name, bytes, and a sentence that says what is in it."""

    name: str
    size_bytes: int
    explanation: str


@dataclass(frozen=True)
class SizeReport:
    """The sizes of one model in bytes.

    dense_bytes: all parameters in float32; report_sparse_bytes, report_quantized_bytes: by the
    report's formulas, the latter None for a model that is not quantized; norm_bytes: batch-norm
    scale, shift, means and variances in float32.
    """

    dense_bytes: int
    report_sparse_bytes: int
    report_quantized_bytes: int | None
    norm_bytes: int
    layers: tuple[LayerSize, ...]

    @property
    def codebook_bytes(self) -> int:
        return sum(layer.codebook_bytes for layer in self.layers)

    @property
    def value_bytes(self) -> int:
        return sum(layer.value_bytes for layer in self.layers)

    @property
    def index_bytes(self) -> int:
        return sum(layer.index.size_bytes for layer in self.layers)

    @property
    def bias_bytes(self) -> int:
        return sum(layer.bias_bytes for layer in self.layers)

    @property
    def stored_bytes(self) -> int:
        """The honest count: all that is needed to run the model."""
        return sum(layer.stored_bytes for layer in self.layers) + self.norm_bytes

    @property
    def ratio(self) -> float:
        """How many times smaller than dense float32."""
        return self.dense_bytes / self.stored_bytes

    def lines(self) -> tuple[SizeLine, ...]:
        """The figures for a table, each with its explanation; the last is the sum of its parts."""
        formulas = [
            SizeLine("Dense float32", self.dense_bytes, "All parameters at 4 bytes."),
            SizeLine(
                "Report's sparse formula",
                self.report_sparse_bytes,
                "Non-zero parameters at 4 bytes; no index says where they are.",
            ),
        ]
        if self.report_quantized_bytes is not None:
            formulas.append(
                SizeLine(
                    "Report's quantized formula",
                    self.report_quantized_bytes,
                    "All parameters at the bit width, zeros too; no codebooks.",
                )
            )
        return (*formulas, *self._counted())

    def _counted(self) -> tuple[SizeLine, ...]:
        return (
            SizeLine(
                "Weights",
                self.value_bytes,
                "Codes at their bit width, or float32 values where a layer is not quantized.",
            ),
            SizeLine("Codebooks", self.codebook_bytes, "Each layer's shared values in float32."),
            SizeLine(
                "Sparse index",
                self.index_bytes,
                "Where the kept weights are: each layer's cheapest of a bitmap, relative gaps, or "
                "none, with the zeros stored.",
            ),
            SizeLine("Biases", self.bias_bytes, "Biases in float32."),
            SizeLine(
                "Batch norm",
                self.norm_bytes,
                "Scale, shift, running mean and variance of each channel in float32.",
            ),
            SizeLine(
                "Counted in full",
                self.stored_bytes,
                "Weights, codebooks, sparse index, biases and batch norm together.",
            ),
        )


def measure_size(
    model: nn.Module,
    masks: Mapping[str, Tensor] | None = None,
    layers: Mapping[str, QuantizedLayer] | None = None,
) -> SizeReport:
    """The sizes of `model`, in bytes; its weights are only read.

    masks: layer -> bool, True where the weight is kept; in other layers the weights that are not
    zero are. layers: the quantized ones, as in QuantizedModel.layers. Raises InputError for unknown
    layers, other shapes, and pruned weights that are not zero.
    """
    masks, layers = masks or {}, layers or {}
    check_masks(model, masks)
    known = prunable_layers(model)
    for name, layer in layers.items():
        shape = known[choice("layer", name, known)].weight.shape
        if layer.indices.shape != shape:
            raise InputError(
                f"indices of {name} must have shape {tuple(shape)}, "
                f"got {tuple(layer.indices.shape)}."
            )
    sizes = tuple(
        _layer_size(name, module, masks.get(name), layers.get(name))
        for name, module in known.items()
    )
    parameters = count_parameters(model)
    return SizeReport(
        dense_bytes=4 * parameters,
        report_sparse_bytes=4 * sum(int(torch.count_nonzero(p)) for p in model.parameters()),
        report_quantized_bytes=_report_quantized_bytes(sizes, parameters) if layers else None,
        norm_bytes=_norm_bytes(model),
        layers=sizes,
    )


def best_index(kept: Tensor, value_bits: int) -> SparseIndex:
    """The sparse index for which index and values of `value_bits` bits take the fewest bytes.

    kept: bool of any shape, True where a weight is stored, read in row-major order.
    """
    places = torch.nonzero(kept.flatten()).flatten()
    total, count = kept.numel(), len(places)
    choices = [SparseIndex("none", 0, total - count, 0), SparseIndex("bitmap", 0, 0, _bytes(total))]
    gaps = torch.diff(places, prepend=torch.full((1,), -1, device=places.device))
    for gap_bits in range(1, _MAX_GAP_BITS + 1):
        padding = int(torch.sum((gaps - 1) >> gap_bits))
        size = _bytes((count + padding) * gap_bits)
        choices.append(SparseIndex("relative", gap_bits, padding, size))
    return min(choices, key=lambda i: i.size_bytes + _bytes((count + i.padding) * value_bits))


def _layer_size(
    name: str,
    module: nn.Conv2d | nn.Linear,
    mask: Tensor | None,
    quantized: QuantizedLayer | None,
) -> LayerSize:
    weight = module.weight.detach()
    kept = weight != 0 if mask is None else mask
    bits = quantized.bits if quantized else _FLOAT
    index = best_index(kept, bits)
    stored = int(torch.count_nonzero(kept)) + index.padding
    return LayerSize(
        name=name,
        weights=weight.numel(),
        nonzeros=int(torch.count_nonzero(weight)),
        bits=bits,
        index=index,
        codebook_bytes=4 * len(quantized.codebook) if quantized else 0,
        value_bytes=_bytes(stored * bits),
        bias_bytes=4 * module.bias.numel() if module.bias is not None else 0,
    )


def _report_quantized_bytes(layers: tuple[LayerSize, ...], parameters: int) -> int:
    """All parameters at the bit width; where layers differ, at the mean bits of a weight."""
    bits = sum(layer.weights * layer.bits for layer in layers)
    weights = sum(layer.weights for layer in layers)
    return -(-parameters * bits // (8 * weights))


def _norm_bytes(model: nn.Module) -> int:
    """Batch-norm parameters and running statistics, without the int64 count of batches."""
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    tensors = [t for norm in norms for t in (*norm.parameters(), *norm.buffers())]
    return sum(4 * tensor.numel() for tensor in tensors if tensor.is_floating_point())


def _bytes(bits: int) -> int:
    """Whole bytes that hold so many bits."""
    return -(-bits // 8)
