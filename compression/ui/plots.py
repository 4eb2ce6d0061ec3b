"""Result objects -> Plotly figures. Knows nothing of Gradio.

Backgrounds are transparent and text takes the page's colour from the style sheet, so a figure suits
dark and light mode. Colours are told apart by colour-blind readers too (Okabe & Ito 2008); lines
and points differ by marker as well, and no two series are drawn alike.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

if TYPE_CHECKING:
    from compression.pruning import Histogram
    from compression.report import Variant
    from compression.sensitivity import SensitivityPoint
    from compression.study_records import StudyRun

PALETTE = (
    "#0d9488",
    "#e69f00",
    "#3b82c4",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#8a7d00",
    "#7c6fd0",
    "#6b7280",
)
MARKERS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "x",
    "star",
    "cross",
    "hexagon",
    "pentagon",
)
DASHES = ("solid", "dash", "dot", "dashdot")
GRID = "rgba(128,128,128,0.22)"


def base_figure(x_title: str, y_title: str, height: int = 380) -> go.Figure:
    """An empty figure in the page's manner, with the titles of its axes."""
    figure = go.Figure()
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True}
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 12, "t": 26, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": -0.22, "x": 0, "yanchor": "top"},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
        xaxis=axis | {"title": {"text": x_title}},
        yaxis=axis | {"title": {"text": y_title}},
        dragmode=False,
    )
    return figure


def _colour(k: int) -> str:
    return PALETTE[k % len(PALETTE)]


def line_of(k: int, width: float = 2) -> dict[str, Any]:
    """The line of series k: beyond the palette's end also dashed."""
    return {"color": _colour(k), "width": width, "dash": DASHES[k // len(PALETTE) % len(DASHES)]}


def marker_of(k: int, size: int) -> dict[str, Any]:
    """The marker of series k: beyond the palette's end another symbol to a colour, every second
    time around an open one."""
    turn, place = divmod(k, len(PALETTE))
    symbol = MARKERS[(place + turn) % len(MARKERS)] + ("-open" if turn % 2 else "")
    return {"color": _colour(k), "symbol": symbol, "size": size}


def training_curves(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> go.Figure:
    """Validation accuracy an epoch of recorded runs: name -> rows with `epoch` and `accuracy`."""
    figure = base_figure("Epoch", "Validation accuracy (%)", height=340)
    for k, (name, rows) in enumerate(curves.items()):
        figure.add_scatter(
            x=[row["epoch"] for row in rows],
            y=[100 * row["accuracy"] for row in rows],
            name=name,
            mode="lines+markers",
            line=line_of(k, 2.5),
            marker=marker_of(k, 7),
            hovertemplate="epoch %{x}: %{y:.2f} %",
        )
    return figure


def study_runs(runs: Sequence["StudyRun"], names: Mapping[str, str]) -> go.Figure:
    """Test accuracy of each run, a column a way (names: way -> its label), and the ways' means."""
    figure = base_figure("", "Test accuracy (%)", height=340)
    for k, way in enumerate(names):
        mine = [run for run in runs if run.way == way]
        if not mine:
            continue
        name = "<br>".join(textwrap.wrap(names[way], 9))  # upright on a phone, too
        figure.add_scatter(
            x=[name] * len(mine),
            y=[100 * run.accuracy for run in mine],
            customdata=[run.seed for run in mine],
            mode="markers",
            marker=marker_of(k, 11) | {"opacity": 0.75},
            hovertemplate="seed %{customdata}: %{y:.2f} %<extra></extra>",
            showlegend=False,
        )
        figure.add_scatter(
            x=[name],
            y=[100 * sum(run.accuracy for run in mine) / len(mine)],
            mode="markers",
            marker={
                "color": _colour(k), "symbol": "line-ew-open", "size": 44, "line": {"width": 3}
            },
            hovertemplate="mean: %{y:.2f} %<extra></extra>",
            showlegend=False,
        )  # fmt: skip
    figure.update_xaxes(type="category")
    return figure


def sensitivity_curves(
    points: Sequence["SensitivityPoint"], dense_accuracy: float | None, max_drop: float
) -> go.Figure:
    """Accuracy against sparsity, a line a layer, with the dense line and the tolerated one."""
    figure = base_figure("Sparsity of one layer (%)", "Validation accuracy (%)", height=460)
    by_layer: dict[str, list[SensitivityPoint]] = {}
    for point in points:
        by_layer.setdefault(point.layer, []).append(point)
    for k, (layer, found) in enumerate(by_layer.items()):
        found = sorted(found, key=lambda point: point.sparsity)
        figure.add_scatter(
            x=[100 * point.sparsity for point in found],
            y=[100 * point.accuracy for point in found],
            name=layer,
            mode="lines+markers",
            line=line_of(k),
            marker=marker_of(k, 8),
            customdata=[(100 * p.low, 100 * p.high, p.total) for p in found],
            hovertemplate=(
                "%{x:.0f} % zeros: %{y:.2f} %<br>95 % interval %{customdata[0]:.1f} to "
                "%{customdata[1]:.1f} %, %{customdata[2]} images"
            ),
        )
    if dense_accuracy is not None:
        _level(figure, 100 * dense_accuracy, "dense", "solid")
        _level(figure, 100 * (dense_accuracy - max_drop), "tolerated", "dash")
    return figure


def _level(figure: go.Figure, height: float, text: str, dash: str) -> None:
    """A horizontal line across the plot with its name at the left end."""
    figure.add_hline(
        y=height,
        line={"color": "#808080", "width": 1.5, "dash": dash},
        annotation={"text": text, "font": {"size": 12}},
        annotation_position="top left" if text == "dense" else "bottom left",
    )


def weight_histograms(stages: Mapping[str, "Histogram"]) -> go.Figure:
    """A layer's non-zero weights at each stage (before, pruned, ...), with the threshold drawn.

    Of several stages the first is grey, and shows where the next one has lost its weights.
    """
    looks = [(8, 0.4), (1, 0.9), (3, 0.5)] if len(stages) > 1 else [(0, 0.35)]
    figure = base_figure("Weight", "Weights in the bin", height=360)
    for (colour, opacity), (stage, histogram) in zip(looks, stages.items(), strict=False):
        edges = histogram.edges
        zeros = f" ({histogram.zeros:,} zeros not drawn)" if histogram.zeros else ""
        figure.add_bar(
            x=[(low + high) / 2 for low, high in zip(edges, edges[1:], strict=False)],
            y=list(histogram.counts),
            width=edges[1] - edges[0],
            name=stage + zeros,
            marker={"color": _colour(colour), "line": {"width": 0}},
            opacity=opacity,
            hovertemplate="%{x:.4f}: %{y:,}",
        )
    thresholds = [h.threshold for h in stages.values() if h.threshold]
    for threshold in thresholds[:1]:
        line = {"color": _colour(3), "width": 1.5, "dash": "dash"}
        figure.add_vline(x=-threshold, line=line)
        figure.add_vline(
            x=threshold, line=line, annotation_text="cut here", annotation_position="top right"
        )
    figure.update_layout(barmode="overlay", bargap=0)
    return figure


def codebook_over_histogram(
    histogram: "Histogram", codebook: Sequence[float], counts: Sequence[int]
) -> go.Figure:
    """A layer's weights with its codebook: one line a centroid, its cluster's size on hover."""
    figure = weight_histograms({"weights before": histogram})
    top = max(histogram.counts, default=1) or 1
    figure.add_scatter(
        x=[x for value in codebook for x in (value, value, None)],
        y=[y for _ in codebook for y in (0, 0.22 * top, None)],
        mode="lines",
        line={"color": _colour(3), "width": 1.5 if len(codebook) > 32 else 2.5},
        hoverinfo="skip",
        name="centroids",
    )
    figure.add_scatter(
        x=list(codebook),
        y=[0.22 * top] * len(codebook),
        mode="markers",
        marker={"color": _colour(3), "size": 5 if len(codebook) > 32 else 8},
        customdata=list(counts),
        hovertemplate="centroid %{x:.5f}: %{customdata:,} weights<extra></extra>",
        showlegend=False,
    )
    return figure


def recovery_curve(rows: Sequence[Any], epochs: int, levels: Mapping[str, float]) -> go.Figure:
    """Validation accuracy of fine-tuning or centroid training; levels: name -> accuracy before."""
    figure = base_figure("Epoch", "Validation accuracy (%)", height=300)
    figure.add_scatter(
        x=[row.epoch for row in rows],
        y=[100 * row.accuracy for row in rows],
        mode="lines+markers",
        line={"color": _colour(0), "width": 2.5},
        marker={"size": 9},
        name="after each epoch",
        hovertemplate="epoch %{x}: %{y:.2f} %",
    )
    for k, (name, accuracy) in enumerate(levels.items()):
        figure.add_scatter(
            x=[0, epochs],
            y=[100 * accuracy] * 2,
            mode="lines",
            line={"color": ("#808080", _colour(3))[k % 2], "width": 1.5, "dash": "dash"},
            name=f"{name}: {100 * accuracy:.2f} %",
            hoverinfo="skip",
        )
    figure.update_xaxes(range=[-0.1, epochs + 0.1], dtick=max(1, epochs // 8))
    return figure


def size_against_accuracy(variants: Sequence["Variant"]) -> go.Figure:
    """Size of the packed file (logarithmic) against test accuracy with its 95 % interval."""
    height = _with_legend(420, variants)
    figure = base_figure("File on disk (KiB, logarithmic)", "Test accuracy (%)", height=height)
    for k, variant in enumerate(variants):
        evaluation = variant.evaluation
        figure.add_scatter(
            x=[(variant.packed_bytes or variant.size.stored_bytes) / 1024],
            y=[100 * evaluation.accuracy],
            error_y={
                "type": "data",
                "array": [100 * (evaluation.high - evaluation.accuracy)],
                "arrayminus": [100 * (evaluation.accuracy - evaluation.low)],
                "thickness": 1.2,
                "width": 5,
            },
            mode="markers",
            marker=marker_of(k, 13),
            name=variant.name,
            hovertemplate="%{x:.1f} KiB, %{y:.2f} %",
        )
    ticks = [step * 10**power for power in range(5) for step in (1, 3)]
    text = [f"{tick:,}" for tick in ticks]
    # Level, and the legend under the title, where a phone has little room for either.
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=text, tickangle=0, tickfont_size=11)
    figure.update_layout(legend={"y": -0.35})
    return figure


def _with_legend(height: int, variants: Sequence["Variant"]) -> int:
    """A figure's height with a line of the legend for each variant, as on a phone, beyond four."""
    return height + 22 * max(0, len(variants) - 4)
