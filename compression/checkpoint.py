"""Checkpoints as safetensors: weights, and metadata that says how they came about.

A file from a user is hostile until shown otherwise: never pickle, the declared sizes are checked
against the file and the preset before any memory is taken for weights, and every tensor must have
exactly the name, shape and type of the network that the metadata names.
"""

import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from compression.files import at_home, replacing
from compression.inputs import InputError, shown
from compression.presets import PRESETS, SHIPPED
from compression.resnet9 import ResNet9, build_model

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "checkpoints"
PACKED = FOLDER.with_name("packed")
SHARD_BYTES = 9 * 2**20
MAX_BYTES, MAX_HEADER_BYTES = 256 * 2**20, 4 * 2**20


@dataclass(frozen=True)
class Checkpoint:
    """A model in eval mode, taking (N, 3, 32, 32) float32 normalized images, and its metadata."""

    model: ResNet9
    metadata: dict[str, Any]


def load_checkpoint(
    name_or_path: str | os.PathLike[str], *, names: Sequence[str] = SHIPPED
) -> Checkpoint:
    """A shipped checkpoint by name (`resnet9-s/baseline`, ...) or a file by path.

    Either may be in several files, `NAME-1-of-2.safetensors` and so on in place of
    `NAME.safetensors`, whose tensors are taken together. names: those that the sentence about an
    unknown one lists. Raises InputError for an unknown name, a file that is missing, too large,
    truncated, a pickle, not safetensors, or whose tensors are not exactly those of the preset that
    its metadata names.
    """
    paths = _resolve(name_or_path, names)
    path = paths[0]
    state: dict[str, torch.Tensor] = {}
    try:
        for each in paths:
            _check_header(each)
        with ExitStack() as stack:
            files = [stack.enter_context(safe_open(each, "pt")) for each in paths]
            metadata = _parse_metadata(files[0].metadata() or {}, path)
            if any(file.metadata() != files[0].metadata() for file in files):
                names = ", ".join(each.name for each in paths)
                raise InputError(f"{names} must be of one checkpoint, got parts of several.")
            model = build_model(metadata["preset"])
            places = {name: file for file in files for name in file.keys()}
            _check_tensors(places, model, paths)
            state = {name: file.get_tensor(name) for name, file in places.items()}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path.name} must be a whole safetensors file, got one that does not read ({error})."
        ) from error
    reference = model.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"tensor {name} in {path.name} must be finite, got NaN or infinity.")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise InputError(
                f"tensor {name} in {path.name} must hold variances of at least 0, "
                f"got {float(tensor.min()):g}."
            )
        state[name] = tensor.to(reference[name].dtype)
    model.load_state_dict(state)
    return Checkpoint(model.eval(), metadata)


def save_checkpoint(model: ResNet9, path: str | os.PathLike[str], metadata: dict[str, Any]) -> None:
    """Write `model` with JSON-able `metadata` (the preset is added); the file appears whole."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    _write(state, at_home(path), {"preset": model.preset} | metadata)


def save_shards(
    model: ResNet9,
    path: str | os.PathLike[str],
    metadata: dict[str, Any],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write `model` in half precision as `NAME-1-of-2.safetensors` and so on, for `NAME` in `path`.

    Each file holds tensors of at most `shard_bytes`, or one that is larger, and the metadata.
    Returns the files. Raises InputError as `shard_files` does.
    """
    targets = shard_files(model, path, shard_bytes=shard_bytes)
    described = {"preset": model.preset} | metadata
    for shard, target in zip(_in_shards(model, shard_bytes), targets, strict=True):
        _write(shard, target, described)
    return targets


def shard_files(
    model: ResNet9, path: str | os.PathLike[str], *, shard_bytes: int = SHARD_BYTES
) -> list[Path]:
    """The files that `save_shards` would write. Raises InputError where another checkpoint of that
    name would be taken in their place, or with them."""
    stem, several = at_home(path).with_suffix(""), len(_in_shards(model, shard_bytes))
    targets = [
        stem.with_name(f"{stem.name}-{k + 1}-of-{several}.safetensors") for k in range(several)
    ]
    in_the_way = [each for each in _known_as(at_home(path)) if each not in targets]
    if in_the_way:
        raise InputError(
            f"{', '.join(each.name for each in in_the_way)} must be moved away before, since "
            f"{targets[0].name} and so on load by the name {stem.name}.safetensors too."
        )
    return targets


def _in_shards(model: ResNet9, shard_bytes: int) -> list[dict[str, torch.Tensor]]:
    """The tensors in half precision, in parts of at most so many bytes, or of one larger tensor."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        tensor = tensor.half() if tensor.is_floating_point() else tensor
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _write(state: dict[str, torch.Tensor], target: Path, described: dict[str, Any]) -> None:
    with replacing(target) as beside:
        save_tensors(state, beside, {key: json.dumps(value) for key, value in described.items()})


def save_tensors(state: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file. Raises OSError where the disk is full or the name too long, which
    safetensors calls an error of its own."""
    try:
        save_file(state, path, metadata)
    except SafetensorError as error:
        raise OSError(f"{path.name} cannot be written: {error}") from error


def file_of(name_or_path: str | os.PathLike[str]) -> Path:
    """The file that a shipped name stands for: `resnet9-s/baseline`, or, unless there is such a
    path, `packed/NAME` (a packed file); else the path itself, `~` as the home folder."""
    given = name_or_path
    text = given.as_posix() if isinstance(given, PurePath) else os.fspath(given)
    if text in SHIPPED:
        return FOLDER / f"{text}.safetensors"
    if text in packed_names() and not os.path.exists(text):
        return PACKED / f"{Path(text).name}.safetensors"
    return at_home(text)


def packed_names() -> tuple[str, ...]:
    """The shipped packed files: `packed/NAME`, by name."""
    return tuple(sorted(f"packed/{path.stem}" for path in PACKED.glob("*.safetensors")))


def _resolve(name_or_path: str | os.PathLike[str], names: Sequence[str]) -> list[Path]:
    """The file, or the files of a checkpoint that is in several."""
    text = os.fspath(name_or_path) if isinstance(name_or_path, os.PathLike) else name_or_path
    if not isinstance(text, str) or not text:
        raise InputError(f"checkpoint must be a name or a path, got {shown(text)}.")
    path = file_of(text)
    paths = [path] if os.path.isfile(path) else _shards_of(path)
    if not paths:
        raise InputError(
            f"checkpoint must be one of {', '.join(names)}, or the path of a safetensors file, "
            f"got {shown(text)}."
        )
    size = sum(each.stat().st_size for each in paths)
    if size > MAX_BYTES:
        raise InputError(
            f"checkpoint must be at most {MAX_BYTES // 2**20} MiB, got {size / 2**20:.0f} MiB."
        )
    return paths


def _shards_of(path: Path) -> list[Path]:
    """The files NAME-1-of-2 and so on in place of one that is not there, or none. Raises InputError
    where some of them are missing, and where there are those of several checkpoints."""
    found = _numbered(path)
    places = sorted((int(match[2]), int(match[1])) for match in found.values())
    if places != [(len(places), k + 1) for k in range(len(places))]:
        raise InputError(
            f"{path.name} must be there in all of its files, got "
            f"{', '.join(sorted(file.name for file in found))}."
        )
    return sorted(found)


def _known_as(path: Path) -> list[Path]:
    """All files that a checkpoint of this name is in, or may be taken to be in."""
    whole = path.with_suffix(".safetensors")
    return [whole] * whole.is_file() + sorted(_numbered(whole))


def _numbered(path: Path) -> dict[Path, re.Match[str]]:
    """The files NAME-1-of-2 and so on for this NAME, with the match that holds both numbers."""
    stem = re.escape(path.name.removesuffix(".safetensors"))
    named = re.compile(rf"{stem}-(\d+)-of-(\d+)\.safetensors")
    try:
        return {f: m for f in path.parent.iterdir() if (m := named.fullmatch(f.name))}
    except (OSError, ValueError):
        return {}


def _parse_metadata(raw: dict[str, str], path: Path) -> dict[str, Any]:
    try:
        metadata = {key: json.loads(value) for key, value in raw.items() if key != "format"}
        json.dumps(metadata, ensure_ascii=False).encode()  # ValueError: halves of characters
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or a number too long
        raise InputError(f"metadata of {path.name} must be JSON values, got text.") from error
    preset = metadata.get("preset")
    if preset is None and "packed" in raw:
        raise InputError(
            f"{path.name} must be a checkpoint here, got a packed file: "
            "`python -m compression unpack` makes a checkpoint of it."
        )
    if not isinstance(preset, str) or preset not in PRESETS:
        raise InputError(
            f"metadata of {path.name} must name a preset ({', '.join(PRESETS)}), "
            f"got {shown(preset)}."
        )
    return metadata


def _check_tensors(files: dict[str, Any], model: nn.Module, paths: Sequence[Path]) -> None:
    """Names, shapes and types out of the headers alone, before any tensor is read.

    files: each tensor's name and the open file that holds it.
    """
    expected, path = model.state_dict(), paths[0]
    found = set(files)
    part = re.fullmatch(r"(.+)-(\d+)-of-(\d+)\.safetensors", path.name)
    if part and len(paths) == 1 and found < set(expected):
        raise InputError(
            f"{path.name} must be loaded with its other parts, by the name {part[1]}.safetensors "
            f"in the folder that holds them all, got part {part[2]} of {part[3]} alone."
        )
    if found != set(expected):
        differing = sorted(found ^ set(expected))
        raise InputError(
            f"{path.name} must hold the tensors of its preset, got a difference in "
            f"{shown(differing[0])} and {len(differing) - 1} more."
        )
    for name, tensor in expected.items():
        view = files[name].get_slice(name)
        if tuple(view.get_shape()) != tuple(tensor.shape):
            raise InputError(
                f"tensor {name} in {path.name} must have shape {tuple(tensor.shape)}, "
                f"got {tuple(view.get_shape())}."
            )
        allowed = {"F32", "F16", "BF16"} if tensor.is_floating_point() else {"I64"}
        if view.get_dtype() not in allowed:
            raise InputError(
                f"tensor {name} in {path.name} must be of type {' or '.join(sorted(allowed))}, "
                f"got {view.get_dtype()}."
            )


def _check_header(path: Path) -> None:
    """Refuse by its first 8 bytes (the length of the header) what would ask for endless parsing."""
    with path.open("rb") as file:
        start = file.read(8)
    if int.from_bytes(start, "little") <= MAX_HEADER_BYTES:
        return
    if start.startswith((b"PK\3\4", b"\x80")):
        raise InputError(
            f"{path.name} must be a safetensors file, got a pickle (a .pt or .pth file): those can "
            "run code when loaded, so convert it with safetensors first."
        )
    raise InputError(
        f"{path.name} must be a safetensors file whose header has at most "
        f"{MAX_HEADER_BYTES // 2**20} MiB, got another file, or a longer header."
    )
