"""Run the benchmarks: `python -m benchmarks`, or `python -m benchmarks --only NAME`.

Each benchmark is a module of this package with a `run()` that returns plain data. The answers are
printed, and written as JSON with the machine that gave them.
"""

import argparse
import importlib
import json
from pathlib import Path

from compression.hardware import machine_record

NAMES = ("kmeans",)


def main() -> None:
    """Run what was asked for, print it and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=NAMES, help="this one alone")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/last.json"))
    options = parser.parse_args()
    found = {}
    for name in [options.only] if options.only else NAMES:
        found[name] = importlib.import_module(f"benchmarks.{name}").run()
        print(json.dumps({name: found[name]}, indent=1))
    options.out.write_text(json.dumps({"machine": machine_record(), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
