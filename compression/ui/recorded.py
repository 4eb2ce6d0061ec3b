"""Recorded results out of assets/, read without torch, so that the page can show them at once."""

import json
import struct
from pathlib import Path
from typing import Any

from compression.front_records import FrontPoint, load_front
from compression.presets import DEFAULT_PRESET, SHIPPED

ASSETS = Path(__file__).resolve().parents[2] / "assets"


def read_metadata(name: str) -> dict[str, Any]:
    """The metadata of a shipped checkpoint, out of its header alone (the first file's)."""
    whole = ASSETS / "checkpoints" / f"{name}.safetensors"
    shards = sorted(whole.parent.glob(f"{whole.stem}-1-of-*.safetensors"))
    with (whole if whole.is_file() else shards[0]).open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        raw = json.loads(file.read(length))["__metadata__"]
    return {key: json.loads(value) for key, value in raw.items() if key != "format"}


def recorded_runs() -> dict[str, dict[str, Any]]:
    """The metadata of the shipped checkpoints of the default size, by their short names."""
    names = [name for name in SHIPPED if name.startswith(f"{DEFAULT_PRESET}/")]
    return {name.split("/")[1]: read_metadata(name) for name in names}


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


def front_file(name: str) -> Path | None:
    """Where the measured front of a shipped model is, or None."""
    return _of_shipped("front", name)


def unseen_goals(name: str) -> list[FrontPoint]:
    """What our way gave, on the front's test images, for goals drawn at random once its
    predictions had taken their form; none where nothing is recorded."""
    path = _of_shipped("unseen", name)
    return [p for p in load_front(path)[0] if p.goal == "random"] if path is not None else []


def study_file() -> Path | None:
    """Where the augmentation study of the default size is, or None."""
    path = ASSETS / "results" / f"study-{DEFAULT_PRESET}.json"
    return path if path.is_file() else None


def shrink_records() -> dict[str, dict[str, Any]]:
    """What is recorded of each shipped packed file: `packed/NAME` -> its making and its figures."""
    return {
        name: json.loads((ASSETS / "results" / f"shrink-{path.stem}.json").read_text())
        for name, path in packed_files().items()
    }
