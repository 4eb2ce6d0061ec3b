"""A scan in a JSON file: what it was of, how it was counted, and its points.

The file carries the digest of the weights, images and labels, so that a recorded scan is taken for
the answer only where these are the same, bit for bit; `remember` puts its points into a cache,
where `scan` finds them after a restart.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compression.files import UNREADABLE, write_json
from compression.inference import device_of, resolved_precision
from compression.inputs import InputError, shown
from compression.scan_cache import PointKey, ScanCache, content_digest
from compression.sensitivity import SensitivityPoint, latest, results_cache

_VERSION = 1


@dataclass(frozen=True)
class RecordedScan:
    """A scan that was kept. content: SHA-256 of weights, images and labels; precision: what it was
    computed in; dense: the unpruned model's point; about: free notes, such as the command."""

    content: str
    precision: str
    exhaustive: bool
    dense: SensitivityPoint
    points: tuple[SensitivityPoint, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def remember(self, cache: ScanCache | None = None) -> None:
        """Put the points into `cache` (default: the process's own), for `scan` to find."""
        target = results_cache() if cache is None else cache
        for point in self.points:
            key = PointKey(
                self.content, self.precision, self.exhaustive, point.layer, point.sparsity
            )
            target.put(key, point.correct)


def record_scan(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    points: Iterable[SensitivityPoint],
    dense: SensitivityPoint,
    *,
    precision: str = "auto",
    exhaustive: bool = False,
    about: Mapping[str, Any] | None = None,
) -> RecordedScan:
    """The points of a finished scan with what identifies it, ready for `save_scan`.

    Raises InputError for points that do not count all the images, such as a stopped scan's.
    """
    kept = tuple(latest(points))
    for point in (dense, *kept):
        if point.total != len(labels):
            raise InputError(
                f"points must count all {len(labels)} images, "
                f"got {point.total} at {point.layer} {point.sparsity:g}."
            )
    content = content_digest(model, images, labels)
    resolved = resolved_precision(precision, device_of(model))
    return RecordedScan(content, resolved, exhaustive, dense, kept, dict(about or {}))


def save_scan(path: str | os.PathLike[str], recorded: RecordedScan) -> None:
    """Write the scan as JSON, all at once: a kill leaves the file as it was before."""
    write_json(Path(path), {"version": _VERSION, **asdict(recorded)})


def load_scan(path: str | os.PathLike[str]) -> RecordedScan:
    """Read what `save_scan` wrote; InputError for a file that is missing or is something else."""
    try:
        found = json.loads(Path(path).read_text())
        if found.pop("version") != _VERSION:
            raise ValueError("another version")
        dense, points = found.pop("dense"), found.pop("points")
        return RecordedScan(
            dense=_point(dense), points=tuple(_point(row) for row in points), **found
        )
    except (*UNREADABLE, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} must be a recorded scan, got {shown(str(error))}: make it again with "
            "`python -m compression scan`."
        ) from error


def _point(row: Mapping[str, Any]) -> SensitivityPoint:
    """One point, whose accuracy and interval must follow from its counts."""
    point = SensitivityPoint(**row)
    if point != SensitivityPoint.counted(point.layer, point.sparsity, point.correct, point.total):
        raise ValueError(f"numbers of {point.layer} at {point.sparsity} that disagree")
    return point
