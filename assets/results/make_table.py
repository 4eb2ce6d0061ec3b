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
from compression.study_records import load_study, minutes, summarize  # noqa: E402
from compression.ui.front_section import remark  # noqa: E402
from compression.ui.recorded import (  # noqa: E402
    read_metadata,
    shrink_records,
    study_file,
    unseen_goals,
)
from compression.ui.study_section import NAMES, against, conclusion  # noqa: E402

WAYS = (PRICED, COMPENSATED, OURS, *RIVALS)
REPRODUCED = (
    "Every row of the report's steps is measured on its packed file, with biases and batch norm in "
    "half precision: a checkpoint's own accuracy above can be an image or two apart. Rows named "
    "compensated are recalibrated too, and rounded anew, not from the row above; trained ones go "
    "on from those."
)
NO_COMMIT = "The record is from before records named the commit of the code."
BEGIN, END = "<!-- results -->", "<!-- /results -->"


def table() -> str:
    """The recorded results as Markdown."""
    parts = ["## Results", "", *_checkpoints(), *_packed(), *_fronts()]
    for path in sorted(HERE.glob("reproduce-*.json")):
        name, content = path.stem.removeprefix("reproduce-"), json.loads(path.read_text())
        parts += ["", f"### The report's steps: {name}", "", markdown(content).strip()]
    parts += ["", REPRODUCED, *_quick(), *_study(), *_fuzzed()]
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
    lines += [
        "",
        "By these commands last, on the full CIFAR-10; the files name all, with their commits:",
        "",
    ]
    for name in SHIPPED:
        run = read_metadata(name)
        asked = [f"`{run[key]}`" for key in ("command", "sharded") if key in run]
        lines.append(f"- `{name}`: {', then '.join(asked)}")
    return [
        *lines,
        "",
        "`resnet9-s` is half as wide as `resnet9`. `baseline` trained without GridMask, `gridmask` "
        "with it; `distilled` went on from that, taught by the answers of several models. A "
        "shipped name in a command means that checkpoint at the command's commit; a later one may "
        "be shipped now. Other files are what commands before wrote: each checkpoint's own file "
        "has all of these commands, and the files between are not kept. Wall times hold what else "
        f"the machine did then; they do not tell which recipe is faster.{_uncommitted()}",
    ]


def _uncommitted() -> str:
    """Which checkpoints have a part that code with changes not yet committed trained."""
    dirty = [f"`{name}`" for name in SHIPPED if "-dirty" in json.dumps(read_metadata(name))]
    return (
        f" Parts of {' and '.join(dirty)} were trained by code with changes that were not yet "
        "committed (its commit, in the file, ends in -dirty)."
        if dirty
        else ""
    )


def _packed() -> list[str]:
    records = shrink_records()
    if not records:
        return []
    lines = [
        "",
        "### Packed files",
        "",
        "| Packed file | From | On disk | Smaller | Test accuracy | Against its own dense model | "
        "Against the best dense model |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, record in records.items():
        result = record["result"]
        lost = 100 * (result["dense_accuracy"] - result["accuracy"])
        lines.append(
            f"| `{name}` | `{record['start']}` | {result['packed_bytes'] / 1024:,.1f} KiB | "
            f"{result['packed_times_smaller']:.1f} x | {result['accuracy']:.2%} | "
            f"{lost:.2f} points (from {result['dense_accuracy']:.2%}) | {_of_best(record)} |"
        )
    made: dict[str, str] = {}  # command -> the line that says what it gave, each once
    chains = []
    for name, record in records.items():
        places = []
        for step, accuracy in _cycles(record):
            on = f"on {machine_text(step['machine'])}, at commit {step['machine']['commit']}"
            text = f"{len(made) + 1}. `{step['command']}`: {accuracy:.2%} ({on})"
            made.setdefault(step["command"], text)
            places.append(str(list(made).index(step["command"]) + 1))
        chains.append(f"`{name}` by {', then '.join(places)}")
    said = (
        f"Each step goes on from the file of the step before: {'; '.join(chains)}. Names in these "
        "commands are of shipped files at their commits."
    )
    return [*lines, "", said, "", *made.values()]


def _of_best(record: dict[str, Any]) -> str:
    """What a packed file loses against the shipped checkpoint of its network that is right most
    often, whichever it was made of."""
    network = record["start"].split("/")[0]
    found = {
        name: read_metadata(name)["test_accuracy"]
        for name in SHIPPED
        if name.split("/")[0] == network
    }
    best = max(found, key=lambda name: found[name])
    return f"{100 * (found[best] - record['result']['accuracy']):.2f} points (`{best}`)"


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
            f"### How small `{about['model']}` gets with no weight trained",
            "",
            f"On {points[0].total:,} test images, of which the dense model has "
            f"{about['dense_correct'] / points[0].total:.2%} right; by `{about['command']}` "
            f"({_where(about)}); each layer's damage was measured by "
            f"`{about['settings']['command']}`:",
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
        lines += ["", remark(points, about["dense_correct"], unseen_goals(about["model"]))]
    return lines


def _where(about: dict[str, Any]) -> str:
    """On what a front was recorded, and by the code of which commits, oldest first."""
    machines = [*about.get("earlier_machines", []), about["machine"]]
    texts = ", then ".join(dict.fromkeys(map(machine_text, machines)))
    commits = [machine["commit"] for machine in machines]
    if not commits[1:]:
        return f"{texts}, at commit {commits[0]}"
    return (
        f"{texts}, at commits {', '.join(commits[:-1])} and {commits[-1]}: what one has measured "
        "the next does not measure again"
    )


def _quick() -> list[str]:
    """How long the short reproduction takes; its accuracies are of few images and not shown."""
    path = HERE / "quick-reproduction.json"
    if not path.is_file():
        return []
    record = json.loads(path.read_text())
    return [
        "",
        f"The report's steps from the scan on, in short, by `{record['command']}`: "
        f"{len(record['rows'])} variants in {record['seconds']:.0f} seconds on "
        f"{machine_text(record['machine'])}.",
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
        "### GridMask's worth",
        "",
        f"By `{about['command']}` on {machines}, on {runs[0].total:,} test images (mean and "
        "standard deviation; 95 % intervals of the differences; times hold what else the machine "
        "did then, so the least of each tells most):",
        "",
        "| Training | Test accuracy | Against plain, same seed | Training time of a run |",
        "| --- | --- | --- | --- |",
    ]
    for row in summary:
        apart = against(row.against(summary[0]))
        lines.append(
            f"| {NAMES[row.way]} | {row.mean:.2%} ± {100 * row.spread:.2f} | "
            f"{'' if row.way == 'plain' else apart} | {minutes(row.seconds)} |"
        )
    commits = dict.fromkeys(run.commit for run in runs)
    told = f"At commit {' and '.join(commits)}." if all(commits) else NO_COMMIT
    return [*lines, "", f"{conclusion(summary, about['config']['epochs'])} {told}"]


def _fuzzed() -> list[str]:
    path = HERE / "fuzz-packed.json"
    if not path.is_file():
        return []
    record = json.loads(path.read_text())
    machine, counts = record["machine"], record["libfuzzer"]
    found = "nothing found" if record["status"] == 0 else f"found: {', '.join(record['finds'])}"
    return [
        "",
        "### The packed file's readers",
        "",
        f"Fuzzed by `{record['command']}` (atheris {record['atheris']}, "
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
