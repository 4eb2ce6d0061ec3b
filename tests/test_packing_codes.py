"""The packed file's coder: symbols come back, and their stream is near Shannon's bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.packing_codes import CodeError, decode, encode, entropy_bytes, split


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


def test_entropy_by_hand():
    assert entropy_bytes(np.array([8, 8])) == pytest.approx(2)  # 16 symbols of one bit
    assert entropy_bytes(np.array([0, 5])) == 0
    assert entropy_bytes(np.array([4, 2, 2])) == pytest.approx((4 * 1 + 4 * 2) / 8)
