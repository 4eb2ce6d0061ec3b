"""The points of `scan_settings` in a JSON file, with digests of what they belong to."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compression.allocation_scan import SettingPoint
from compression.files import UNREADABLE, write_json
from compression.inputs import InputError, shown
from compression.scan_cache import content_digest, weights_digest


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
        "weights": weights_digest(model),
        "about": dict(about),
        "points": [asdict(point) for point in points],
    }
    write_json(Path(path), content)


@dataclass(frozen=True)
class RecordedSettings:
    """content: digest of weights, images and labels; weights: digest of the weights alone; about:
    the command and the machine that measured them."""

    content: str
    weights: str
    points: list[SettingPoint]
    about: dict[str, Any]


def load_settings(path: str | os.PathLike[str]) -> RecordedSettings:
    """What `save_settings` wrote. Raises InputError for a file that holds none."""
    try:
        content = json.loads(Path(path).read_text())
        points = [SettingPoint(**point) for point in content["points"]]
        return RecordedSettings(
            str(content["content"]), str(content["weights"]), points, dict(content["about"])
        )
    except (*UNREADABLE, KeyError, TypeError) as error:
        raise InputError(
            f"{Path(path).name} must be a file of measured settings, got {shown(str(error))}."
        ) from error
