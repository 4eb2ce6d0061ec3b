"""Recorded results out of assets/, read without torch, so that the page can show them at once."""

import json
import struct
from pathlib import Path
from typing import Any

from compression.presets import SHIPPED

ASSETS = Path(__file__).resolve().parents[2] / "assets"


def read_metadata(name: str) -> dict[str, Any]:
    """The metadata of a shipped checkpoint, out of its header alone."""
    with (ASSETS / "checkpoints" / f"{name}.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        raw = json.loads(file.read(length))["__metadata__"]
    return {key: json.loads(value) for key, value in raw.items() if key != "format"}


def recorded_runs() -> dict[str, dict[str, Any]]:
    """The metadata of the shipped checkpoints by their short names."""
    return {name.split("/")[1]: read_metadata(name) for name in SHIPPED}


def scan_file(name: str) -> Path | None:
    """Where the recorded scan of a shipped model is, or None."""
    return _of_shipped("scan", name)


def settings_file(name: str) -> Path | None:
    """Where the measured settings of a shipped model are, or None."""
    return _of_shipped("settings", name)


def _of_shipped(kind: str, name: str) -> Path | None:
    path = ASSETS / "results" / f"{kind}-{name.replace('/', '-')}.json"
    return path if name in SHIPPED and path.is_file() else None


def codebook_kinds(name: str) -> dict[str, Any] | None:
    """What ways to choose codebooks gave on a shipped model, recorded; None where nothing was."""
    path = ASSETS / "results" / f"codebooks-{name.replace('/', '-')}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def packed_files() -> dict[str, Path]:
    """The shipped packed files: `packed/NAME` -> path."""
    return {f"packed/{path.stem}": path for path in sorted(ASSETS.glob("packed/*.safetensors"))}
