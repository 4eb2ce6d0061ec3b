"""Call a function in a process of its own, and what such a process tells: its peak memory.

Peak memory is the kernel's own record (VmHWM, which counts what torch, NumPy and C++ take), reset
once the imports and inputs of the work are there; the difference to what was held then is reported.
Without Linux's record, the growth of `ru_maxrss` stands in.
"""

import importlib
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def call(module: str, function: str, *arguments: Any) -> Any:
    """What `module.function(*arguments)` returns in a fresh process; arguments and answer as JSON.

    Raises RuntimeError with the end of its complaint where the process fails.
    """
    command = [sys.executable, "-m", "benchmarks.fresh", module, function, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{module}.{function} ended with {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_mib(module: str, name: str, quick: bool) -> float:
    """MiB held at most beyond imports and inputs by what `module.prepare(name, quick)` returns."""
    return call("benchmarks.fresh", "measured_peak_mib", module, name, quick)


def measured_peak_mib(module: str, name: str, quick: bool) -> float:
    """`peak_mib` in this very process, which ought to be fresh."""
    work = importlib.import_module(module).prepare(name, quick)
    before = status_mib("VmRSS") if _reset_peak() else None
    if before is None:
        start = _greatest_mib()
        work()
        return _greatest_mib() - start
    work()
    after = status_mib("VmHWM")
    assert after is not None
    return max(0.0, after - before)


def status_mib(field: str) -> float | None:
    """A field such as VmRSS or VmHWM of this process in MiB; None where the system has none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) / 1024 if found else None


def _reset_peak() -> bool:
    """Make VmHWM start again from what is held now; whether the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _greatest_mib() -> float:
    """The process's peak since its start: ru_maxrss, which is in KiB, but in bytes on a Mac."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )


if __name__ == "__main__":
    function = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
    print(json.dumps(function(*json.loads(sys.argv[3]))))
