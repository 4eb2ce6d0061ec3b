"""Measure the benchmarks: `python -m benchmarks`, one of them with `--only NAME`.

A full run takes about twenty minutes on two cores; leave the machine alone meanwhile. It
writes benchmarks/results.json, the tables of benchmarks/README.md and benchmarks/growth.png.
"""

import argparse
import importlib
import os
import sys

NAMES = ("scan", "kmeans", "gridmask", "evaluation", "training", "page", "codebooks")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; 1 where a subject failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=NAMES, help="this subject alone")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to see that all works; kept apart"
    )
    parser.add_argument("--threads", type=int, default=2, help="for us and the peers (default 2)")
    parser.add_argument("--tables", action="store_true", help="only write the README's tables anew")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    # Before torch, NumPy or scikit-learn are loaded, here and in the processes that are started.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(options.threads)))
    suite = importlib.import_module("benchmarks.suite")
    if options.tables:
        suite.write_tables()
        return 0
    names = [options.only] if options.only else NAMES
    return 0 if suite.run(names, quick=options.quick, threads=options.threads) else 1


if __name__ == "__main__":
    sys.exit(main())
