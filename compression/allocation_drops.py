"""How much accuracy a divergence costs: one smooth curve through all measured points.

A single point is noisy: on 256 images one answer is 0.4 points, and the dense network's own count
is as lucky on them for every point alike. So the curve has three numbers and no steps:
drop(D) = most * (1 - exp(-(D / scale)^power)), which begins at no drop and ends at guessing. The
common luck is fitted as an offset, and left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compression.inputs import InputError

_CLASSES = 10
_LEAST = 0.01  # of accuracy to lose, for a network that hardly does better than guessing


@dataclass(frozen=True)
class DropCurve:
    """Divergence in nats -> drop of accuracy, a fraction; most: what guessing loses."""

    most: float
    scale: float
    power: float

    def __call__(self, divergence: float) -> float:
        """The drop at a divergence of at least 0."""
        return self.most * -float(np.expm1(-((max(0.0, divergence) / self.scale) ** self.power)))


def fit_drops(
    divergences: Sequence[float], drops: Sequence[float], dense_accuracy: float
) -> DropCurve:
    """The curve of least squares through points of (P,) divergence and drop, by scipy.

    dense_accuracy: a fraction. Raises InputError for fewer than 3 points.
    """
    from scipy.optimize import least_squares  # noqa: PLC0415 (slow to import)

    if len(divergences) < 3 or len(divergences) != len(drops):
        raise InputError(f"points must be at least 3, got {len(divergences)}.")
    most = max(_LEAST, dense_accuracy - 1 / _CLASSES)
    x, y = np.maximum(np.asarray(divergences, np.float64), 0), np.asarray(drops, np.float64)

    def missed(numbers: np.ndarray) -> np.ndarray:
        log_scale, power, luck = numbers
        return most * -np.expm1(-((x / np.exp(log_scale)) ** power)) + luck - y

    # Wide enough for any network, and finite: points that all lose nothing fit an endless scale.
    bounds = ([-12.0, 0.5, -most], [12.0, 4.0, most])
    log_scale, power, _ = least_squares(missed, [0.0, 1.0, 0.0], bounds=bounds).x
    return DropCurve(most, float(np.exp(log_scale)), float(power))
