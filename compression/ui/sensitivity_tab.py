"""The Sensitivity tab: prune one layer at a time, more and more, and watch the accuracy."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

import compression
from compression.inputs import InputError, real, shown, whole
from compression.presets import layer_names
from compression.ui import downloads, html, plots, recorded
from compression.ui.cancelling import cancel_by, cancelled, settle
from compression.ui.explorer import WORK, Explorer
from compression.ui.guard import bound, guarded, working
from compression.ui.session import Session

if TYPE_CHECKING:
    from compression.sensitivity import SensitivityPoint

LEAD = (
    "Some layers bear pruning better than others. The scan takes one layer, sets its smallest "
    "weights to zero, measures the accuracy, puts the weights back, and goes on. A line that stays "
    "high belongs to a layer that can lose much; one that falls early needs care. Next: the Prune "
    "tab can fill its table from this scan."
)
# The same slider on two tabs: what a layer may lose when it alone is pruned.
TOLERATED: dict[str, Any] = {
    "minimum": 0.1,
    "maximum": 10,
    "value": 1,
    "step": 0.1,
    "label": "Tolerated drop, each layer by itself (points)",
    "info": "Percentage points of accuracy. All layers pruned together mostly lose more than this.",
}
LEVELS = tuple(range(10, 100, 10))
REDRAW_SECONDS = 0.4
NO_SCAN = "No scan yet. Press Scan."
Answer = tuple[Any, Any, Any, Any]


def run_scan(
    explorer: Explorer,
    session: Session,
    layers: Sequence[str],
    levels: Sequence[float],
    count: float,
    precision: str,
    max_drop: float,
) -> Iterator[Answer]:
    """Scan; yields the scan's points, status, figure and table."""
    model = explorer.model(session.start)
    for name, chosen in (("layers", layers), ("levels", levels)):
        if not isinstance(chosen, list) or not chosen:
            raise InputError(f"At least one of the {name} must be ticked, got {shown(chosen)}.")
    fractions = [real("level", level, 0, 100, "%") / 100 for level in levels]
    images = explorer.images("validation", session.source)
    images = images.head(whole("images", count, 50, len(images)))
    max_drop = real("tolerated drop", max_drop, 0, 100, "points")
    resolved = compression.resolved_precision(precision, compression.device_of(model))
    progress = Progress(len(layers) * len(fractions), len(images))
    steps = compression.scan(
        model, images.images, images.labels, levels=fractions, layers=layers, precision=precision,
        coarse_images=compression.COARSE_IMAGES,
    )  # fmt: skip
    yield gr.skip(), html.status("Measuring the dense model ...", 0), gr.skip(), gr.skip()
    dense = compression.dense_point(model, images.images, images.labels, precision=precision)
    for point in steps:
        if progress.add(point):
            figure = plots.sensitivity_curves(progress.points(), dense.accuracy, max_drop / 100)
            yield gr.skip(), progress.line(), figure, gr.skip()
    scanned = {"points": progress.points(), "dense_accuracy": dense.accuracy}
    text = f"{progress.whole} points on {len(images):,} validation images in "
    text += f"{progress.seconds:.1f} s, computed in {resolved}"
    # A recorded scan is in float32, and answers for that and for auto.
    known = precision != "bfloat16" and recorded.scan_file(session.start.partition(":")[2])
    text += ", or taken from the recorded scan where it has them." if known else "."
    if resolved != "float32":
        text += " Choose float32 and scan again to have every point in full precision."
    yield scanned, html.status(text), *shown_scan(scanned, max_drop)


class Progress:
    """The points of a running scan: coarse ones first, replaced by those on all images."""

    def __init__(self, whole: int, images: int) -> None:
        self.whole, self._images = whole, images
        self._found: dict[tuple[str, float], SensitivityPoint] = {}
        self._started = self._drawn = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the scan began."""
        return time.perf_counter() - self._started

    def add(self, point: "SensitivityPoint") -> bool:
        """Take a point; whether it is time to draw again."""
        self._found[point.layer, point.sparsity] = point
        due = time.perf_counter() - self._drawn > REDRAW_SECONDS
        if due:
            self._drawn = time.perf_counter()
        return due

    def points(self) -> list["SensitivityPoint"]:
        """The newest of each layer and level."""
        return list(self._found.values())

    def line(self) -> str:
        """How far the scan is, with its bar."""
        done = sum(point.total == self._images for point in self._found.values())
        counted = sum(point.total for point in self._found.values())
        text = f"{done} of {self.whole} points on all images, {self.seconds:.1f} s"
        if not done:
            text = f"{len(self._found)} of {self.whole} points, rough ones first"
        return html.status(text, counted / (self.whole * self._images))


def shown_scan(scanned: dict[str, Any] | None, max_drop: float) -> tuple[Any, Any]:
    """Figure and table of a scan."""
    max_drop = real("tolerated drop", max_drop, 0, 100, "points")
    if not scanned:
        return None, html.empty(NO_SCAN)
    points, dense = scanned["points"], scanned["dense_accuracy"]
    figure = plots.sensitivity_curves(points, dense, max_drop / 100)
    return figure, _table(points, dense, max_drop)


def stop(
    shown: object, scanned: dict[str, Any] | None, max_drop: float
) -> Iterator[tuple[Any, Any, Any]]:
    """After a cancel: the status, and figure and table of the last whole scan again."""
    left = "Curves and table are those of the last whole scan." if scanned else NO_SCAN
    for status in cancelled(f"Cancelled. {left}")(shown):
        said = isinstance(status, str)
        figure, table = shown_scan(scanned, max_drop) if said else (gr.skip(), gr.skip())
        yield status, figure, table


def scan_file(scanned: dict[str, Any] | None) -> dict[str, str]:
    """The points of the scan that is shown, as CSV."""
    if not scanned:
        raise InputError("A scan of this model is expected first, got none: press Scan.")
    return downloads.text_file("sensitivity.csv", compression.scan_csv(scanned["points"]))


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
    bears = f"Largest sparsity|losing at most {max_drop:g} {'point' if max_drop == 1 else 'points'}"
    return html.table(["Layer", bears, *(f"{level:.0%}|accuracy %" for level in levels)], rows)


def first_sight(explorer: Explorer, session: Session, max_drop: float) -> tuple[Any, ...]:
    """The recorded scan of a shipped model, or an invitation; and the model's layers."""
    names = list(compression.prunable_layers(explorer.model(session.start)))
    name = session.start.partition(":")[2]
    recorded = explorer.recorded_scan(name)
    scanned, text = None, ""
    if recorded is not None:
        scanned = {"points": list(recorded.points), "dense_accuracy": recorded.dense.accuracy}
        text = (
            f"Recorded scan of {name}: {recorded.dense.total:,} validation images, computed in "
            f"{recorded.precision}. Scan takes from it what it has, and computes the rest here: "
            "other levels, other images, another precision."
        )
    layers = gr.update(choices=names, value=names)
    return layers, scanned, html.status(text), *shown_scan(scanned, max_drop)


def build(
    page: gr.Blocks, explorer: Explorer, session: gr.State, start: gr.State, scanned: gr.State
) -> gr.Slider:
    """Components, then events; returns the tolerated drop, which another tab follows."""
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
                info="float32: numbers of 32 bits. bfloat16: of 16 bits, quicker, where the "
                "processor has them; an accuracy may then be off by some tenths of a point. auto "
                "takes bfloat16 where it can.",
            )
            max_drop = gr.Slider(**TOLERATED)
            with gr.Row():
                press = gr.Button("Scan", variant="primary", min_width=110)
                cancel = gr.Button("Cancel", variant="stop", min_width=90)
        with gr.Column(scale=3, min_width=290):
            status = gr.HTML(elem_id="scan-status")
            figure = gr.Plot(label="Sensitivity", show_label=False, elem_id="scan-plot")
    table = gr.HTML(elem_id="scan-table")
    file = gr.Button("Download the points as CSV", size="sm")

    outputs = [scanned, status, figure, table]
    run = press.click(
        working(run_scan, explorer),
        [session, layers, levels, count, precision, max_drop],
        outputs,
        api_name="scan",
        show_progress="minimal",
        show_progress_on=status,
        **WORK,
    )
    again = [status, figure, table]
    cancel_by(cancel, [run], guarded(stop), [status, scanned, max_drop], again)
    settle([run], status)
    downloads.save_on_click(file, guarded(scan_file), scanned, "scan_csv")
    max_drop.input(
        guarded(shown_scan), [scanned, max_drop], [figure, table],
        trigger_mode="always_last", show_progress="hidden", api_name="suggest",
    )  # fmt: skip
    quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    sight = bound(first_sight, explorer)
    seen = [layers, scanned, status, figure, table]
    start.change(sight, [session, max_drop], seen, **quick)
    page.load(sight, [session, max_drop], seen, **quick)
    return max_drop
