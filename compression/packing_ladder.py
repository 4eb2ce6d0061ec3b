"""What one layer takes by each way of storing it: the ladder from float32 down to the coded index.

A layer is a run of symbols: the codes of a quantized one, or zero and non-zero where it is pruned
but still float32, with 32 bits more for each kept value. The relative index is Deep Compression's
(Han et al. 2016, arXiv 1510.00149): the gap to the next kept weight in a few bits, with a filler
zero where a gap is too long; its Huffman codes (Huffman 1952) take both codes and gaps. Tables are
counted: a byte a symbol, which is what a canonical Huffman code needs.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compression.packing_codes import entropy_bytes

_GAP_BITS = range(1, 17)
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class SymbolRun:
    """A layer's weights as symbols: (n,) int32 in 0..alphabet-1.

    bits: nominal width of a symbol (32 for float32 weights); zero: the symbol of pruned weights, or
    None; value_bytes: float32 values that the symbols do not carry.
    """

    symbols: NDArray[np.int32]
    alphabet: int
    bits: int
    zero: int | None
    value_bytes: int = 0

    @property
    def counts(self) -> Counts:
        """(alphabet,) how often each symbol occurs."""
        return np.bincount(self.symbols, minlength=self.alphabet)


@dataclass(frozen=True)
class LayerLadder:
    """One layer's weights in bytes, without its codebook: by each way of storing them.

    nominal: every weight at the bit width; relative, bitmap: the kept ones, and where they are;
    relative_huffman: the relative index as Deep Compression codes it; huffman: all symbols, zeros
    too; entropy: Shannon's bound for the same.
    """

    nominal: int
    relative: int
    bitmap: int
    relative_huffman: int
    huffman: int
    entropy: float


def ladder_of(run: SymbolRun) -> LayerLadder:
    """The layer by each way of storing it."""
    total, counts = len(run.symbols), run.counts
    nominal = _whole_bytes(total * run.bits)
    all_huffman = huffman_bytes(counts) + run.value_bytes
    entropy = entropy_bytes(counts) + run.value_bytes
    if run.zero is None or not counts[run.zero]:
        return LayerLadder(nominal, nominal, nominal, all_huffman, all_huffman, entropy)
    kept = total - int(counts[run.zero])
    bitmap = _whole_bytes(total) + _whole_bytes(kept * run.bits)
    gaps = np.diff(np.flatnonzero(run.symbols != run.zero), prepend=-1)
    return LayerLadder(
        nominal,
        min(_relative_bytes(gaps, width, run.bits) for width in _GAP_BITS),
        bitmap,
        min(_relative_huffman_bytes(gaps, width, run) for width in _GAP_BITS[:8]),
        all_huffman,
        entropy,
    )


def _relative_bytes(gaps: Counts, width: int, bits: int) -> int:
    """Gaps of `width` bits and codes of `bits`, fillers included."""
    entries = len(gaps) + int(((gaps - 1) >> width).sum())
    return _whole_bytes(entries * width) + _whole_bytes(entries * bits)


def _relative_huffman_bytes(gaps: Counts, width: int, run: SymbolRun) -> int:
    """The same with Huffman codes for gaps and codes: Deep Compression's third stage."""
    fillers = int(((gaps - 1) >> width).sum())
    steps = np.bincount((gaps - 1) & (2**width - 1), minlength=2**width)
    steps[-1] += fillers
    codes = run.counts
    assert run.zero is not None
    codes[run.zero] = fillers
    return huffman_bytes(steps) + huffman_bytes(codes) + run.value_bytes


def huffman_bytes(counts: Counts) -> int:
    """Symbols by the best code of whole bits each, and its table of a byte a symbol."""
    return _whole_bytes(huffman_bits(counts)) + len(counts)


def huffman_bits(counts: Counts) -> int:
    """Bits of the best prefix code for so many of each symbol; a lone symbol takes one bit."""
    heap = [int(count) for count in counts if count]
    if len(heap) == 1:
        return heap[0]
    heapq.heapify(heap)
    bits = 0
    while len(heap) > 1:  # each merge lengthens the code of all symbols below it by one bit
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        bits += merged
        heapq.heappush(heap, merged)
    return bits


def _whole_bytes(bits: int) -> int:
    return -(-bits // 8)
