"""Levels that count bits, against every choice of levels on few values, and against k-means."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.entropy_codebook import Rule, cheapest_rule, entropy_codebook
from compression.inputs import InputError
from compression.kmeans import kmeans_1d


def cost_of(values, levels, codes, price, zeros=0):
    """Squared error + price * bits at the codes' own shares, zeros among the zero's."""
    error = float((values.double() - levels.double()[codes]).square().sum())
    counts = torch.bincount(codes, minlength=len(levels)).double()
    counts[levels == 0] += zeros
    counts = counts[counts > 0]
    return error - price * float((counts * (counts / counts.sum()).log2()).sum())


@given(
    st.lists(st.integers(-8, 8), min_size=2, max_size=6, unique=True),
    st.lists(st.floats(0, 20), min_size=6, max_size=6),
)
@settings(max_examples=200, deadline=None)
def test_the_rule_takes_the_cheapest_level(levels, costs):
    levels = torch.tensor(sorted(levels), dtype=torch.float32)
    costs = torch.tensor(costs[: len(levels)], dtype=torch.float64)
    values = torch.linspace(-12, 12, 481)
    each = (values.double()[:, None] - levels.double()) ** 2 + costs
    taken = each.gather(1, cheapest_rule(levels, costs)(values)[:, None]).squeeze(1)
    assert torch.allclose(taken, each.min(1).values, atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 5, 17, 40])
def test_many_values_get_the_codes_of_few(count):
    """However they are looked up; values that lie on a threshold, too."""
    levels = torch.linspace(-2, 2, count) + 0.125
    rule = cheapest_rule(levels, torch.rand(count, generator=torch.Generator().manual_seed(0)) / 9)
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(1)).double()
    values = torch.cat([values, rule.thresholds, levels.double()])
    assert torch.equal(rule(values), torch.cat([rule(part) for part in values.split(1000)]))


def test_values_beside_a_threshold_get_the_same_code_one_by_one():
    """Thresholds in float64 between two neighbours of float32, and on one of them."""
    near = torch.tensor([-1.5, 0.25, 1.5])
    above = torch.nextafter(near, torch.tensor(9.0))
    thresholds = torch.stack((near.double(), (near.double() + above.double()) / 2), 1)
    values = torch.stack((torch.nextafter(near, torch.tensor(-9.0)), near, above), 1).flatten()
    for each in thresholds.T.contiguous():
        rule = Rule(torch.arange(4), each)
        expected = (values.double()[:, None] > each).sum(1)
        many = values.repeat(2**12)
        assert torch.equal(rule.places(values), expected)
        assert torch.equal(rule.places(many), expected.repeat(2**12))
        assert torch.equal(rule.places(many.double()), expected.repeat(2**12))
        for place in range(4):
            others = rule.others(many, place)
            assert torch.equal(others, (expected.repeat(2**12) != place).nonzero().flatten())


def test_without_costs_the_rule_is_the_nearest_and_ties_go_down():
    rule = cheapest_rule(torch.tensor([-1.0, 0.0, 2.0]))
    assert rule(torch.tensor([-0.5, -0.4, 1.0, 1.1, 9.0])).tolist() == [0, 1, 1, 2, 2]


def best_by_hand(values, price):
    """The least cost of all partitions of the ordered values; one cell's level may be zero."""
    ordered = values.sort().values
    n, best = len(ordered), math.inf
    for count in range(1, n + 1):
        for cuts in itertools.combinations(range(1, n), count - 1):
            cells = [ordered[a:b] for a, b in itertools.pairwise((0, *cuts, n))]
            for zero in range(-1, count):
                levels = torch.stack([cell.double().mean() for cell in cells])
                if zero >= 0:
                    levels[zero] = 0
                codes = torch.cat([torch.full((len(cell),), k) for k, cell in enumerate(cells)])
                best = min(best, cost_of(ordered, levels, codes, price))
    return best


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("price", [0.003, 0.03, 0.3])
def test_few_values_cost_hardly_more_than_the_best_of_all_partitions(seed, price):
    values = torch.randn(9, generator=torch.Generator().manual_seed(seed))
    book = entropy_codebook(values, price)
    found = cost_of(values, book.levels, book.rule(values), price)
    best = best_by_hand(values, price)
    assert best - 1e-9 <= found <= 1.35 * best  # few values have many local optima


@pytest.mark.parametrize("price", [1e-4, 1e-3, 1e-2, 1e-1, 1.0])
@pytest.mark.parametrize(
    ("shape", "above"),
    [("normal", 1.002), ("laplace", 1.002), ("uniform", 1.05)],  # its edges make local optima
)
def test_many_values_cost_less_than_by_k_means_of_any_width(price, shape, above):
    torch.manual_seed(1)
    noise = torch.rand(20_000) - 0.5
    values = {
        "normal": torch.randn(20_000),
        "laplace": -noise.sign() * torch.log1p(-2 * noise.abs()),
        "uniform": 4 * noise,
    }[shape]
    book = entropy_codebook(values, price)
    found = cost_of(values, book.levels, book.rule(values), price)
    for k in (1, 2, 3, 4, 6, 8, 16, 32, 64, 128, 255):
        assert found <= above * cost_of(values, *kmeans_1d(values, k), price)


def test_a_normal_distributions_bits_are_near_what_theory_allows():
    """At high rates entropy-coded scalars lie 0.2546 bits above Shannon's bound (Gish 1968)."""
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(2))
    book = entropy_codebook(values, 1e-3)
    codes = book.rule(values)
    error = float((values - book.levels[codes]).square().mean())
    share = torch.bincount(codes).double() / len(codes)
    bits = -float((share[share > 0] * share[share > 0].log2()).sum())
    assert bits + 0.5 * math.log2(error) == pytest.approx(
        0.5 * math.log2(2 * math.pi * math.e / 12), abs=0.01
    )


def test_dearer_bits_give_fewer_levels_and_more_zeros():
    values = torch.randn(5000, generator=torch.Generator().manual_seed(3))
    books = [entropy_codebook(values, price) for price in (1e-3, 1e-2, 1e-1, 1, 1e3)]
    zeros = [float((book.rule(values) == book.zero_code).float().mean()) for book in books]
    assert zeros == sorted(zeros) and zeros[-1] == 1.0
    levels = [len(book.levels) for book in books]
    assert levels == sorted(levels, reverse=True) and levels[-1] == 1


def test_pruned_zeros_make_the_code_of_zero_cheaper():
    values = torch.randn(5000, generator=torch.Generator().manual_seed(4))
    alone, beside = entropy_codebook(values, 0.05), entropy_codebook(values, 0.05, zeros=50_000)
    taken = [float((b.rule(values) == b.zero_code).float().mean()) for b in (alone, beside)]
    assert taken[0] < taken[1]


@pytest.mark.parametrize(
    "values", [[0.0], [0.0] * 5, [3.0], [-1e-30, 1e-30], [1e30, -1e30], [5.0] * 4 + [-5.0], []]
)
@pytest.mark.parametrize("price", [1e-20, 1.0, 1e20])
def test_odd_values_have_levels_and_an_exact_zero(values, price):
    values = torch.tensor(values)
    book = entropy_codebook(values, price)
    assert book.levels[book.zero_code] == 0
    assert (book.levels[1:] > book.levels[:-1]).all()
    assert len(book.levels) <= 255
    assert (book.rule(values) < len(book.levels)).all()


def test_bad_prices_and_values_are_said():
    with pytest.raises(InputError, match="price must be a number from 1e-30"):
        entropy_codebook(torch.ones(3), 0)
    with pytest.raises(InputError, match="values must be finite, got 1 of 1 that are not"):
        entropy_codebook(torch.tensor([float("nan")]), 1)


@pytest.mark.parametrize("n", [300, 5000])
@pytest.mark.parametrize("price", [1e-3, 1e-2, 1e-1])
def test_where_a_level_takes_bits_there_are_fewer_and_all_costs_less(n, price):
    values = torch.randn(n, generator=torch.Generator().manual_seed(5))
    books = [entropy_codebook(values, price, level_bits=bits) for bits in (0, 48)]
    free, charged = (
        cost_of(values, book.levels, book.rule(values), price) + 48 * price * len(book.levels)
        for book in books
    )
    assert len(books[1].levels) < len(books[0].levels)
    assert charged < free


def test_levels_so_dear_that_none_pays_leave_the_zero_alone():
    book = entropy_codebook(torch.randn(50), 1e-3, level_bits=1e6)
    assert book.levels.tolist() == [0.0]
