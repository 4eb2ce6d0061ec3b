"""The benchmarks' machinery: works in turn, results that are kept, tables and plots of them.

Nothing is timed here.
"""

import importlib
from dataclasses import replace

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import fresh, limits, pairs, plot, results, suite, tables
from benchmarks.results import Comparison, Figure, Growth, Section, Spread


def test_a_spread_is_median_least_and_greatest():
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)
    assert Spread.of([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)


def test_works_run_in_turn_and_their_share_is_scaled(monkeypatch, capsys):
    ticks = iter(range(0, 1000, 2))  # every look at the clock is 2 s after the last
    monkeypatch.setattr(pairs.time, "perf_counter", lambda: float(next(ticks)))
    calls = []
    works = [
        pairs.Work("a", lambda turn: calls.append(("a", turn))),
        pairs.Work("b", lambda turn: calls.append(("b", turn)), share=0.25),
    ]
    ours, peer = pairs.in_turn(works, 2)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert (ours.seconds, peer.seconds) == ([2.0, 2.0], [8.0, 8.0])
    row = pairs.compared("scan", "work", ours, peer, at_least=5)
    assert (row.ratio, row.holds, row.pairs) == (Spread(4.0, 4.0, 4.0), False, 2)
    assert row.aim == "at least 5 times as fast"
    assert pairs.compared("scan", "work", ours, peer, at_least=4).holds
    assert pairs.compared("scan", "work", ours).peer is None
    assert "round 2 of 2" in capsys.readouterr().err


def test_a_short_work_is_repeated():
    calls = []
    run, count = pairs.often(lambda: calls.append(0), 0.001)
    before = len(calls)
    run(0)
    assert len(calls) - before == count > 1


def rows():
    ours, peer = Spread(0.5, 0.4, 0.6), Spread(5.0, 4.0, 6.0)
    return (
        Comparison(
            "scan", "a scan", "ours", ours, 5, "the loop", peer, Spread(10.0, 9.0, 11.0), 20.0,
            30.0, 0.0002, "arithmetic", "at least 10 times as fast", True, "the same counts",
        ),
        Comparison("scan", "alone", "ours", ours, 5),
        Figure("scan", "a figure", 1.25, "s", "at most 1 s", False, "a note"),
        Figure("scan", "missing", None, "s", note="no Chromium"),
        Growth("scan", "growth", "images", (1.0, 2.0), {"ours": (0.1, 0.2), "the loop": (1.0,)}),
    )  # fmt: skip


@pytest.fixture
def section():
    machine = {"processor": "a processor", "threads": 2, "python": "3.11", "commit": "abc"}
    versions, rates = {"torch": "2"}, {"text": "100 GFLOP/s in float32"}
    return Section(rows(), "python -m benchmarks", machine | {"load": 0.1}, versions, rates)


def test_results_come_back_from_their_file(tmp_path, section):
    path = tmp_path / "results.json"
    assert results.load(path) == {}
    results.save(path, {"scan": section})
    assert results.load(path) == {"scan": section}
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_versions_of_packages_that_are_absent_are_left_out():
    assert set(results.package_versions(["torch", "no-such-package"])) == {"torch"}


def test_a_table_says_what_was_measured(section):
    text = tables.section_text("scan", section)
    assert text.startswith("### Sensitivity scan\n")
    assert (
        "| a scan | ours: 500 ms (400 ms to 600 ms) | the loop: 5 s (4 s to 6 s) | **10** (9 to "
        "11), 5 pairs | 20 MiB, 30 MiB | 200 us | at least 10 times as fast | yes |"
    ) in text
    assert "- a scan, ours and the loop: the same counts.\n- Limit of a scan: arithmetic." in text
    assert "| a figure | 1.25 s | at most 1 s | **no** | a note |" in text
    assert "| missing | not measured |  |  | no Chromium |" in text
    assert "on a processor, 2 threads, Python 3.11, commit abc, load 0.1 before" in text


def test_tables_stand_between_the_markers(section):
    readme = f"before\n{tables.BEGIN}\nlast year\n{tables.END}\nafter\n"
    text = tables.with_tables(readme, {"scan": section})
    assert text.startswith(f"before\n{tables.BEGIN}\n### Sensitivity scan")
    assert text.endswith(f"\n{tables.END}\nafter\n") and "last year" not in text
    assert tables.with_tables(text, {"scan": section}) == text
    assert tables.NOT_YET in tables.with_tables(readme, {})


def test_the_readme_has_the_tables_of_the_recorded_results():
    readme = tables.README.read_text()
    assert tables.with_tables(readme, results.load(results.RESULTS)) == readme


@pytest.mark.parametrize(
    ("seconds", "text"), [(1234.0, "1234 s"), (2.0, "2 s"), (0.0123, "12.3 ms"), (5e-6, "5 us")]
)
def test_times_have_a_unit_that_suits_them(seconds, text):
    assert tables.seconds_text(seconds) == text


def test_every_subject_is_a_module_with_a_title():
    assert set(command.NAMES) == set(tables.TITLES)
    for name in command.NAMES:
        assert callable(importlib.import_module(f"benchmarks.{name}").run)


def test_subjects_are_saved_apart_and_a_failing_one_is_told(monkeypatch, tmp_path, section, capsys):
    monkeypatch.setattr(results, "QUICK_RESULTS", tmp_path / "last.json")
    monkeypatch.setattr(suite, "measured_rates", lambda _: limits.Rates(2e9, None, 1e9))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    drawn = []
    monkeypatch.setattr(suite.plot, "draw", lambda panels, path: drawn.append((panels, path.name)))
    found = {"scan": lambda *_: iter(rows()[:2]), "page": lambda *_: iter([1 / 0])}
    modules = {f"benchmarks.{name}": type("M", (), {"run": staticmethod(run)})
               for name, run in found.items()}  # fmt: skip
    importer = type("I", (), {"import_module": staticmethod(modules.__getitem__)})
    monkeypatch.setattr(suite, "importlib", importer)
    results.save(tmp_path / "last.json", {"kmeans": section})
    assert not suite.run(["scan", "page"], quick=True, threads=1)
    saved = results.load(tmp_path / "last.json")
    assert list(saved) == ["kmeans", "scan"]
    assert saved["scan"].rows == rows()[:2]
    assert saved["scan"].command == "python -m benchmarks --quick"
    assert drawn == [([rows()[-1]], "last.png")]
    assert "page failed after" in capsys.readouterr().err


def test_the_plot_has_a_panel_for_each_growth_and_a_line_may_end_early():
    drawn = plot.figure([rows()[-1], rows()[-1]])
    lines = [
        (line["name"], list(line["x"]), list(line["y"]), line["showlegend"])
        for line in drawn.to_dict()["data"]
    ]
    assert lines[:2] == [("ours", [1, 2], [0.1, 0.2], True), ("the loop", [1], [1.0], True)]
    assert [line[-1] for line in lines[2:]] == [False, False]
    layout = drawn.to_dict()["layout"]
    assert layout["xaxis2"]["title"]["text"] == "images"
    assert layout["xaxis"]["type"] == layout["yaxis2"]["type"] == "log"


def test_a_fresh_process_answers_and_its_failure_is_told():
    assert fresh.call("math", "gcd", 12, 18) == 6
    with pytest.raises(RuntimeError, match=r"math.sqrt ended with (.|\n)*math domain error"):
        fresh.call("math", "sqrt", -1)


def test_peak_memory_counts_what_the_work_takes(monkeypatch, tmp_path):
    source = "def prepare(name, quick):\n    return lambda: bytearray(2**26)"
    (tmp_path / "takes_memory.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert fresh.peak_mib("takes_memory", "name", True) == pytest.approx(64, abs=8)


def test_a_section_can_be_replaced_alone(tmp_path, section):
    path = tmp_path / "results.json"
    results.save(path, {"scan": section, "page": section})
    other = replace(section, command="another")
    results.save(path, results.load(path) | {"scan": other})
    assert results.load(path) == {"scan": other, "page": section}


def test_a_thread_count_below_one_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--threads", "0"])
    assert "--threads must be at least 1, got 0" in capsys.readouterr().err
