"""Quantization whose errors make up for each other: codes chosen by what the layer puts out.

Rounding each weight to its nearest centroid leaves the errors of a filter to add up. Here the
weights of a layer are rounded one input after another, and what each leaves is taken up by those
not yet rounded, as far as inputs go together on some hundred training images: Optimal Brain Surgeon
(Hassibi & Stork 1993) in the order and block form of GPTQ (Frantar et al. 2022, arXiv 2210.17323).
The codebooks are those of k-means, pruned weights stay zero, no weight is trained and no label is
read. Layers are done in order, each on the inputs that the quantized layers before it give.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from compression.data import normalize
from compression.entropy_codebook import Rule, cheapest_rule
from compression.inference import check_images, device_of
from compression.inputs import InputError
from compression.quantization import QuantizedLayer, QuantizedModel, quantize, with_layers
from compression.resnet9 import ResNet9, prunable_layers
from compression.scan_steps import State, Step, folded_scales, steps_of

_BATCH = 128
_POSITIONS = 64  # of each image, at which a convolution's inputs are taken
_DAMPING = 0.01  # of the mean second moment, added to all of them
_BLOCK = 64


@torch.no_grad()
def quantize_compensated(
    model: nn.Module,
    bits: int | Mapping[str, int],
    images: Tensor,
    masks: Mapping[str, Tensor] | None = None,
) -> QuantizedModel:
    """`quantize(model, bits, masks)` with the same codebooks and codes that answer better.

    images: (N, 32, 32, 3) uint8 training images; some hundred do. Takes about 5 s of two cores for
    512 images and `resnet9-s`; memory: some 24 bytes times the square of a layer's inputs (9 times
    its channels). Raises InputError as `quantize` does, and for a network that is no ResNet9.
    """
    plain = quantize(model, bits, masks)
    starts = {name: (layer, nearest_rule(layer)) for name, layer in plain.layers.items()}
    return with_layers(plain, compensated_layers(model, starts, images, masks))


@torch.no_grad()
def compensated_layers(
    model: nn.Module,
    starts: Mapping[str, tuple[QuantizedLayer, Rule]],
    images: Tensor,
    masks: Mapping[str, Tensor] | None = None,
) -> dict[str, QuantizedLayer]:
    """The layers of `starts` with codes that make up for each other, each found on the inputs that
    the quantized layers before it give; time, memory and errors as in `quantize_compensated`.

    starts: layer -> its codebook, and the rule by which a value takes a code of it.
    """
    if not isinstance(model, ResNet9):
        raise InputError(f"model must be a ResNet9, got {type(model).__name__}.")
    check_images(images)
    steps, scales = steps_of(model), folded_scales(model)
    device = device_of(model)
    generator = torch.Generator().manual_seed(0)
    states = [State(normalize(part.to(device))) for part in images.split(_BATCH)]
    weights, layers = prunable_layers(model), {}
    for step in steps:
        folded = step.weight
        if step.name in starts:
            layer, rule = starts[step.name]
            moments = _second_moments(step, states, generator)
            weight = weights[step.name].weight.detach()
            mask = (masks or {}).get(step.name)
            layers[step.name] = compensated_layer(layer, weight, moments, mask, rule)
            folded = (layers[step.name].weight() * scales[step.name]).to(folded)
        states = [step.run(state, folded, step.bias) for state in states]
    return layers


def compensated_layer(
    layer: QuantizedLayer,
    weight: Tensor,
    moments: Tensor,
    mask: Tensor | None = None,
    rule: Rule | None = None,
) -> QuantizedLayer:
    """The layer with other codes of the same codebook, chosen for `weight` (out, ...) and the
    second moments (d, d) of its d inputs to a row; False in `mask` stays the zero code, other
    weights take codes by `rule`, by default the nearest."""
    rule = (rule or nearest_rule(layer)).to(weight.device)
    rows = weight.float().flatten(1).clone()  # (out, d)
    zero = layer.zero_code or 0
    kept = None if mask is None or layer.zero_code is None else mask.flatten(1).to(rows.device)
    moments = moments.float().clone()
    order = moments.diagonal().argsort(descending=True, stable=True)
    rows, moments = rows[:, order], moments[order][:, order]
    kept = None if kept is None else kept[:, order]
    root = _inverse_root(moments)
    codes = torch.empty(rows.shape, dtype=torch.long, device=rows.device)
    for start in range(0, rows.shape[1], _BLOCK):
        part = slice(start, min(start + _BLOCK, rows.shape[1]))
        block, within = rows[:, part].clone(), root[part, part]
        errors = torch.empty_like(block)
        for j in range(block.shape[1]):
            wanted = block[:, j].contiguous()
            found = rule(wanted)
            if kept is not None:
                found = found.masked_fill(~kept[:, start + j], zero)
            codes[:, start + j] = found
            errors[:, j] = (wanted - layer.codebook[found]) / within[j, j]
            block[:, j:] -= errors[:, j, None] * within[j, j:]
        rows[:, part.stop :] -= errors @ root[part, part.stop :]
    restored = torch.empty_like(codes)
    restored[:, order] = codes
    return replace(layer, indices=restored.to(torch.uint8).view(weight.shape))


def nearest_rule(layer: QuantizedLayer) -> Rule:
    """The nearest level; where something is pruned, any but the zero's."""
    codes = torch.arange(len(layer.codebook))
    if layer.zero_code is not None and len(codes) > 1:
        codes = codes[codes != layer.zero_code]
    rule = cheapest_rule(layer.codebook.cpu()[codes])
    return Rule(codes[rule.codes], rule.thresholds)


def _second_moments(step: Step, states: list[State], generator: torch.Generator) -> Tensor:
    """(d, d) float32: the mean of x x^T over the inputs x that a row is multiplied by."""
    total, count = torch.zeros(()), 0
    for state in states:
        x = step.inputs(state).float()
        if x.dim() == 4:
            x = functional.unfold(x, step.weight.shape[-1], padding=1)  # (n, d, positions)
            chosen = torch.randperm(x.shape[2], generator=generator)[:_POSITIONS]
            x = x[:, :, chosen.to(x.device)].transpose(1, 2).flatten(0, 1)
        total, count = total + x.T @ x, count + len(x)
    return total / count


def _inverse_root(moments: Tensor) -> Tensor:
    """(d, d) upper triangular U with U^T U the inverse of the damped moments (ascending order of
    elimination: row j holds what the error of input j costs the ones after it)."""
    diagonal = moments.diagonal()
    diagonal[diagonal == 0] = 1.0  # an input that is always zero: its weights do not matter
    damping = _DAMPING * diagonal.mean()
    for _ in range(6):
        damped = moments.clone()
        damped.diagonal().add_(damping)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            root, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed:
                return root
        damping *= 10
    return torch.eye(len(moments), device=moments.device)  # then every weight by itself
