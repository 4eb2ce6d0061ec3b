"""The container of a packed model: safetensors with one metadata entry, and a checksum over it all.

The tensor `sha256` holds the digest of the whole file with its own 32 bytes as zeros, so that no
byte can change unseen. One entry of metadata, because safetensors writes several in no fixed order,
and the same model must give the same bytes. A file is hostile until shown otherwise: its size and
its header are bounded before anything is parsed, its size again by what the network that it names
could take, and safetensors checks that the declared tensors fill the file exactly.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from compression.files import at_home
from compression.inputs import InputError, shown

VERSION = 1
MAX_BYTES, MAX_HEADER_BYTES = 128 * 2**20, 64 * 2**10
_ENTRY, _DIGEST = "packed", "sha256"
Tensors = dict[str, NDArray[Any]]


class PackedFormatError(InputError):
    """A file is no packed model; the text is one sentence that says what is wrong with it."""


def container_of(about: dict[str, Any], tensors: Tensors) -> bytes:
    """The file's bytes; the same content gives the same ones.

    Raises InputError for a description that `read_container` would refuse.
    """
    entry = json.dumps({"version": VERSION} | about, separators=(",", ":"), sort_keys=True)
    _check_text(about)
    content = save({**tensors, _DIGEST: np.zeros(32, np.uint8)}, {_ENTRY: entry})
    length = int.from_bytes(content[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise InputError(
            f"name and steps must fit into a header of {MAX_HEADER_BYTES // 2**10} KiB, "
            f"got one of {length / 2**10:.0f} KiB."
        )
    return signed(content)


def signed(content: bytes) -> bytes:
    """The same file with the digest of its content in its place, whatever was there."""
    start = _digest_place(_header(content), content)
    return content[:start] + _digest(content, start) + content[start + 32 :]


def read_container(
    path: Path, most_bytes: Callable[[dict[str, Any]], int]
) -> tuple[dict[str, Any], Tensors, int]:
    """What `container_of` made: metadata, tensors, and the file's size in bytes.

    most_bytes: how large a file of such metadata may be; asked before the content is read, of which
    there then are two copies in memory. Raises PackedFormatError for any other file.
    """
    try:
        content = _content(path, most_bytes)
        header = _header(content)
        about = _metadata(header)
        start = _digest_place(header, content)
        _check_digest(content, start)
        try:
            tensors = load(content)
        except KeyError as error:  # safetensors has types that numpy has not
            raise ValueError(f"it has a tensor of type {error}") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        if isinstance(error, PackedFormatError):
            raise
        raise PackedFormatError(
            f"{path.name} must be a packed model, got one that does not read: {shown(str(error))}."
        ) from error
    del tensors[_DIGEST]
    return about, tensors, len(content)


def is_packed(path: str | os.PathLike[str]) -> bool:
    """Whether the file's first bytes are those of a packed model, sound or not."""
    path = at_home(path)
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, MAX_HEADER_BYTES)))
        return _ENTRY in header["__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _content(path: Path, most_bytes: Callable[[dict[str, Any]], int]) -> bytes:
    """The file's bytes, read once what it says of itself justifies its size."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            raise OSError("no regular file")
        _check_size(path, about.st_size, MAX_BYTES)
        with open(path, "rb") as file:
            most = min(MAX_BYTES, most_bytes(_metadata(_header(file.read(8 + MAX_HEADER_BYTES)))))
            _check_size(path, about.st_size, most)
            file.seek(0)
            content = file.read(most)  # which may have grown since
    except OSError as error:
        raise PackedFormatError(
            f"The packed model must be a file that can be read, got {path.name} "
            f"({error.strerror or error})."
        ) from error
    return content


def _check_size(path: Path, size_bytes: int, most: int) -> None:
    if size_bytes > most:
        raise PackedFormatError(
            f"{path.name} must be at most {most / 2**20:.1f} MiB for what it says to hold, "
            f"got {size_bytes / 2**20:.1f} MiB."
        )


def _header(content: bytes) -> dict[str, Any]:
    """The JSON header; ValueError for bytes that begin with none."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(MAX_HEADER_BYTES, len(content) - 8):
        raise PackedFormatError(
            f"A packed model must begin with a safetensors header of at most "
            f"{MAX_HEADER_BYTES // 2**10} KiB that lies in the file, got other first bytes."
        )
    header = json.loads(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    return header


def _metadata(header: dict[str, Any]) -> dict[str, Any]:
    """The parsed entry; another version is refused before anything else is looked at."""
    metadata = header.get("__metadata__")
    entries = metadata if isinstance(metadata, dict) else {}
    if "preset" in entries and _ENTRY not in entries:
        raise PackedFormatError(
            "A packed model must be given here, got a checkpoint: "
            "`python -m compression pack` makes a packed model of it."
        )
    entry = entries.get(_ENTRY)
    if not isinstance(entry, str):
        raise PackedFormatError(
            f"A packed model must have the metadata entry {_ENTRY!r}, got "
            f"{shown(sorted(entries)) if entries else 'a file without metadata'}."
        )
    about = json.loads(entry)
    if not isinstance(about, dict) or type(about.get("version")) is not int:
        raise ValueError("its metadata names no version")
    _check_text(about)
    if about["version"] != VERSION:
        raise PackedFormatError(
            f"A packed model must be of format version {VERSION}, got version "
            f"{shown(about['version'])}"
            + (": it takes a later version of this program." if about["version"] > VERSION else ".")
        )
    return about


def _check_text(about: dict[str, Any]) -> None:
    """Raise InputError for halves of characters, which are no text."""
    try:
        json.dumps(about, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError("name and steps must be text, got half of a character in it.") from error


def _digest_place(header: dict[str, Any], content: bytes) -> int:
    """Where in the file the digest's 32 bytes are."""
    described = header.get(_DIGEST)
    offsets = described.get("data_offsets") if isinstance(described, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise ValueError("it has no checksum")
    start, end = offsets
    data = 8 + int.from_bytes(content[:8], "little")
    whole = isinstance(start, int) and isinstance(end, int)
    if not whole or end - start != 32 or start < 0 or data + end > len(content):
        raise ValueError("its checksum is not 32 bytes")
    return data + start


def _digest(content: bytes, start: int) -> bytes:
    """SHA-256 of the file with the 32 bytes at `start` as zeros."""
    whole = memoryview(content)  # whose parts are no copies
    digest = hashlib.sha256(whole[:start])
    digest.update(bytes(32))
    digest.update(whole[start + 32 :])
    return digest.digest()


def _check_digest(content: bytes, start: int) -> None:
    if _digest(content, start) != content[start : start + 32]:
        raise PackedFormatError(
            "A packed model must have the content that its checksum was made of, got other bytes: "
            "the file is damaged or was changed."
        )
