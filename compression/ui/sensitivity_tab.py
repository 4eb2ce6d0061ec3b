"""The Sensitivity tab: prune one layer at a time, more and more, and watch the accuracy."""

import csv
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

import compression
from compression.inputs import InputError, choice, real, shown, whole
from compression.presets import layer_names
from compression.ui import html, plots
from compression.ui.explorer import WORK, Explorer
from compression.ui.guard import bound
from compression.ui.recorded import recorded_scan
from compression.ui.session import Session

if TYPE_CHECKING:
    from compression.sensitivity import SensitivityPoint

LEAD = (
    "Some layers bear pruning better than others. The scan takes one layer, sets its smallest "
    "weights to zero, measures the accuracy, puts the weights back, and goes on. A line that stays "
    "high belongs to a layer that can lose much; one that falls early needs care."
)
LEVELS = tuple(range(10, 100, 10))
REDRAW_SECONDS = 0.4
Answer = tuple[Any, Any, Any, Any, Any]


def run_scan(
    explorer: Explorer,
    session: Session,
    layers: Sequence[str],
    levels: Sequence[float],
    count: float,
    precision: str,
    max_drop: float,
) -> Iterator[Answer]:
    """Scan; yields the scan's points so far, status, figure, table and file."""
    model = explorer.variant(session.start).model
    known = compression.prunable_layers(model)
    for name, chosen in (("layers", layers), ("levels", levels)):
        if not isinstance(chosen, list) or not chosen:
            raise InputError(f"{name} must be a list of at least one, got {shown(chosen)}.")
    layers = [choice("layer", layer, known) for layer in layers]
    fractions = [real("level", level, 0, 100, "%") / 100 for level in levels]
    images = explorer.images("validation", session.source)
    images = images.head(whole("images", count, 50, len(images)))
    max_drop = real("tolerated drop", max_drop, 0, 100, "points") / 100
    dense = compression.evaluate(model, images.images, images.labels)
    started = drawn = time.perf_counter()
    found: dict[tuple[str, float], SensitivityPoint] = {}
    total = len(layers) * len(set(fractions))
    for point in compression.scan(
        model, images.images, images.labels, levels=fractions, layers=layers, precision=precision
    ):
        found[point.layer, point.sparsity] = point
        if time.perf_counter() - drawn > REDRAW_SECONDS:
            drawn = time.perf_counter()
            text = f"{len(found)} of {total} points, {drawn - started:.1f} s"
            figure = plots.sensitivity_curves(list(found.values()), dense.accuracy, max_drop)
            yield gr.skip(), html.status(text, len(found) / total), figure, gr.skip(), gr.skip()
    seconds = time.perf_counter() - started
    scanned = {"points": list(found.values()), "dense_accuracy": dense.accuracy}
    text = (
        f"{total} points on {len(images):,} validation images in {seconds:.1f} s "
        f"({precision} precision)."
    )
    yield scanned, html.status(text), *shown_scan(scanned, 100 * max_drop)


def shown_scan(scanned: dict[str, Any] | None, max_drop: float) -> tuple[Any, Any, Any]:
    """Figure, table and CSV file of a scan."""
    if not scanned:
        return None, html.empty("No scan yet. Press Scan."), None
    points, dense = scanned["points"], scanned["dense_accuracy"]
    max_drop = real("tolerated drop", max_drop, 0, 100, "points")
    figure = plots.sensitivity_curves(points, dense, max_drop / 100)
    return figure, _table(points, dense, max_drop), _file(points)


def _table(points: Sequence["SensitivityPoint"], dense: float, max_drop: float) -> str:
    """A row a layer: accuracy at each level, and the largest level within the tolerated drop."""
    levels = sorted({point.sparsity for point in points})
    by_place = {(point.layer, point.sparsity): point for point in points}
    suggested = compression.suggest_sparsities(points, dense, max_drop / 100)
    rows = [
        [
            layer,
            f"{suggested.get(layer, 0):.0%}",
            *(
                f"{100 * by_place[layer, level].accuracy:.1f}" if (layer, level) in by_place else ""
                for level in levels
            ),
        ]
        for layer in dict.fromkeys(point.layer for point in points)
    ]
    bears = f"Largest sparsity|losing at most {max_drop:g} points"
    return html.table(["Layer", bears, *(f"{level:.0%}|accuracy %" for level in levels)], rows)


def _file(points: Sequence["SensitivityPoint"]) -> str:
    path = Path(tempfile.mkdtemp(prefix="scan-")) / "sensitivity.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["layer", "sparsity", "accuracy", "correct", "total", "low", "high"])
        for p in points:
            writer.writerow([p.layer, p.sparsity, p.accuracy, p.correct, p.total, p.low, p.high])
    return str(path)


def first_sight(explorer: Explorer, session: Session, max_drop: float) -> tuple[Any, ...]:
    """The recorded scan of a shipped model, or an invitation; and the model's layers."""
    names = list(compression.prunable_layers(explorer.variant(session.start).model))
    scanned = recorded_scan(session.start.partition(":")[2])
    text = ""
    if scanned:
        text = (
            f"Recorded scan of {scanned['model']}: {scanned['images']:,} validation images, "
            f"{scanned['precision']}. Press Scan to measure it here."
        )
    layers = gr.update(choices=names, value=names)
    return layers, scanned, html.status(text), *shown_scan(scanned, max_drop)


def build(
    page: gr.Blocks, explorer: Explorer, session: gr.State, start: gr.State, scanned: gr.State
) -> None:
    """Components, then events."""
    names = list(layer_names(explorer.preset))
    gr.HTML(f'<p class="cx-lead">{LEAD}</p>')
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            layers = gr.CheckboxGroup(names, value=names, label="Layers to scan")
            levels = gr.CheckboxGroup(
                [(f"{level} %", level) for level in (*LEVELS, 95, 99)],
                value=list(LEVELS),
                label="Levels: zeros in the layer (%)",
            )
            count = gr.Slider(100, 2000, 1000, step=100, label="Validation images")
            precision = gr.Radio(
                ["auto", "float32", "bfloat16"],
                value="auto",
                label="Precision",
                info="auto takes bfloat16 where the processor has it: quicker, 0.5 points at most",
            )
            max_drop = gr.Slider(0.1, 10, 1, step=0.1, label="Tolerated drop (points)")
            with gr.Row():
                press = gr.Button("Scan", variant="primary", min_width=110)
                cancel = gr.Button("Cancel", variant="stop", min_width=90)
        with gr.Column(scale=3, min_width=290):
            status = gr.HTML(elem_id="scan-status")
            figure = gr.Plot(label="Sensitivity", show_label=False, elem_id="scan-plot")
    table = gr.HTML(elem_id="scan-table")
    file = gr.DownloadButton("Download the points as CSV", size="sm")

    outputs = [scanned, status, figure, table, file]
    run = press.click(
        bound(run_scan, explorer),
        [session, layers, levels, count, precision, max_drop],
        outputs,
        api_name="scan",
        show_progress="minimal",
        show_progress_on=status,
        **WORK,
    )
    cancel.click(
        lambda: html.status("Cancelled. The curves are those of the last whole scan, or so far."),
        None, status, cancels=[run], api_visibility="private",
    )  # fmt: skip
    quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    max_drop.input(
        shown_scan, [scanned, max_drop], [figure, table, file], trigger_mode="always_last", **quick
    )
    sight = bound(first_sight, explorer)
    seen = [layers, scanned, status, figure, table, file]
    start.change(sight, [session, max_drop], seen, **quick)
    page.load(sight, [session, max_drop], seen, **quick)
