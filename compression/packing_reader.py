"""A packed file's parts, each checked before it is used: a user's file is hostile until then."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compression.data import CHANNEL_MEAN, CHANNEL_STD, CIFAR10_CLASSES
from compression.inputs import shown
from compression.packing_codes import CodeError, decode, split
from compression.packing_file import MAX_HEADER_BYTES, PackedFormatError, read_container
from compression.packing_info import PackedLayer
from compression.packing_ladder import SymbolRun, ladder_of
from compression.presets import PRESETS
from compression.quantization import QuantizedLayer
from compression.resnet9 import ResNet9, count_parameters

_CODED = ("codebook", "index")  # tensors of a quantized layer
FLOAT = 32  # bits of a layer that is not quantized
VECTORS = "vectors"  # the tensor of biases and batch norm
# What a model takes in and tells apart; here all models do the same.
SEEN_AS = {"classes": list(CIFAR10_CLASSES), "mean": list(CHANNEL_MEAN), "std": list(CHANNEL_STD)}


class PackedFile:
    """A packed file, read and checked; each part is checked again as it is asked for."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self.about, self.tensors, self.size = read_container(path, self._most_bytes)
        self.preset = str(self.about["preset"])
        self._layers = self.about.get("layers")
        if not isinstance(self._layers, dict) or not isinstance(self.about.get("recipe"), list):
            raise self._error("layers and a recipe in its metadata", "other entries")

    def _most_bytes(self, about: dict[str, Any]) -> int:
        """What a file of this network may take: each weight in float32 under an index of zeros, or
        in a byte with tables of counts."""
        for name, known in SEEN_AS.items():
            if about.get(name) != known:
                raise self._error(f"the {name} that this program knows", "another")
        preset = str(about.get("preset"))
        if preset not in PRESETS:
            raise self._error("a known preset", f"{preset[:40]!r}")
        return 5 * _parameters(preset) + 2 * MAX_HEADER_BYTES

    def _error(self, expected: str, came: str) -> PackedFormatError:
        return PackedFormatError(f"{self._name} must hold {expected}, got {came}.")

    def _tensor(self, name: str, kinds: tuple[str, ...], most: int) -> np.ndarray:
        """A one-dimensional tensor of one of these types, of at most so many numbers."""
        found = self.tensors.get(name)
        if found is None or found.ndim != 1 or str(found.dtype) not in kinds or len(found) > most:
            came = "none" if found is None else f"{found.dtype} {found.shape}"
            raise self._error(f"{name} with at most {most} of {' or '.join(kinds)}", came)
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise self._error(f"finite numbers in {name}", "NaN or infinity")
        return found

    def check_parts(self, layers: Iterable[str]) -> None:
        """Raise PackedFormatError for entries and tensors beyond those that these layers have."""
        names = list(layers)
        parts = {VECTORS}
        for name in names:
            kinds = ("values", "index") if self._described(name)[0] == FLOAT else _CODED
            parts |= {f"{name}.{kind}" for kind in kinds}
        assert isinstance(self._layers, dict)
        for what, found, known in (
            ("layers", self._layers, names),
            ("tensors", self.tensors, parts),
        ):
            if unknown := sorted(set(found) - set(known)):
                raise self._error(f"only the {what} of its network", shown(unknown[0]))

    def vectors(self, count: int) -> Tensor:
        found = self._tensor(VECTORS, ("float16", "float32"), count)
        if len(found) != count:
            raise self._error(f"{count} biases and batch-norm numbers", str(len(found)))
        return torch.from_numpy(found)

    def _described(self, name: str) -> tuple[int, int | None]:
        """A layer's bits and zero code, as the metadata have them."""
        assert isinstance(self._layers, dict)
        entry = self._layers.get(name)
        if isinstance(entry, list) and len(entry) == 2:
            bits, zero = entry
            if bits in (*range(1, 9), FLOAT) and (zero is None or zero in range(256)):
                return int(bits), None if zero is None else int(zero)
        raise self._error(f"bits and zero code of {name}", "other metadata")

    def layer(self, name: str, shape: tuple[int, ...]) -> tuple[Tensor, QuantizedLayer | None]:
        """A layer's weight, (shape) float32, and its codebook and codes where it is quantized."""
        bits, zero = self._described(name)
        symbols, levels = self._symbols(name, shape, bits)
        if bits == FLOAT:
            weight = torch.zeros(symbols.shape)
            weight[torch.from_numpy(symbols) == 1] = torch.from_numpy(levels)
            return weight.view(shape), None
        codebook = torch.from_numpy(levels.astype(np.float32))
        if bool((codebook.diff() <= 0).any()) or (
            zero is not None and (zero >= len(codebook) or codebook[zero] != 0)
        ):
            raise self._error(f"an ascending codebook of {name}, 0 at its zero code", "another")
        indices = torch.from_numpy(symbols.astype(np.uint8)).view(shape)
        layer = QuantizedLayer(name, bits, codebook, indices, zero)
        return layer.weight(), layer

    def account(self, name: str, shape: tuple[int, ...]) -> PackedLayer:
        """Where a layer's bytes go, and what it would take by other ways of storing it."""
        bits, zero = self._described(name)
        symbols, levels = self._symbols(name, shape, bits)
        quantized = bits != FLOAT
        alphabet = len(levels) if quantized else 2
        values = 0 if quantized else levels.nbytes
        coded = self.tensors.get(f"{name}.index", np.zeros(0, np.uint8))
        table = split(coded, alphabet)[0] if len(coded) else coded
        zero = zero if quantized else 0
        return PackedLayer(
            name,
            weights=len(symbols),
            nonzeros=int(np.count_nonzero(levels[symbols] if quantized else levels)),
            bits=bits,
            levels=len(levels) if quantized else 0,
            codebook_bytes=levels.nbytes if quantized else 0,
            table_bytes=len(table),
            stream_bytes=len(coded) - len(table),
            value_bytes=values,
            ladder=ladder_of(SymbolRun(symbols, alphabet, bits, zero, values)),
        )

    def _symbols(
        self, name: str, shape: tuple[int, ...], bits: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n,) int32 symbols, and the codebook, or the kept float32 values."""
        count = int(np.prod(shape))
        if bits == FLOAT and f"{name}.index" not in self.tensors:
            values = self._tensor(f"{name}.values", ("float32",), count)
            symbols, kept = np.ones(count, np.int32), count
        elif bits == FLOAT:
            values = self._tensor(f"{name}.values", ("float32",), count)
            symbols = self._decoded(name, 2, count)
            kept = int(symbols.sum())
        else:
            codebook = self._tensor(f"{name}.codebook", ("float16", "float32"), 2**bits)
            if not len(codebook):
                raise self._error(f"a codebook of {name}", "an empty one")
            return self._decoded(name, len(codebook), count), codebook
        if len(values) != kept:
            raise self._error(f"{kept} values of {name}", str(len(values)))
        return symbols, values

    def _decoded(self, name: str, alphabet: int, count: int) -> np.ndarray:
        # A table of four bytes a symbol at most; a symbol takes 8 bits at most, and hardly more.
        most = 64 + 4 * alphabet + count + count // 16
        coded = self._tensor(f"{name}.index", ("uint8",), most)
        try:
            return decode(coded, alphabet, count)
        except CodeError as error:
            raise self._error(f"a sound index of {name}", str(error)) from error


@functools.cache
def _parameters(preset: str) -> int:
    """How many numbers a network of this preset has; none of them is made."""
    with torch.device("meta"):
        return count_parameters(ResNet9(preset))
