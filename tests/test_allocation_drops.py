"""The curve from divergence to drop: it finds the curve behind noisy points, and shared luck."""

from pathlib import Path

import numpy as np
import pytest

from compression.allocation import allocate
from compression.allocation_drops import DropCurve, fit_drops
from compression.allocation_records import load_settings
from compression.allocation_table import setting_table
from compression.checkpoint import load_checkpoint
from compression.inputs import InputError
from compression.presets import SHIPPED

RESULTS = Path(__file__).resolve().parent.parent / "assets" / "results"


def test_a_curve_by_hand():
    curve = DropCurve(0.8, 2.0, 1.5)
    assert curve(0) == 0 == curve(-1e-9)  # rounding may bring a divergence below 0
    assert curve(2) == pytest.approx(0.8 * (1 - np.exp(-1)))
    assert curve(0.5) == pytest.approx(0.8 * (1 - np.exp(-0.125)))
    assert curve(1e9) == pytest.approx(0.8)


@pytest.mark.parametrize("luck", [0.0, 0.01, -0.01])
def test_the_curve_behind_noisy_points_is_found_whatever_the_dense_models_luck(luck):
    behind = DropCurve(0.84, 1.3, 1.4)
    generator = np.random.default_rng(3)
    divergences = np.exp(generator.uniform(np.log(1e-4), np.log(3), 150))
    drops = [behind(d) + luck + 0.005 * generator.standard_normal() for d in divergences]
    found = fit_drops(divergences, drops, 0.94)
    for divergence in (0, 1e-3, 0.03, 0.1, 0.5, 2):
        assert found(divergence) == pytest.approx(behind(divergence), abs=0.006)
    assert found(1e-3) < 1e-4


def test_points_that_lose_nothing_and_networks_that_guess_have_a_curve():
    assert fit_drops([0.001, 0.002, 0.003], [0.0, 0.0, 0.0], 0.9)(0.003) < 1e-3
    guessing = fit_drops([0.1, 0.2, 0.5], [0.0, 0.01, -0.01], 0.08)
    assert 0 <= guessing(0.5) <= 0.01
    with pytest.raises(InputError, match="points must be at least 3, got 2"):
        fit_drops([0.1, 0.2], [0.0, 0.1], 0.9)


@pytest.mark.parametrize("name", SHIPPED)
def test_small_drops_are_within_reach_of_the_shipped_models(name):
    """Of 8 bits everywhere next to nothing is predicted, and so of what is nearly that."""
    recorded = load_settings(RESULTS / f"settings-{name.replace('/', '-')}.json")
    table = setting_table(load_checkpoint(name).model, recorded.points)
    found = [allocate(table, max_drop=drop / 100) for drop in (0.05, 0.1, 0.5, 1)]
    sizes = [allocation.size_bytes for allocation in found]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    assert found[-1].size_bytes < 4 * sum(layer.weights for layer in table.layers) / 10
