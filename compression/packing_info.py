"""The account of a packed file: where each byte goes, and the ladder that led there.

The ladder's rungs are whole models, or one layer: what the same network would take by each way of
storing it, from dense float32 and its gzip over nominal bits and sparse indices to the bytes on
disk. Shannon's bound stands beside them: no coder of single symbols can do with less.
"""

from dataclasses import dataclass
from typing import Any

from compression.packing_ladder import LayerLadder

GZIPPED = "Gzip of the same weights"


@dataclass(frozen=True)
class Rung:
    """One way of storing a model or a layer: its name, bytes, and a sentence that says how."""

    name: str
    size_bytes: int
    explanation: str


@dataclass(frozen=True)
class PackedLayer:
    """One layer of a packed file, in bytes; bits is 32 where it is not quantized.

    levels: values in its codebook, 0 where it has none; codebook, table, stream and value bytes are
    what lies in the file; ladder: the other ways.
    """

    name: str
    weights: int
    nonzeros: int
    bits: int
    levels: int
    codebook_bytes: int
    table_bytes: int
    stream_bytes: int
    value_bytes: int
    ladder: LayerLadder

    @property
    def dense_bytes(self) -> int:
        """The weights in float32."""
        return 4 * self.weights

    @property
    def total_bytes(self) -> int:
        """All that the layer's weights take in the file."""
        return self.codebook_bytes + self.table_bytes + self.stream_bytes + self.value_bytes

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The layer's own ladder, without biases, batch norm and what only whole files have."""
        bound = round(self.codebook_bytes + self.ladder.entropy)
        return (
            Rung("Dense float32", self.dense_bytes, "Every weight at 4 bytes."),
            *_indexed((self,), 0),
            Rung("On disk", self.total_bytes, "Codes by an ANS coder, their table, the codebook."),
            Rung("Shannon's bound", bound, "The entropy of the codes, and the codebook."),
        )


@dataclass(frozen=True)
class PackedInfo:
    """A packed file's account. total_bytes is the file's size; the parts sum to it.

    dense_bytes: all parameters in float32; bound_bytes: the Shannon entropy of every index, and the
    codebooks, values, biases and batch norm as stored; vector_bytes: biases and batch norm;
    container_bytes: header, metadata and checksum.
    """

    name: str
    preset: str
    recipe: tuple[str, ...]
    total_bytes: int
    dense_bytes: int
    bound_bytes: int
    vector_bytes: int
    container_bytes: int
    layers: tuple[PackedLayer, ...]
    ladder: tuple[Rung, ...]

    @property
    def ratio(self) -> float:
        """How many times smaller than dense float32."""
        return self.dense_bytes / self.total_bytes

    @property
    def parts(self) -> dict[str, int]:
        """Every byte of the file by what it is for."""
        return {
            "coded indices": sum(layer.stream_bytes for layer in self.layers),
            "float32 values": sum(layer.value_bytes for layer in self.layers),
            "codebooks": sum(layer.codebook_bytes for layer in self.layers),
            "frequency tables": sum(layer.table_bytes for layer in self.layers),
            "biases and batch norm": self.vector_bytes,
            "header, metadata, checksum": self.container_bytes,
        }


def describe(
    about: dict[str, Any],
    *,
    total_bytes: int,
    layers: tuple[PackedLayer, ...],
    vector_bytes: int,
    full_vector_bytes: int,
    parameters: int,
    gzip_bytes: int,
) -> PackedInfo:
    """The account of a file of `total_bytes` with these layers.

    vector_bytes: biases and batch norm as stored; full_vector_bytes: the same in float32, with
    running means and variances; parameters: of the network; gzip_bytes: all of it in float32 by
    gzip.
    """
    bound = vector_bytes + sum(layer.codebook_bytes + layer.ladder.entropy for layer in layers)
    return PackedInfo(
        name=str(about.get("name", ""))[:200],
        preset=str(about["preset"]),
        recipe=tuple(str(step)[:200] for step in about["recipe"]),
        total_bytes=total_bytes,
        dense_bytes=4 * parameters,
        bound_bytes=round(bound),
        vector_bytes=vector_bytes,
        container_bytes=total_bytes - vector_bytes - sum(layer.total_bytes for layer in layers),
        layers=layers,
        ladder=(
            Rung("Dense float32", 4 * parameters, "All parameters at 4 bytes."),
            Rung(
                GZIPPED,
                gzip_bytes,
                "These very weights, zeros and repeated values with them, in float32 by gzip.",
            ),
            *_indexed(layers, full_vector_bytes),
            Rung(
                "On disk",
                total_bytes,
                "The file: codes by an ANS coder, zero a symbol that costs what its share allows; "
                "biases and batch norm in half precision; tables, metadata and checksum.",
            ),
            Rung(
                "Shannon's bound",
                round(bound),
                "The entropy of the codes, and codebooks, biases and batch norm as in the file.",
            ),
        ),
    )


def _indexed(layers: tuple[PackedLayer, ...], rest: int) -> tuple[Rung, ...]:
    """The rungs between dense float32 and the file; rest: biases and batch norm in float32, 0 for
    weights alone."""
    ways = [layer.ladder for layer in layers]
    books = sum(4 * layer.levels for layer in layers)
    beside = "; codebooks, biases and batch norm in float32." if rest else "; codebook in float32."
    return (
        Rung(
            "Bit width",
            sum(way.nominal for way in ways),
            "Every weight at its bit width and nothing else: what formulas count.",
        ),
        Rung(
            "With codebooks and the rest" if rest else "With the codebook",
            sum(way.nominal for way in ways) + books + rest,
            "Every weight at its bit width, zeros too" + beside,
        ),
        Rung(
            "Bitmap index",
            sum(way.bitmap for way in ways) + books + rest,
            "A bit for each weight says whether it is kept; the kept at their bit width" + beside,
        ),
        Rung(
            "Relative index",
            sum(way.relative for way in ways) + books + rest,
            "The gap to the next kept weight in a few bits, as in Deep Compression" + beside,
        ),
        Rung(
            "Relative index, Huffman",
            sum(way.relative_huffman for way in ways) + books + rest,
            "Gaps and codes by Huffman's codes: Deep Compression's last stage" + beside,
        ),
        Rung(
            "Huffman of all codes",
            sum(way.huffman for way in ways) + books + rest,
            "No index: zero is a symbol like the others, of one bit at least" + beside,
        ),
    )
