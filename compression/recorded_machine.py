"""In words, the machine that a recorded result was made on (`hardware.machine_record` wrote it).

Needs no torch, so that the page can say it at once.
"""

from collections.abc import Mapping
from typing import Any


def machine_text(machine: Mapping[str, Any]) -> str:
    """`AMD EPYC, 2 threads`, or the GPU's name where the result was computed on one."""
    device = str(machine.get("device", "cpu"))
    processor = f"{machine['processor']}, {machine['threads']} threads"
    return processor if device == "cpu" else f"{device} ({processor})"
