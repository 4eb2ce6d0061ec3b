"""Write the README's table of results: `python assets/results/make_table.py`.

Between the two markers in README.md stands what this prints; a test compares them.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from compression.presets import SHIPPED  # noqa: E402
from compression.reproduction import markdown  # noqa: E402
from compression.ui.recorded import read_metadata  # noqa: E402

BEGIN, END = "<!-- results -->", "<!-- /results -->"


def table() -> str:
    """The recorded results as Markdown."""
    parts = ["## Results", "", *_checkpoints()]
    for path in sorted(HERE.glob("reproduce-*.json")):
        parts += ["", markdown(json.loads(path.read_text())).strip()]
    return "\n".join(parts)


def _checkpoints() -> list[str]:
    lines = [
        "| Checkpoint | Test accuracy (10,000 images) | 95 % interval | Epochs | Training |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in SHIPPED:
        run = read_metadata(name)
        low, high = run["test_interval"]
        lines.append(
            f"| `{name}` | {run['test_accuracy']:.2%} | {low:.2%} to {high:.2%} | "
            f"{len(run['curves'])} | {run['training_seconds'] / 60:.0f} min, "
            f"{run['machine']['processor']}, {run['machine']['threads']} threads |"
        )
    commands = ", ".join(f"`{read_metadata(name)['command']}`" for name in SHIPPED)
    return [*lines, "", f"Last commands: {commands}, on the full CIFAR-10; the files name all."]


def with_table(readme: str) -> str:
    """The README's text with the table between its markers."""
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    target = ROOT / "README.md"
    target.write_text(with_table(target.read_text()))
