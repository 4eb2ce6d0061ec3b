"""Masks against hand-worked values, and their exact counts as a property."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.inputs import InputError
from compression.masks import (
    magnitude_mask,
    magnitude_order,
    sparsity_of,
    threshold_of,
    zeros_at,
)

quick = settings(derandomize=True, deadline=None, max_examples=60)
# Few distinct values, both signs and zeros: most draws have ties.
weights = st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("sparsity", "count", "zeros"),
    [(0.0, 7, 0), (1.0, 7, 7), (0.5, 7, 4), (0.5, 5, 2), (0.3, 10, 3), (0.04, 10, 0), (1, 3, 3)],
)
def test_zeros_at_rounds_the_product(sparsity: float, count: int, zeros: int) -> None:
    assert zeros_at(sparsity, count) == zeros  # halves go to the even number, as round() does


@pytest.mark.parametrize("sparsity", [-0.01, 1.01, math.nan, math.inf, "0.5", None, True])
def test_sparsity_out_of_range_is_refused(sparsity: object) -> None:
    with pytest.raises(InputError, match="sparsity must be a number from 0 to 1, got "):
        magnitude_mask(torch.ones(4), sparsity)  # pyright: ignore[reportArgumentType]


def test_mask_by_hand() -> None:
    weight = torch.tensor([[0.3, -0.1], [0.2, -0.4]])
    assert magnitude_order(weight).tolist() == [1, 2, 0, 3]
    assert magnitude_mask(weight, 0.5).tolist() == [[True, False], [False, True]]


def test_ties_go_by_position_and_never_over_prune() -> None:
    weight = torch.tensor([0.5, -0.5, 0.5, -0.5, 0.5])
    assert magnitude_mask(weight, 0.4).tolist() == [False, False, True, True, True]
    assert magnitude_mask(torch.zeros(2, 3), 0.5).tolist() == [[False] * 3, [True] * 3]


@quick
@given(weights, st.floats(0, 1))
def test_mask_prunes_an_exact_count_of_the_smallest(values: list[float], sparsity: float) -> None:
    weight = torch.tensor(values)
    kept = magnitude_mask(weight, sparsity)
    assert (~kept).sum() == round(sparsity * len(values))
    # Independently: Python's stable sort of (magnitude, position).
    order = sorted(range(len(values)), key=lambda i: (abs(values[i]), i))
    pruned = set(order[: round(sparsity * len(values))])
    assert kept.tolist() == [i not in pruned for i in range(len(values))]


@quick
@given(weights, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_sparsity_prunes_a_superset(values: list[float], a: float, b: float) -> None:
    weight = torch.tensor(values)
    more, less = magnitude_mask(weight, max(a, b)), magnitude_mask(weight, min(a, b))
    assert not (more & ~less).any()


def test_mask_follows_row_major_order_whatever_the_memory() -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1)).round()
    apart = weight.to(memory_format=torch.channels_last)
    assert torch.equal(magnitude_mask(weight, 0.5), magnitude_mask(apart, 0.5))


def test_threshold_is_the_largest_pruned_magnitude() -> None:
    weight = torch.tensor([0.25, -0.5, 1.0, -2.0])
    assert threshold_of(weight, magnitude_mask(weight, 0.5)) == 0.5
    assert threshold_of(weight, magnitude_mask(weight, 0.0)) == 0.0


def test_sparsity_counts_exact_zeros() -> None:
    assert sparsity_of(torch.tensor([0.0, -0.0, 1e-30, 3.0])) == 0.5
    assert sparsity_of(torch.zeros(0)) == 1.0
