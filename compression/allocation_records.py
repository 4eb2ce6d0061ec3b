"""The points of `scan_settings` in a JSON file, with the digest of the weights they belong to."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compression.allocation_scan import SettingPoint
from compression.inputs import InputError, shown
from compression.scan_cache import content_digest


def save_settings(
    path: str | os.PathLike[str],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    points: Sequence[SettingPoint],
    about: Mapping[str, Any],
) -> None:
    """Write the points that `scan_settings` gave for this model, images and labels."""
    content = {
        "content": content_digest(model, images, labels),
        "about": dict(about),
        "points": [asdict(point) for point in points],
    }
    target = Path(path)
    beside = target.with_name(target.name + ".part")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    beside.replace(target)


def load_settings(path: str | os.PathLike[str]) -> tuple[str, list[SettingPoint]]:
    """The digest and the points. Raises InputError for a file that holds none."""
    try:
        content = json.loads(Path(path).read_text())
        return str(content["content"]), [SettingPoint(**point) for point in content["points"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{Path(path).name} must be a file of measured settings, got {shown(str(error))}."
        ) from error
