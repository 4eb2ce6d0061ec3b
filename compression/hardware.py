"""What this machine offers: the device to compute on, and whether bfloat16 is in its hardware."""

import platform
import subprocess
from pathlib import Path

import torch

from compression.inputs import InputError, choice

PRECISIONS = ("auto", "float32", "bfloat16")


def default_device() -> torch.device:
    """CUDA where it is there, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` computes bfloat16 in hardware; elsewhere it is emulated, and slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast type that `precision` means on `device`; None is plain float32.

    Raises InputError for an unknown precision, and for bfloat16 where the hardware lacks it.
    """
    choice("precision", precision, PRECISIONS)
    if precision == "float32":
        return None
    if has_bfloat16(device):
        return torch.bfloat16
    if precision == "bfloat16":
        raise InputError(
            f"precision bfloat16 must be in the processor's hardware, got {processor_name()} "
            "without it: use auto or float32."
        )
    return None


def processor_name() -> str:
    """The processor's name as the system tells it, for the record of a measurement."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine_record(device: torch.device | None = None) -> dict[str, str | int]:
    """What a recorded result says of the machine that made it, and of the code's commit.

    device: what was computed on, by default where training does.
    """
    device = device or default_device()
    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _commit() -> str:
    """The checkout's commit, with `-dirty` where files differ from it; `unknown` outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"
