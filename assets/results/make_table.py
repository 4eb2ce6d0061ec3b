"""Write the README's table of results: `python assets/results/make_table.py`.

Between the two markers in README.md stands what this prints; a test compares them.
"""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from compression.front_records import COMPENSATED, OURS, PRICED, RIVALS, load_front  # noqa: E402
from compression.presets import SHIPPED  # noqa: E402
from compression.recorded_machine import machine_text  # noqa: E402
from compression.reproduction_table import markdown  # noqa: E402
from compression.study_records import load_study, summarize  # noqa: E402
from compression.ui.front_section import remark  # noqa: E402
from compression.ui.recorded import read_metadata, shrink_records, study_file  # noqa: E402
from compression.ui.study_section import NAMES, conclusion  # noqa: E402

WAYS = (PRICED, COMPENSATED, OURS, *RIVALS)
BEGIN, END = "<!-- results -->", "<!-- /results -->"


def table() -> str:
    """The recorded results as Markdown."""
    parts = ["## Results", "", *_checkpoints(), *_packed(), *_fronts()]
    for path in sorted(HERE.glob("reproduce-*.json")):
        parts += ["", markdown(json.loads(path.read_text())).strip()]
    parts += [*_quick(), *_study(), *_fuzzed()]
    return "\n".join(parts)


def _checkpoints() -> list[str]:
    lines = [
        "| Checkpoint | Test accuracy (10,000 images) | 95 % interval | Epochs | Wall time |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in SHIPPED:
        run = read_metadata(name)
        low, high = run["test_interval"]
        lines.append(
            f"| `{name}` | {run['test_accuracy']:.2%} | {low:.2%} to {high:.2%} | "
            f"{len(run['curves'])} | {run['training_seconds'] / 60:.0f} min, "
            f"{machine_text(run['machine'])} |"
        )
    last = (read_metadata(name) for name in SHIPPED)
    asked = (run.get(key) for run in last for key in ("command", "sharded"))
    commands = ", ".join(f"`{command}`" for command in asked if command)
    return [
        *lines,
        "",
        f"Last commands: {commands}, on the full CIFAR-10; the files name all, with the commit of "
        "each: names of checkpoints in a command are those of its commit. "
        "Wall times hold what else the machine did then; they do not tell which recipe is faster.",
    ]


def _packed() -> list[str]:
    records = shrink_records()
    if not records:
        return []
    lines = [
        "",
        "| Packed file | From | On disk | Smaller | Test accuracy | Lost |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, record in records.items():
        result = record["result"]
        lost = 100 * (result["dense_accuracy"] - result["accuracy"])
        lines.append(
            f"| `{name}` | `{record['start']}` | {result['packed_bytes'] / 1024:,.1f} KiB | "
            f"{result['packed_times_smaller']:.1f} x | {result['accuracy']:.2%} | "
            f"{lost:.2f} points of {result['dense_accuracy']:.2%} |"
        )
    commands = "; ".join(
        ", and on from that file by ".join(
            f"`{step['command']}` (on {machine_text(step['machine'])}, at commit "
            f"{step['machine']['commit']}: {accuracy:.2%})"
            for step, accuracy in _cycles(record)
        )
        for record in records.values()
    )
    return [*lines, "", f"By {commands}."]


def _cycles(record: dict[str, Any]) -> list[tuple[dict[str, Any], float]]:
    """The commands that made a packed file, oldest first, each with the accuracy after it."""
    earlier = [(step, step["accuracy"]) for step in record.get("earlier", [])]
    return [*earlier, (record, record["result"]["accuracy"])]


def _fronts() -> list[str]:
    lines = []
    for path in sorted(HERE.glob("front-*.json")):
        points, about = load_front(path)
        lines += [
            "",
            f"By `{about['command']}`, with no weight trained, on {points[0].total:,} test images "
            f"({machine_text(about['machine'])}):",
            "",
            "| Goal | " + " | ".join(WAYS) + f" | {OURS}, predicted |",
            "| --- |" + " --- |" * (len(WAYS) + 1),
        ]
        dense = about["dense_correct"] / points[0].total
        for goal in sorted({point.goal_bytes for point in points if point.goal == "size"}):
            at = {p.way: p for p in points if p.goal == "size" and p.goal_bytes == goal}
            cells = [f"{at[way].accuracy:.2%}" if way in at else "" for way in WAYS]
            foretold = dense - (at[OURS].predicted_drop or 0)
            lines.append(f"| {goal / 1024:,.0f} KiB | {' | '.join(cells)} | {foretold:.2%} |")
        lines += ["", remark(points, about["dense_correct"])]
    return lines


def _quick() -> list[str]:
    """How long the short reproduction takes; its accuracies are of few images and not shown."""
    path = HERE / "quick-reproduction.json"
    if not path.is_file():
        return []
    record = json.loads(path.read_text())
    return [
        "",
        f"Every step of the report in short, by `{record['command']}`: {len(record['rows'])} "
        f"variants in {record['seconds']:.0f} seconds on {machine_text(record['machine'])}.",
    ]


def _study() -> list[str]:
    path = study_file()
    if path is None:
        return []
    runs, about = load_study(path)
    summary = summarize(runs)
    machines = "; ".join(dict.fromkeys(run.machine for run in runs))
    lines = [
        "",
        f"GridMask's worth, by `{about['command']}` on {machines}, on {runs[0].total:,} test "
        "images (mean and standard deviation; times hold what else the machine did then):",
        "",
        "| Training | Test accuracy | Against plain, same seed | Training time, mean |",
        "| --- | --- | --- | --- |",
    ]
    for row in summary:
        apart = f"{100 * row.difference:+.2f} ± {100 * row.difference_spread:.2f} points"
        lines.append(
            f"| {NAMES[row.way]} | {row.mean:.2%} ± {100 * row.spread:.2f} | "
            f"{'' if row.way == 'plain' else apart} | {row.seconds / 60:.1f} min |"
        )
    return [*lines, "", conclusion(summary)]


def _fuzzed() -> list[str]:
    path = HERE / "fuzz-packed.json"
    if not path.is_file():
        return []
    record = json.loads(path.read_text())
    machine, counts = record["machine"], record["libfuzzer"]
    found = "nothing found" if record["status"] == 0 else f"found: {', '.join(record['finds'])}"
    return [
        "",
        f"The packed file's readers, fuzzed by `{record['command']}` (atheris {record['atheris']}, "
        f"{machine_text(machine)}, at commit {machine['commit']}): "
        f"{counts['number_of_executed_units']:,} inputs, each as it was and under a true checksum, "
        f"edges covered from {record['edges_first']} to {record['edges']}, {found}.",
    ]


def with_table(readme: str) -> str:
    """The README's text with the table between its markers."""
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    target = ROOT / "README.md"
    target.write_text(with_table(target.read_text()))
