"""Results of scans by the content of what was scanned, so that no point is computed twice.

The key is a SHA-256 over the model's weights, the images and the labels; nothing in it tells one
visitor from another, so one cache serves all of them. It is bounded: the points unused for longest
go first. Threads may share it.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_CAPACITY = 20_000  # points; each takes some 300 bytes


@dataclass(frozen=True)
class PointKey:
    """One point: content is `content_digest`'s, precision is resolved (never `auto`)."""

    content: str
    precision: str
    exhaustive: bool
    layer: str
    sparsity: float


class ScanCache:
    """Correct answers by PointKey, at most `capacity` of them."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._counts: OrderedDict[PointKey, int] = OrderedDict()
        self._capacity, self._lock = capacity, threading.Lock()

    def __len__(self) -> int:
        return len(self._counts)

    def get(self, key: PointKey) -> int | None:
        """The correct answers at that point, or None where it was never counted."""
        with self._lock:
            if key in self._counts:
                self._counts.move_to_end(key)
            return self._counts.get(key)

    def put(self, key: PointKey, correct: int) -> None:
        """Remember a point; the one unused for longest makes room."""
        with self._lock:
            self._counts[key] = correct
            self._counts.move_to_end(key)
            while len(self._counts) > self._capacity:
                self._counts.popitem(last=False)


def content_digest(model: nn.Module, images: Tensor, labels: Tensor) -> str:
    """SHA-256, in hex, of what a scan's counts depend on: every tensor of the model by name, the
    model's class, the images and the labels, with their shapes and dtypes."""
    return _digest(type(model), {**model.state_dict(), "images": images, "labels": labels})


def weights_digest(model: nn.Module) -> str:
    """SHA-256, in hex, of the model alone: its class and every tensor by name."""
    return _digest(type(model), model.state_dict())


def _digest(kind: type, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(kind.__qualname__.encode())
    for name, tensor in tensors.items():
        digest.update(f"|{name} {tensor.dtype} {tuple(tensor.shape)}|".encode())
        whole = tensor.detach().cpu().contiguous()
        digest.update(whole.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
