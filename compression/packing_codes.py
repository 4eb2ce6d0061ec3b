"""Entropy coding of one layer's indices: an ANS stream within a few bytes of Shannon's bound.

A symbol of probability p should cost -log2 p bits (Shannon 1948), so in a pruned layer the zeros
cost what their share allows. The coder is `constriction`'s ANS (Duda 2013, arXiv 1311.2540; Bamler
2022, arXiv 2201.01741) with one static frequency table a layer. On the shipped `baseline`,
pruned by 80 %, at 4 bits: Shannon 289,964 bytes, ANS with its tables 290,349, `constriction`'s
range coder with the same tables 290,357, zlib's Huffman-only 349,616 (a symbol takes at least a
bit), bz2 348,917, lzma 344,708; a test holds the first three, and that the others take 15 % more.
Tables by filter would save under 1 %, and are left out.
"""

from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Symbols = NDArray[np.int32]


# The compiled module names its parts without a stub that a type checker could read.
AnsCoder = constriction.stream.stack.AnsCoder  # pyright: ignore[reportAttributeAccessIssue]
Categorical = constriction.stream.model.Categorical  # pyright: ignore[reportAttributeAccessIssue]


class CodeError(ValueError):
    """An index that is not what its layer needs; the text says what is wrong with it."""


@dataclass(frozen=True)
class CodedIndex:
    """An index as bytes: the table (a byte that says how many bytes a count takes, then a count for
    each symbol), and the stream of little-endian 32-bit words."""

    table: Bytes
    stream: Bytes

    def joined(self) -> Bytes:
        """Table and stream as they lie in the file."""
        return np.concatenate([self.table, self.stream])


def entropy_bytes(counts: NDArray[np.integer]) -> float:
    """Shannon's bound for so many of each symbol, in bytes: sum of -log2(share) over all / 8."""
    present = counts[counts > 0].astype(np.float64)
    return float(abs((present * np.log2(present / present.sum())).sum()) / 8)


def encode(symbols: Symbols, alphabet: int) -> CodedIndex:
    """Code `symbols` ((n,) in 0..alphabet-1, n < 2^32); the same symbols give the same bytes."""
    counts = np.bincount(symbols, minlength=alphabet)
    if np.count_nonzero(counts) > 1:
        coder = AnsCoder()
        coder.encode_reverse(np.ascontiguousarray(symbols, np.int32), _model(counts))
        stream = coder.get_compressed().astype("<u4").view(np.uint8)
    else:
        stream = np.zeros(0, np.uint8)  # one symbol throughout: the table says it all
    return CodedIndex(_table(counts), stream)


def decode(coded: Bytes, alphabet: int, count: int) -> Symbols:
    """The (count,) symbols behind `encode`'s bytes.

    Takes memory for `count` symbols, whatever the bytes say. Raises CodeError for bytes that are
    no such index: a table of another sum, too few words or too many, other symbols than counted.
    """
    table, stream = split(coded, alphabet)
    counts = _counts(table, alphabet)
    if int(counts.sum()) != count:
        raise CodeError(f"a table of {count} symbols expected, got one of {int(counts.sum())}")
    if np.count_nonzero(counts) == 1:
        if len(stream):
            raise CodeError(f"no stream expected, got {len(stream)} bytes")
        return np.full(count, int(counts.argmax()), np.int32)
    words = np.frombuffer(stream.tobytes(), "<u4").astype(np.uint32)
    if not len(words) or not words[-1]:  # the coder refuses a last word of zero
        raise CodeError("a stream of words whose last is not zero expected, got another")
    coder = AnsCoder(words)
    symbols = coder.decode(_model(counts), count)
    if not coder.is_empty() or not np.array_equal(np.bincount(symbols, minlength=alphabet), counts):
        raise CodeError("a stream of just the counted symbols expected, got others")
    return symbols


def split(coded: Bytes, alphabet: int) -> tuple[Bytes, Bytes]:
    """The bytes of an index as table and stream; CodeError where they are too few."""
    width = int(coded[0]) if len(coded) else 0
    length = 1 + width * alphabet
    if not 1 <= width <= 4 or len(coded) < length or (len(coded) - length) % 4:
        raise CodeError(f"a table of {alphabet} counts and whole words expected, got other bytes")
    return coded[:length], coded[length:]


def _table(counts: NDArray[np.integer]) -> Bytes:
    width = max(1, (int(counts.max()).bit_length() + 7) // 8)
    digits = counts.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :width]  # (alphabet, width)
    return np.concatenate([np.array([width], np.uint8), digits.ravel()])


def _counts(table: Bytes, alphabet: int) -> NDArray[np.int64]:
    digits = np.zeros((alphabet, 4), np.uint8)
    digits[:, : int(table[0])] = table[1:].reshape(alphabet, -1)
    return digits.view("<u4").ravel().astype(np.int64)


def _model(counts: NDArray[np.integer]) -> Any:
    shares = counts / counts.sum()
    return Categorical(shares, perfect=False)
