"""Levels for given codes, against least squares written out."""

import pytest
import torch

from compression.fitted_levels import fit_levels
from compression.quantization import QuantizedLayer


def problem(k, zero_code=None, out=6, d=30):
    """A layer with codes at random, what it should stand for, and inputs that go together."""
    generator = torch.Generator().manual_seed(k)
    wanted = torch.randn(out, d, generator=generator)
    x = torch.randn(200, d, generator=generator) @ torch.randn(d, d, generator=generator)
    codes = torch.randint(k, (out, d), generator=generator, dtype=torch.uint8)
    codebook = torch.linspace(-1, 1, k)
    if zero_code is not None:
        codebook = codebook - codebook[zero_code]
    return QuantizedLayer("x", 4, codebook, codes, zero_code), wanted, x


def least_squares(layer, wanted, x):
    """The oracle: outputs as a linear function of the levels, in float64."""
    free = [k for k in range(len(layer.codebook)) if k != layer.zero_code]
    columns = [(x @ (layer.indices == k).float().T).flatten() for k in free]
    found = torch.linalg.lstsq(
        torch.stack(columns, 1).double(), (x @ wanted.T).flatten().double()[:, None]
    ).solution[:, 0]
    levels = torch.zeros(len(layer.codebook), dtype=torch.float64)
    levels[free] = found
    return levels


@pytest.mark.parametrize(("k", "zero_code"), [(2, None), (5, None), (8, 3), (12, 0)])
def test_levels_are_those_of_least_squares(k, zero_code):
    layer, wanted, x = problem(k, zero_code)
    found = fit_levels(layer, wanted, x.T @ x / len(x))
    expected = least_squares(layer, wanted, x)
    assert torch.allclose(found.weight(), expected.float()[layer.indices.long()], atol=2e-3)
    assert bool((found.codebook.diff() > 0).all())  # numbered anew, in order
    if zero_code is not None:
        assert found.codebook[found.zero_code] == 0


def test_more_levels_than_steps_lessen_the_error_all_the_same():
    layer, wanted, x = problem(60, d=90)
    found = fit_levels(layer, wanted, x.T @ x / len(x))
    before, after = (
        float((x @ (each.weight() - wanted).T).square().mean()) for each in (layer, found)
    )
    best = least_squares(layer, wanted, x).float()[layer.indices.long()]
    least = float((x @ (best - wanted).T).square().mean())
    assert after < before and after < 1.1 * least


def test_levels_that_no_weight_takes_are_left_out():
    layer, wanted, x = problem(4, zero_code=1)
    codes = layer.indices.clamp(min=2)
    layer = QuantizedLayer("x", 2, layer.codebook, codes, 1)
    found = fit_levels(layer, wanted, x.T @ x)
    assert len(found.codebook) == 3 and found.codebook[found.zero_code] == 0
    assert not bool((found.indices == found.zero_code).any())


def test_inputs_that_are_always_zero_leave_the_levels():
    layer, wanted, _ = problem(3)
    found = fit_levels(layer, wanted, torch.zeros(30, 30))
    assert torch.equal(found.weight(), layer.weight())


def test_a_layer_of_zeros_stays():
    layer = QuantizedLayer("x", 2, torch.zeros(1), torch.zeros(2, 3, dtype=torch.uint8), 0)
    found = fit_levels(layer, torch.ones(2, 3), torch.eye(3))
    assert found.codebook.tolist() == [0] and found.zero_code == 0
