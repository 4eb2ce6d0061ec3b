"""The ladder's sizes: Huffman's bits and a small layer by hand, and between the bounds."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compression.packing_codes import entropy_bytes
from compression.packing_ladder import SymbolRun, huffman_bits, ladder_of


def test_huffman_by_hand():
    # 5 a, 2 b, 1 c, 1 d: lengths 1, 2, 3, 3
    assert huffman_bits(np.array([5, 2, 1, 1])) == 5 + 4 + 3 + 3
    assert huffman_bits(np.array([7, 0])) == 7
    assert huffman_bits(np.array([1, 1, 1, 1])) == 8


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=40))
def test_huffman_lies_within_a_bit_of_the_entropy(counts):
    counts = np.array(counts)
    bits = huffman_bits(counts)
    assert 8 * entropy_bytes(counts) - 1e-6 <= bits <= 8 * entropy_bytes(counts) + counts.sum()


def test_a_small_layer_by_hand():
    """16 weights of 4 bits, kept at places 2 and 13: gaps 3 and 11."""
    symbols = np.zeros(16, np.int32)
    symbols[[2, 13]] = [1, 2]
    ladder = ladder_of(SymbolRun(symbols, 3, 4, zero=0))
    assert ladder.nominal == 8
    assert ladder.bitmap == 2 + 1
    # 4 bits a gap: 2 entries, 1 byte of gaps and 1 of codes; 3 bits need a filler: 9 and 12 bits
    assert ladder.relative == 2
    assert ladder.huffman == math.ceil((14 * 1 + 2 + 2) / 8) + 3
    # 1 bit a gap: 1 + 5 fillers, so gaps are 2 and 6 of two kinds (8 bits) and codes 6, 1 and 1
    # (10 bits), each with a table of a byte a symbol; 2 bits a gap would take 9 bytes
    assert ladder.relative_huffman == (1 + 2) + (2 + 3)
