"""The rows of a reproduction as a table, beside the course report's numbers.

Needs no torch, so that a recorded reproduction can be shown at once.
"""

from typing import Any

from compression.recorded_machine import machine_text

# What the course report (T2G3) states, by the row that is its counterpart here: accuracy on its
# test set, and its size in MiB where it gives one (both sizes by its own formulas).
REPORT: dict[str, tuple[float, float | None, str]] = {
    "dense": (0.7444, None, "with GridMask"),
    "pruned, fine-tuned": (0.7265, 12.88, "5 epochs"),
    "pruned, 8 bits": (0.6933, 29.03, "all parameters counted at 8 bits"),
    "pruned, 8 bits, trained": (0.7333, 29.03, "1 epoch, from the row without training"),
}
NOTE = (
    "The report's network is another, of 533 million MACs and some 116 MiB in float32; what it "
    "prunes and quantizes is its model trained with GridMask."
)


def markdown(content: dict[str, Any]) -> str:
    """The rows as a Markdown table, beside the course report's numbers where it has them."""
    config = content["config"]
    images = content.get("images", {}).get("train", config["train_images"])
    lasted = f", in {content['seconds'] / 60:.1f} minutes" if "seconds" in content else ""
    records = [content["machine"], *(row["machine"] for row in content["rows"] if "machine" in row)]
    machines = "; ".join(dict.fromkeys(map(machine_text, records)))
    commits = " and ".join(dict.fromkeys(record["commit"] for record in records))
    lines = [
        f"By `{content['command']}`, on {machines}{lasted}, at commit {commits}: "
        f"{'; '.join([config['preset'], f'{images:,} training images', *_settings(config)])}.",
        "",
        "| Variant | Test accuracy | On disk | Smaller than dense float32 | Course report |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in content["rows"]:
        model, _, stage = row["variant"].partition(", ")
        counterpart = "gridmask" if stage == "dense" else config["compress"]
        theirs = _theirs(stage) if model == counterpart else ""
        shown = row["variant"]
        if _kept_start(row, content["rows"]):
            shown += " (no epoch was better than the start)"
        lines.append(
            f"| {shown} | {row['accuracy']:.2%} | {row['packed_bytes'] / 1024:,.1f} KiB | "
            f"{row['dense_bytes'] / row['packed_bytes']:.1f} x | {theirs} |"
        )
    return "\n".join([*lines, *(["", NOTE] if config.get("prune", True) else [])]) + "\n"


def _kept_start(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Whether training kept the start: the row answers to the last digit as what it began at."""
    name, comma, way = row["variant"].rpartition(", ")
    began = [f"{name}, {how}" for how in ("compensated", "recalibrated")] if comma else []
    found = [each for start in began for each in rows if each["variant"] == start]
    trained = way in ("trained", "codes trained")
    return trained and bool(found) and all(row[k] == found[0][k] for k in ("accuracy", "loss"))


def _settings(config: dict[str, Any]) -> list[str]:
    """What the config has done, in words; what it leaves out is not named."""
    pruned = config.get("prune", True)
    of = [
        ("fine-tuning", config["fine_tune_epochs"] if pruned else 0),
        ("centroids", config["centroid_epochs"]),
        ("weights that may change centroid", config.get("code_epochs", 0)),
    ]
    epochs = ", ".join(f"{count} of {what}" for what, count in of if count)
    teacher = ", by distillation" if config["distil"] else ""
    images, edges = config.get("compensation_images", 0), config.get("first_last_bits", 0)
    recipes = [each for cycles in config["models"].values() for each in cycles if "/" not in each]
    return [
        *([f"models trained by {', '.join(recipes)}"] if recipes else []),
        *(["not pruned"] if not pruned else []),
        *([f"epochs: {epochs}{teacher}"] if epochs else []),
        *([f"compensation on {images:,} images"] if images else []),
        *([f"first and last layer at {edges} bits"] if edges else []),
    ]


def _theirs(stage: str) -> str:
    if stage not in REPORT:
        return ""
    accuracy, mib, note = REPORT[stage]
    return f"{accuracy:.2%}" + (f", {mib:.2f} MiB" if mib else "") + f" ({note})"
