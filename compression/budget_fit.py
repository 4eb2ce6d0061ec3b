"""An allocation whose packed file truly takes at most the bytes that were asked for.

A table predicts sizes from entropies, which is a few percent off. The file itself is made here, and
the aim moved by what it was off, until the budget holds and is used.
"""

from collections.abc import Callable

from torch import nn

from compression.allocation import Allocation
from compression.inputs import InputError, real, size_text
from compression.packing import pack
from compression.pruning import prune
from compression.quantization import quantize

_ROUNDS = 12
_USED = 0.99  # of the budget: near enough


def fit(
    model: nn.Module,
    max_bytes: float,
    make: Callable[[float], Allocation],
    *,
    overhead: int = 0,
) -> tuple[Allocation, int]:
    """The allocation of the largest packed file found within `max_bytes`, and that file's bytes.

    make: bytes to aim at -> an allocation that is predicted to take at most so many, such as
    `allocate` gives; it raises InputError where it cannot aim so low. overhead: bytes of the file's
    name and steps (`description_bytes`), part of the budget. Raises InputError where even the
    smallest file is too large.
    """
    budget = aim = real("max_bytes", max_bytes, 1, 2**40, "bytes")
    best: tuple[Allocation, int] | None = None
    tried: Allocation | None = None
    size, smallest = 0, 2**62
    for _ in range(_ROUNDS):
        try:
            found = make(aim)
        except InputError:
            if tried is None:
                raise
            break
        if found == tried:  # the aim moved too little for another one
            if size <= budget:
                break
            aim *= _USED
            continue
        tried, size = found, packed_bytes(model, found, overhead=overhead)
        smallest = min(smallest, size)
        if size <= budget and (best is None or size > best[1]):
            best = found, size
        if _USED * budget <= size <= budget:
            break
        aim *= (budget if size > budget else (1 + _USED) / 2 * budget) / size
    if best is None:
        raise InputError(
            f"max_bytes must be within reach of this model, whose smallest file so made takes "
            f"{size_text(smallest)}, got {size_text(budget)}."
        )
    return best


def packed_bytes(model: nn.Module, found: Allocation, *, overhead: int = 0) -> int:
    """What the packed file of `model`, pruned and quantized by an allocation, takes, with
    `overhead` bytes for its name and steps."""
    cut = prune(model, found.sparsities)
    return len(pack(quantize(cut.model, found.bits, cut.masks))) + overhead
