"""The packed file's coder: symbols come back, and their stream is near Shannon's bound."""

import bz2
import lzma
import zlib

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.model import load_checkpoint, prunable_layers
from compression.packing_codes import CodeError, decode, encode, entropy_bytes, split
from compression.pruning import prune
from compression.quantization import quantize


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=300),
    st.integers(7, 256),
)
@settings(max_examples=300, deadline=None)
def test_symbols_come_back(symbols, alphabet):
    given_symbols = np.array(symbols, np.int32)
    coded = encode(given_symbols, alphabet).joined()
    assert np.array_equal(decode(coded, alphabet, len(symbols)), given_symbols)
    with pytest.raises(CodeError):
        decode(coded, alphabet, len(symbols) + 1)


def test_the_stream_is_near_shannons_bound():
    generator = np.random.default_rng(0)
    symbols = generator.choice(4, 200_000, p=[0.9, 0.05, 0.03, 0.02]).astype(np.int32)
    coded = encode(symbols, 4)
    bound = entropy_bytes(np.bincount(symbols))
    assert bound <= len(coded.stream) < 1.001 * bound
    assert split(coded.joined(), 4)[0].tolist() == coded.table.tolist()


def test_the_coder_beside_others():
    """The comparison by which it was chosen, as the module's docstring has it."""
    model = load_checkpoint("resnet9-s/baseline").model
    cut = prune(model, dict.fromkeys(prunable_layers(model), 0.8))
    sizes = dict.fromkeys(("shannon", "ans", "range", "huffman", "bz2", "lzma"), 0.0)
    for layer in quantize(cut.model, 4, cut.masks).layers.values():
        codes, alphabet = layer.indices.flatten().numpy(), len(layer.codebook)
        huffman = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
        sizes["shannon"] += entropy_bytes(np.bincount(codes, minlength=alphabet))
        coded = encode(codes.astype(np.int32), alphabet)
        sizes["ans"] += len(coded.joined())
        ranges = constriction.stream.queue.RangeEncoder()
        shares = np.bincount(codes, minlength=alphabet) / len(codes)
        table = constriction.stream.model.Categorical(shares, perfect=False)
        ranges.encode(codes.astype(np.int32), table)
        sizes["range"] += len(coded.table) + ranges.get_compressed().nbytes
        sizes["huffman"] += len(huffman.compress(codes.tobytes()) + huffman.flush())
        sizes["bz2"] += len(bz2.compress(codes.tobytes()))
        sizes["lzma"] += len(lzma.compress(codes.tobytes(), preset=9))
    assert [round(sizes[name]) for name in ("shannon", "ans", "range")] == [
        289_964,
        290_349,
        290_357,
    ]
    others = [sizes[name] for name in ("huffman", "bz2", "lzma")]  # some vary with their version
    assert min(others) > 1.15 * sizes["ans"]


def test_entropy_by_hand():
    assert entropy_bytes(np.array([8, 8])) == pytest.approx(2)  # 16 symbols of one bit
    assert entropy_bytes(np.array([0, 5])) == 0
    assert entropy_bytes(np.array([4, 2, 2])) == pytest.approx((4 * 1 + 4 * 2) / 8)
