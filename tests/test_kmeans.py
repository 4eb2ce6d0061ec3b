"""k-means on a line against brute force, an independent dynamic program, and worked values."""

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.inputs import InputError
from compression.kmeans import _lloyd, _thresholds, kmeans_1d, squared_error
from tests.kmeans_draws import KINDS, Values, draw, optimum


def error_of(values: Values, k: int) -> float:
    return squared_error(values, *kmeans_1d(values, k))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "k"), [(1200, 4), (1200, 8), (1200, 16), (1200, 64), (500, 256)])
def test_error_is_within_a_thousandth_of_the_optimum(kind: str, n: int, k: int) -> None:
    best = optimum(kind, n, 64 if k <= 64 else k)[k] if _distinct(kind, n) > k else 0.0
    assert error_of(draw(kind, n), k) <= 1.001 * best


def _distinct(kind: str, n: int) -> int:
    return len(np.unique(draw(kind, n)))


def test_the_oracle_itself_on_a_worked_example() -> None:
    values = draw("few distinct", 9)
    for k in (1, 2, 3):
        assert optimum("few distinct", 9, 3)[k] == pytest.approx(_brute_force(values, k), rel=1e-6)


def _brute_force(values: Values, k: int) -> float:
    """The least squared error over every way of cutting the sorted values into at most k runs."""
    x = np.sort(values).astype(np.float64)
    sizes = range(min(k, len(x)))
    cuts = itertools.chain.from_iterable(
        itertools.combinations(range(1, len(x)), size) for size in sizes
    )
    return min(
        sum(float(np.sum((part - part.mean()) ** 2)) for part in np.split(x, list(cut)))
        for cut in cuts
    )


@settings(deadline=None, max_examples=100)
@given(
    numbers=st.lists(st.integers(-40, 40).map(lambda i: i / 4), min_size=1, max_size=8),
    k=st.integers(1, 5),
)
def test_tiny_inputs_match_brute_force(numbers: list[float], k: int) -> None:
    values = np.array(numbers, np.float32)
    assert error_of(values, k) == pytest.approx(_brute_force(values, k), rel=1e-6, abs=1e-10)


@settings(deadline=None, max_examples=100)
@given(
    numbers=st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60
    ),
    k=st.integers(1, 20),
)
def test_properties_of_any_finite_input(numbers: list[float], k: int) -> None:
    values = np.array(numbers, np.float32)
    centroids, labels = kmeans_1d(values, k)
    assert centroids.dtype == np.float32 and labels.dtype == np.int64
    assert len(centroids) == min(k, len(np.unique(values)))
    assert np.all(np.diff(centroids.astype(np.float64)) > 0)
    distances = np.abs(values.astype(np.float64)[:, None] - centroids.astype(np.float64))
    assert np.array_equal(labels, np.argmin(distances, axis=1))  # the lower one of two as near
    assert np.array_equal(np.unique(labels), np.arange(len(centroids)))


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_the_nearest_centroids(kind: str) -> None:
    values = draw(kind, 20_000)
    centroids, labels = kmeans_1d(values, 256)
    assert np.all(np.diff(centroids) > 0)
    exact = centroids.astype(np.float64)
    for start in range(0, len(values), 5000):
        part = values[start : start + 5000].astype(np.float64)
        nearest = np.argmin(np.abs(part[:, None] - exact), axis=1)
        assert np.array_equal(labels[start : start + 5000], nearest)


def test_a_worked_example() -> None:
    values = np.array([5.0, 1.0, 2.0, 9.0, 10.0, 1.5], np.float32)
    centroids, labels = kmeans_1d(values, 3)
    assert centroids.tolist() == [1.5, 5.0, 9.5]
    assert labels.tolist() == [1, 0, 0, 2, 2, 0]
    assert squared_error(values, centroids, labels) == 1.0


def test_a_value_in_the_middle_goes_to_the_lower_centroid() -> None:
    # In units of float32 above 1 the midpoints are 1.5, which rounds up to 2, and 4.
    centroids = np.array([1, 2, 6], np.float32) * np.float32(2**-23) + np.float32(1)
    assert ((_thresholds(centroids) - 1) * 2**23).tolist() == [1, 4]


def test_many_clusters_of_evenly_spaced_values_hold_three_each() -> None:
    values = np.arange(3 * 2048, dtype=np.float32)
    centroids, labels = kmeans_1d(values, 2048)
    assert np.array_equal(centroids, 3 * np.arange(2048) + 1)
    assert np.array_equal(labels, np.repeat(np.arange(2048), 3))


def test_constant_values_have_one_centroid_without_error() -> None:
    values = np.full(1000, 0.1, np.float32)
    for k in (1, 2, 256):
        centroids, labels = kmeans_1d(values, k)
        assert centroids.tolist() == [np.float32(0.1)]
        assert not labels.any()


def test_each_of_few_distinct_values_is_its_own_centroid() -> None:
    values = np.repeat(np.array([3.0, -1e30, 1e-45, 7.5], np.float32), 1000)
    for k in (4, 5, 65536):
        centroids, labels = kmeans_1d(values, k)
        assert np.array_equal(centroids, np.unique(values))
        assert squared_error(values, centroids, labels) == 0.0


def test_a_centroid_at_zero_is_never_minus_zero() -> None:
    for k in (1, 2):
        centroids, _ = kmeans_1d(np.array([-0.0, 0.0, -0.0], np.float32), k)
        assert centroids.tolist() == [0.0] and not np.signbit(centroids).any()


def test_one_cluster_is_the_mean() -> None:
    values = draw("lognormal", 5000)
    centroids, labels = kmeans_1d(values, 1)
    assert centroids[0] == np.float32(values.astype(np.float64).mean())
    assert not labels.any()


def test_same_bits_again_in_another_order_and_with_other_thread_counts() -> None:
    values = draw("student 3", 100_000)
    first, labels = kmeans_1d(values, 256)
    order = np.random.default_rng(1).permutation(len(values))
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            again, permuted = kmeans_1d(values[order], 256)
            assert again.tobytes() == first.tobytes()
            assert np.array_equal(permuted, labels[order])
    finally:
        torch.set_num_threads(threads)


def test_values_are_left_as_they_were() -> None:
    values = draw("gaussian", 3000)
    before = values.copy()
    kmeans_1d(values, 16)
    kmeans_1d(torch.from_numpy(values), 16)
    assert np.array_equal(values, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_any_float_dtype(dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(draw("gaussian", 3000)).to(dtype).requires_grad_()
    centroids, labels = kmeans_1d(tensor, 16)
    assert (centroids.dtype, labels.dtype) == (torch.float32, torch.int64)
    expected = kmeans_1d(tensor.detach().float().numpy(), 16)
    assert np.array_equal(centroids.numpy(), expected[0])
    assert np.array_equal(labels.numpy(), expected[1])
    error = squared_error(tensor, centroids, labels)
    apart = tensor.detach().double() - centroids.double()[labels]
    assert error == pytest.approx(float((apart * apart).sum()), rel=1e-12)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_arrays_of_any_float_dtype_strided_and_read_only(dtype: str) -> None:
    values = draw("gaussian", 6000).astype(dtype)[::2]
    values.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        centroids, labels = kmeans_1d(values, 16)
    expected = kmeans_1d(np.ascontiguousarray(values, np.float32), 16)
    assert np.array_equal(centroids, expected[0]) and np.array_equal(labels, expected[1])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, 2.0], r"values must be a one-dimensional float tensor or array, got \[1.0, 2.0\]"),
        (np.arange(4), r"values must be .* float tensor or array, got shape \(4,\) of int64"),
        (torch.arange(4), r"values must be .*, got shape \(4,\) of torch.int64"),
        (torch.zeros(2, dtype=torch.complex64), r"values must be .* of torch.complex64"),
        (torch.zeros(2, 3), r"values must be .*, got shape \(2, 3\) of torch.float32"),
        (np.zeros(()), r"values must be .*, got shape \(\) of float64"),
        (np.zeros(0), "values must hold at least one number, got an empty array"),
        (torch.zeros(0), "values must hold at least one number, got an empty array"),
        (np.array([1, np.nan, 2]), "values must be finite in float32, got 1 of 3 NaN, infinite"),
        (torch.tensor([np.inf, -np.inf]), "values must be finite in float32, got 2 of 2 NaN"),
        (np.array([1e39]), "values must be finite in float32, got 1 of 1 .* or too large"),
    ],
)
def test_unusable_values_are_refused(values: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        kmeans_1d(values, 2)


@pytest.mark.parametrize("k", [0, -1, 65537, 2.5, float("nan"), "4", None, True])
def test_an_unusable_k_is_refused(k: Any) -> None:
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 65536, got "):
        kmeans_1d(np.ones(3), k)


def test_squared_error_wants_one_label_for_each_value() -> None:
    with pytest.raises(InputError, match=r"labels must have shape \(3,\), as values, got \(2,\)"):
        squared_error(np.ones(3), np.ones(1), np.zeros(2, np.int64))


def test_squared_error_of_more_values_than_fit_one_chunk() -> None:
    values = np.full(3_000_000, 3.0, np.float32)
    labels = np.zeros(len(values), np.int64)
    assert squared_error(values, np.ones(1, np.float32), labels) == 12_000_000.0


def test_a_cluster_that_lloyd_empties_is_given_work_elsewhere() -> None:
    # The middle cluster {0, 10} has mean 5; its values are nearer to -1 and to 11.
    ordered = np.array([-1] * 50 + [0, 10] + [11] * 50, np.float32)
    centroids = _lloyd(ordered, np.array([0, 50, 52]))
    assert centroids.tolist() == [-1, 0, pytest.approx(560 / 51)]
