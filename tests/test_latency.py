"""The order and the arithmetic of latency, with a clock that the test turns itself."""

import pytest
import torch
from torch import nn

from compression import latency
from compression.inputs import InputError
from compression.latency import measure_latency, measure_latency_by_round


class Clocked(nn.Module):
    """Each forward pass takes the next of `steps` seconds on a clock of the test."""

    def __init__(self, name: str, steps: list[float], clock: "Clock") -> None:
        super().__init__()
        self.name, self.steps, self.clock = name, steps, clock

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.clock.calls.append((self.name, len(x), torch.get_num_threads()))
        self.clock.now += self.steps.pop(0)
        return x

    def __deepcopy__(self, memo: dict) -> "Clocked":
        return self


class Clock:
    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    return clock


def test_variants_run_in_turn_and_the_warm_up_does_not_count(clock):
    """Rounds of 1 to 5 ms after one warm-up of 9 s: median 3, p10 1.4, p90 4.6."""
    models = {
        name: Clocked(name, [9.0] + [scale * k / 1000 for k in (5, 3, 1, 2, 4)], clock)
        for name, scale in (("a", 1), ("b", 10))
    }
    before = torch.get_num_threads()
    got = measure_latency(models, batch_sizes=(7,), repeats=5, warmup=1, threads=3)
    assert clock.calls == [("a", 7, 3), ("b", 7, 3)] * 6
    assert torch.get_num_threads() == before
    (a,), (b,) = got["a"], got["b"]
    assert (a.median_ms, a.p10_ms, a.p90_ms) == pytest.approx((3.0, 1.4, 4.6))
    assert (b.median_ms, b.p10_ms, b.p90_ms) == pytest.approx((30.0, 14.0, 46.0))
    assert (a.batch_size, a.repeats, a.threads, a.device) == (7, 5, 3, "cpu")


def test_rounds_tell_how_far_it_is_and_set_threads_for_themselves_alone(clock):
    before = torch.get_num_threads()
    models = {"a": Clocked("a", [0.001] * 6, clock)}
    told = []
    for each in measure_latency_by_round(
        models, batch_sizes=(1, 9), repeats=2, warmup=1, threads=before + 1
    ):
        assert torch.get_num_threads() == before and not torch.is_inference_mode_enabled()
        told.append((each.fraction, len(each.latencies["a"])))
    fractions, sizes = zip(*told, strict=True)
    assert fractions == pytest.approx((0.1 / 3, 0.2 / 3, 0.1, 0.4, 0.7, 1))
    assert sizes == (0, 0, 1, 1, 1, 2)  # that are done


def test_threads_are_put_back_when_a_model_fails(clock):
    before = torch.get_num_threads()
    with pytest.raises(IndexError):
        measure_latency({"a": Clocked("a", [], clock)}, threads=before + 1)
    assert torch.get_num_threads() == before


def test_every_batch_size_is_measured_on_a_real_clock():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    got = measure_latency({"tiny": model}, batch_sizes=(1, 8), repeats=3, warmup=1)["tiny"]
    assert [row.batch_size for row in got] == [1, 8]
    assert all(0 < row.p10_ms <= row.median_ms <= row.p90_ms for row in got)
    assert all(row.threads == torch.get_num_threads() for row in got)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": {}}, "models must name at least one model, got none"),
        ({"batch_sizes": ()}, "batch_sizes must hold at least one batch size, got none"),
        ({"batch_sizes": (0,)}, "batch size must be a whole number from 1 to 4096 images, got 0"),
        ({"repeats": 0}, "repeats must be a whole number from 1 to 10000, got 0"),
        ({"warmup": -1}, "warmup must be a whole number from 0 to 10000, got -1"),
        ({"threads": 0}, "threads must be a whole number from 1 to 1024, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    arguments = {"models": {"tiny": nn.Conv2d(3, 4, 3)}, **options}
    with pytest.raises(InputError, match=message):
        measure_latency(arguments.pop("models"), **arguments)
