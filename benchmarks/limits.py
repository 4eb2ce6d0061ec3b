"""What this machine can do at best, measured in the same run, and how much arithmetic a network is.

A limit is arithmetic over the measured rate of large matrix products, or bytes over the measured
rate of large copies: a program of that arithmetic or traffic comes near it and, since the rates
are measurements too, passes it by a few percent at most. One that computes less, as a scan that
leaves out what is settled, can be far below it.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import nn

from compression.hardware import has_bfloat16
from compression.resnet9 import ResNet9, prunable_layers

_COPY_BYTES = 2**27  # larger than a processor's cache


@dataclass(frozen=True)
class Rates:
    """Peak rates of torch on its threads: arithmetic a second (a product and a sum count as two),
    and bytes a second that a copy reads and writes. bfloat16 is None where the hardware lacks it.
    """

    float32_flops: float
    bfloat16_flops: float | None
    copy_bytes: float

    def compute_seconds(self, macs: float, precision: str = "float32") -> float:
        """Seconds for so many multiply-accumulates."""
        rate = self.bfloat16_flops if precision == "bfloat16" else self.float32_flops
        assert rate is not None
        return 2 * macs / rate

    def traffic_seconds(self, bytes_moved: float) -> float:
        """Seconds for so many bytes read and written."""
        return bytes_moved / self.copy_bytes

    def text(self) -> str:
        """The rates in words."""
        parts = [f"{self.float32_flops / 1e9:.0f} GFLOP/s in float32"]
        if self.bfloat16_flops is not None:
            parts.append(f"{self.bfloat16_flops / 1e9:.0f} GFLOP/s in bfloat16")
        return ", ".join([*parts, f"copies at {self.copy_bytes / 1e9:.1f} GB/s"])


def measured_rates(seconds: float = 1.0) -> Rates:
    """The rates on the CPU, the best of what is reached in about `seconds` each."""
    bfloat16 = has_bfloat16(torch.device("cpu"))
    return Rates(
        _matmul_rate(torch.float32, seconds),
        _matmul_rate(torch.bfloat16, seconds) if bfloat16 else None,
        _copy_rate(seconds),
    )


def _matmul_rate(dtype: torch.dtype, seconds: float) -> float:
    best = 0.0
    for side in (512, 1024, 2048):
        a, b, out = (torch.rand(side, side).to(dtype) for _ in range(3))
        fastest = _fastest(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), seconds / 3)
        best = max(best, 2 * side**3 / fastest)
    return best


def _copy_rate(seconds: float) -> float:
    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8)
    target = torch.ones_like(source)
    return 2 * _COPY_BYTES / _fastest(lambda: target.copy_(source), seconds)


def _fastest(run: Callable[[], object], seconds: float) -> float:
    """The shortest of the runs that fit into `seconds`, at least three."""
    times: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < deadline:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


@torch.no_grad()
def layer_macs(model: ResNet9) -> dict[str, int]:
    """Multiply-accumulates of each convolution and linear layer, in order, for one 32x32 image."""
    found: dict[str, int] = {}
    layers = prunable_layers(model)
    hooks = [
        layer.register_forward_hook(_counting_hook(found, name)) for name, layer in layers.items()
    ]
    training = model.training
    model.eval()(torch.zeros(1, 3, 32, 32))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return found


def _counting_hook(found: dict[str, int], name: str) -> Callable[..., None]:
    def count(layer: nn.Module, _: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        found[name] = output[0].numel() * weight[0].numel()

    return count


def scan_macs(model: ResNet9, levels: int, layers: Collection[str]) -> int:
    """A whole scan's multiply-accumulates for one image, with nothing left out but what is in front
    of the pruned layer: the dense model once, and for each point the layers from the pruned on."""
    macs = layer_macs(model)
    from_there_on = dict(
        zip(macs, (sum([*macs.values()][k:]) for k in range(len(macs))), strict=True)
    )
    return sum(macs.values()) + levels * sum(from_there_on[name] for name in layers)
