"""Runs the subjects one after the other, and keeps what each finds as soon as it is done."""

import importlib
import os
import time
from collections.abc import Sequence

import torch

from benchmarks import plot, results, tables
from benchmarks.limits import Rates, measured_rates
from benchmarks.pairs import say
from benchmarks.results import Row, Section
from compression.hardware import machine_record


def run(names: Sequence[str], *, quick: bool, threads: int) -> bool:
    """Measure the subjects, print and save them; whether all of them ran to their end.

    A full run goes into results.json, README.md and growth.png, beside what other subjects left
    there; a quick one into last.json and last.png. A subject that fails is told and left out.
    """
    torch.set_num_threads(threads)
    path = results.QUICK_RESULTS if quick else results.RESULTS
    rates = measured_rates(0.2 if quick else 1.0)
    say(f"This machine, {threads} threads: {rates.text()}")
    failed = []
    for name in names:
        section = _measured(name, quick, rates, _command(name, names, quick))
        if section is None:
            failed.append(name)
            continue
        results.save(path, results.load(path) | {name: section})
        if not quick:
            write_tables()
    _draw(quick)
    return not failed


def write_tables() -> None:
    """The README's tables anew from results.json."""
    sections = results.load(results.RESULTS)
    tables.README.write_text(tables.with_tables(tables.README.read_text(), sections))


def _command(name: str, names: Sequence[str], quick: bool) -> str:
    only = f" --only {name}" if len(names) == 1 else ""
    return f"python -m benchmarks{only}" + (" --quick" if quick else "")


def _measured(name: str, quick: bool, rates: Rates, command: str) -> Section | None:
    """One subject's rows with what measured them; None, and a line, where it fails."""
    say(f"{tables.TITLES[name]} ...")
    machine = machine_record() | {"load": os.getloadavg()[0]}
    started, rows = time.perf_counter(), list[Row]()
    try:
        for row in importlib.import_module(f"benchmarks.{name}").run(quick, rates):
            print(tables.plain_text(row), flush=True)
            rows.append(row)
    except Exception as error:  # the other subjects are to be measured all the same
        say(f"{name} failed after {time.perf_counter() - started:.0f} s: {error!r}")
        return None
    say(f"{tables.TITLES[name]}: {time.perf_counter() - started:.0f} s")
    told = {"text": rates.text(), "float32_flops": rates.float32_flops}
    told |= {"bfloat16_flops": rates.bfloat16_flops, "copy_bytes": rates.copy_bytes}
    return Section(tuple(rows), command, machine, results.package_versions(), told)


def _draw(quick: bool) -> None:
    """The plot of what is saved, where there is a browser to draw it in."""
    panels = plot.growths(results.load(results.QUICK_RESULTS if quick else results.RESULTS))
    if not panels:
        return
    try:
        plot.draw(panels, plot.QUICK_PICTURE if quick else plot.PICTURE)
    except RuntimeError as error:
        say(f"The plot was left as it is: {error}")
