"""Quantization whose errors make up for each other: codes chosen by what the layer puts out.

Rounding each weight to its nearest centroid leaves the errors of a filter to add up. Here the
weights of a layer are rounded one input after another, and what each leaves is taken up by those
not yet rounded, as far as inputs go together on some hundred training images: Optimal Brain Surgeon
(Hassibi & Stork 1993) in the order and block form of GPTQ (Frantar et al. 2022, arXiv 2210.17323).
Layers are done in order, each on the inputs that the quantized layers before it give, and half of
what those inputs are off is made up for as well (after GPTAQ, Li et al. 2025, arXiv 2504.02692).
Codes and levels (`fitted_levels.py`) are found in turns, each for the other. Codebooks begin as
those of k-means, pruned weights stay zero, no weight is trained and no label is read.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from compression.data import normalize
from compression.entropy_codebook import Rule, cheapest_rule
from compression.fitted_levels import fit_levels
from compression.inference import check_images, device_of
from compression.inputs import InputError
from compression.quantization import QuantizedLayer, QuantizedModel, quantize, with_layers
from compression.resnet9 import ResNet9, prunable_layers
from compression.scan_steps import State, Step, folded_scales, steps_of

_BATCH = 128
_POSITIONS = 64  # of each image, at which a convolution's inputs are taken
_DAMPING = 0.01  # of the mean second moment, added to all of them
_BLOCK = 64
_TURNS = 3  # of codes and levels; five gained nothing
# Of what the inputs are off: making up for all of it fits the images, with worse answers on others.
_DRIFT = 0.5


class Coding(NamedTuple):
    """How a layer's values get codes: `layer`, the codebook to begin with; `rule` makes of a layer
    the rule by which a value takes a code of it; `renew`, where there is one, another codebook for
    values of the weight's shape, those that were rounded in the first turn: what others left makes
    them larger than the weights."""

    layer: QuantizedLayer
    rule: Callable[[QuantizedLayer], Rule]
    renew: Callable[[Tensor], QuantizedLayer] | None = None


class Compensated(NamedTuple):
    """A layer whose codes make up for each other, and `values` of the weight's shape: what each
    code was taken for, the weight with what those before it left."""

    layer: QuantizedLayer
    values: Tensor


class Moments(NamedTuple):
    """Means over images and places, (d, d) float32 each: `own` of x x^T, x the d inputs that a row
    of the layer is multiplied by; `drift` of (y - x) x^T, y those of the dense network."""

    own: Tensor
    drift: Tensor


@torch.no_grad()
def quantize_compensated(
    model: nn.Module,
    bits: int | Mapping[str, int],
    images: Tensor,
    masks: Mapping[str, Tensor] | None = None,
) -> QuantizedModel:
    """`quantize(model, bits, masks)` with codes and centroids that answer better.

    images: (N, 32, 32, 3) uint8 training images; some hundred do. Takes 10 to 15 s of two cores
    for 512 images and `resnet9-s`; memory: some 24 bytes times the square of a layer's inputs (9
    times its channels), and 0.8 MB an image with `resnet9`, half of that with `resnet9-s`. Raises
    InputError as `quantize` does, and for a network that is no ResNet9.
    """
    plain = quantize(model, bits, masks)
    codings = {name: Coding(layer, nearest_rule) for name, layer in plain.layers.items()}
    found = compensated_layers(model, codings, images, masks)
    return with_layers(plain, {name: each.layer for name, each in found.items()})


@torch.no_grad()
def compensated_layers(
    model: nn.Module,
    codings: Mapping[str, Coding],
    images: Tensor,
    masks: Mapping[str, Tensor] | None = None,
) -> dict[str, Compensated]:
    """The layers of `codings` with codes that make up for each other, each found on the inputs that
    the quantized layers before it give; time, memory and errors as in `quantize_compensated`."""
    if not isinstance(model, ResNet9):
        raise InputError(f"model must be a ResNet9, got {type(model).__name__}.")
    check_images(images)
    steps, scales = steps_of(model), folded_scales(model)
    device = device_of(model)
    generator = torch.Generator().manual_seed(0)
    dense = [State(normalize(part.to(device))) for part in images.split(_BATCH)]
    states = dense
    weights, found = prunable_layers(model), {}
    for step in steps:
        folded = step.weight
        if step.name in codings:
            moments = _moments(step, states, dense, generator)
            weight = weights[step.name].weight.detach()
            mask = (masks or {}).get(step.name)
            found[step.name] = compensated_layer(codings[step.name], weight, moments, mask)
            folded = (found[step.name].layer.weight() * scales[step.name]).to(folded)
        same = states is dense and step.name not in codings
        after = [step.run(state, step.weight, step.bias) for state in dense]
        states = after if same else [step.run(state, folded, step.bias) for state in states]
        dense = after
    return found


def compensated_layer(
    coding: Coding, weight: Tensor, moments: Moments, mask: Tensor | None = None
) -> Compensated:
    """The layer with other codes and levels, chosen for `weight` (out, ...) by the moments of its
    inputs; False in `mask` stays the zero code."""
    elimination = Elimination(moments.own)
    rows = weight.float().flatten(1)  # (out, d)
    wanted = rows + _DRIFT * elimination.solved(rows @ moments.drift)
    layer, rounded = coding.layer, wanted
    for turn in range(_TURNS):
        layer, rounded = elimination.coded(layer, wanted, mask, coding.rule(layer))
        if turn == 0 and coding.renew:
            layer = coding.renew(rounded.view(weight.shape))
        else:
            layer = fit_levels(layer, wanted, moments.own)
    return Compensated(layer, rounded.view(weight.shape))


class Elimination:
    """The order in which the inputs of a layer are rounded, and what each leaves to the others.

    moments: (d, d), the second moments of the d inputs.
    """

    def __init__(self, moments: Tensor) -> None:
        moments = moments.float().clone()
        self._order = moments.diagonal().argsort(descending=True, stable=True)
        self._root = _inverse_root(moments[self._order][:, self._order])

    def solved(self, rows: Tensor) -> Tensor:
        """(out, d): rows times the inverse of the damped moments."""
        found = torch.empty_like(rows)
        found[:, self._order] = rows[:, self._order] @ self._root.T @ self._root
        return found

    def coded(
        self, layer: QuantizedLayer, wanted: Tensor, mask: Tensor | None, rule: Rule
    ) -> tuple[QuantizedLayer, Tensor]:
        """The layer with codes for the rows (out, d) that are wanted, its codebook as it is; and
        the values (out, d) that were rounded: each weight with what those before it left."""
        rule, root = rule.to(wanted.device), self._root
        limits, levels = rule.limits(wanted.dtype), layer.codebook[rule.codes]
        inputs = wanted.T[self._order].contiguous()  # (d, out): an input's weights side by side
        zero, dropped = layer.zero_code, None
        if mask is not None and zero is not None:
            dropped = ~mask.flatten(1).T[self._order].to(inputs.device)
        places = torch.empty(inputs.shape, dtype=torch.long, device=inputs.device)
        for start in range(0, len(inputs), _BLOCK):
            stop = min(start + _BLOCK, len(inputs))
            block, within = inputs[start:stop], root[start:stop, start:stop]
            errors, scales = torch.empty_like(block), within.diagonal().tolist()
            for j, (value, place) in enumerate(zip(block, places[start:stop], strict=True)):
                torch.bucketize(value, limits, out=place)
                rounded = levels.index_select(0, place)
                if dropped is not None:
                    rounded.masked_fill_(dropped[start + j], 0.0)
                torch.div(value - rounded, scales[j], out=errors[j])
                block[j + 1 :].addr_(within[j, j + 1 :], errors[j], alpha=-1)
            inputs[stop:].addmm_(root[start:stop, stop:].T, errors, alpha=-1)
        codes = rule.codes[places]
        if dropped is not None and zero is not None:
            codes.masked_fill_(dropped, zero)
        back = self._order.argsort()
        indices = codes[back].T.to(torch.uint8).contiguous().view(layer.indices.shape)
        return replace(layer, indices=indices), inputs[back].T.contiguous()


def nearest_rule(layer: QuantizedLayer) -> Rule:
    """The nearest level; where something is pruned, any but the zero's."""
    codes = torch.arange(len(layer.codebook))
    if layer.zero_code is not None and len(codes) > 1:
        codes = codes[codes != layer.zero_code]
    rule = cheapest_rule(layer.codebook.cpu()[codes])
    return Rule(codes[rule.codes], rule.thresholds)


def _moments(
    step: Step, states: list[State], dense: list[State], generator: torch.Generator
) -> Moments:
    """Of the inputs that a step has in the quantized network, and in the dense one."""
    own = drift = torch.zeros(())
    count = 0
    for state, other in zip(states, dense, strict=True):
        x, y = step.inputs(state).float(), step.inputs(other).float()
        if x.dim() == 4:
            places = x.shape[2] * x.shape[3]
            chosen = torch.randperm(places, generator=generator)[:_POSITIONS].to(x.device)
            x, y = _patches(step, x, chosen), _patches(step, y, chosen)
        own, drift = own + x.T @ x, drift + (y - x).T @ x
        count += len(x)
    return Moments(own / count, drift / count)


def _patches(step: Step, x: Tensor, chosen: Tensor) -> Tensor:
    """(n * places, d): what a row of the kernel is multiplied by at the chosen places."""
    kernel, wide = step.weight.shape[-1], x.shape[3] + 2  # with a zero on either side
    corner = chosen // x.shape[3] * wide + chosen % x.shape[3]
    row = torch.arange(kernel, device=x.device)
    within = (row[:, None] * wide + row).flatten()  # (kernel^2,), from the corner on
    padded = functional.pad(x, (1, 1, 1, 1)).flatten(2)  # (n, c, places)
    picked = padded[:, :, (corner[:, None] + within).flatten()]
    parts = picked.unflatten(2, (len(chosen), -1))  # (n, c, chosen, kernel^2)
    return parts.transpose(1, 2).flatten(2).flatten(0, 1)


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
