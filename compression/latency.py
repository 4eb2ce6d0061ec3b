"""Latency of several models, measured so that a drift of the machine hits all of them alike.

One round times every model once, one after the other (A B C, A B C, ...); median and p10 to p90
are over the rounds. Each model runs as it would be deployed: batch norm folded, channels-last,
float32. Left out: the time to load or normalize images.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compression.inference import device_of, fold_batch_norm
from compression.inputs import InputError, whole

_IMAGE = (3, 32, 32)


@dataclass(frozen=True)
class Latency:
    """Milliseconds that one batch of `batch_size` images takes: median and 10th, 90th percentile.

    repeats: over how many timed rounds; threads: torch's threads on the CPU; device: its type.
    """

    batch_size: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    repeats: int
    threads: int
    device: str


@dataclass(frozen=True)
class LatencyRound:
    """fraction: of all images that has been answered; latencies: of the batch sizes that are done,
    so all of them at the last round."""

    fraction: float
    latencies: dict[str, tuple[Latency, ...]]


def measure_latency(
    models: Mapping[str, nn.Module],
    *,
    batch_sizes: tuple[int, ...] = (1, 256),
    repeats: int = 15,
    warmup: int = 3,
    threads: int | None = None,
) -> dict[str, tuple[Latency, ...]]:
    """Name -> one Latency for each batch size, the variants timed in turn after `warmup` rounds.

    threads: how many torch may use on the CPU while measuring (default: as it is set). Raises
    InputError for no models, no batch sizes, or numbers out of range.
    """
    *_, last = measure_latency_by_round(
        models, batch_sizes=batch_sizes, repeats=repeats, warmup=warmup, threads=threads
    )
    return last.latencies


def measure_latency_by_round(
    models: Mapping[str, nn.Module],
    *,
    batch_sizes: tuple[int, ...] = (1, 256),
    repeats: int = 15,
    warmup: int = 3,
    threads: int | None = None,
) -> Iterator[LatencyRound]:
    """`measure_latency` with a result after every round, the last one with the latencies."""
    if not models:
        raise InputError("models must name at least one model, got none.")
    if not batch_sizes:
        raise InputError("batch_sizes must hold at least one batch size, got none.")
    sizes = [whole("batch size", size, 1, 4096, "images") for size in batch_sizes]
    repeats = whole("repeats", repeats, 1, 10_000)
    warmup = whole("warmup", warmup, 0, 10_000)
    if threads is not None:
        threads = whole("threads", threads, 1, 1024)
    ready = {name: fold_batch_norm(model) for name, model in models.items()}
    images, rounds = 0, warmup + repeats
    found: dict[str, tuple[Latency, ...]] = dict.fromkeys(ready, ())
    for size in sizes:
        noise = torch.randn(size, *_IMAGE, generator=torch.Generator().manual_seed(0))
        inputs = {
            name: noise.to(device_of(model), memory_format=torch.channels_last)
            for name, model in ready.items()
        }
        times: dict[str, list[float]] = {name: [] for name in ready}
        for turn in range(rounds):
            # Set for a round alone: between two of them whoever asked goes on.
            with _thread_count(threads), torch.inference_mode():
                for name, model in ready.items():
                    elapsed = _milliseconds(model, inputs[name])
                    if turn >= warmup:
                        times[name].append(elapsed)
                if turn == rounds - 1:
                    for name, model in ready.items():
                        found[name] += (_summary(size, times[name], device_of(model).type),)
            images += size
            yield LatencyRound(images / (rounds * sum(sizes)), dict(found))


def _milliseconds(model: nn.Module, batch: Tensor) -> float:
    _synchronize(batch.device)
    started = time.perf_counter()
    model(batch)
    _synchronize(batch.device)
    return 1000 * (time.perf_counter() - started)


def _synchronize(device: torch.device) -> None:
    """Wait for what the device was given to do; a CPU has done it already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _summary(size: int, times_ms: list[float], device: str) -> Latency:
    low, median, high = torch.tensor(times_ms, dtype=torch.float64).quantile(
        torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    )
    return Latency(
        size,
        median.item(),
        low.item(),
        high.item(),
        len(times_ms),
        torch.get_num_threads(),
        device,
    )


@contextmanager
def _thread_count(threads: int | None) -> Iterator[None]:
    """torch's number of threads set to `threads` inside, and put back after."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
