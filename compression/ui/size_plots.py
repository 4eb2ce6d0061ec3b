"""Figures of sizes: the ladder down to the packed file, and what better codebooks buy."""

from collections.abc import Mapping, Sequence
from math import log10
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from compression.front_records import COMPENSATED, OURS, PRICED
from compression.packing_info import GZIPPED
from compression.ui.html import size
from compression.ui.plots import GRID, PALETTE, base_figure, line_of, marker_of

if TYPE_CHECKING:
    from compression.front_records import FrontPoint
    from compression.packing import PackedInfo
    from compression.packing_info import Rung


def size_ladder(rungs: Sequence["Rung"]) -> go.Figure:
    """A waterfall of what the same weights take by each way of storing them, on a logarithmic axis.

    One bar a way, the first that of dense float32; beside each but gzip's, which is there for
    comparison, lies what it saves against the way before, or adds to it.
    """
    height = 70 + 46 * len(rungs)
    figure = base_figure("KiB (logarithmic: half as long is not half)", "", height=height)
    dense = before = rungs[0].size_bytes
    for rung in rungs:
        ours = rung.name == "On disk"
        bar = {"y": [rung.name], "orientation": "h", "width": 0.36, "showlegend": False}
        figure.add_bar(
            x=[rung.size_bytes / 1024],
            marker={"color": PALETTE[0] if ours else PALETTE[8], "opacity": 1 if ours else 0.55},
            customdata=[[rung.size_bytes, rung.explanation]],
            hovertemplate="%{y}: %{customdata[0]:,} bytes<br>%{customdata[1]}<extra></extra>",
            **bar,
        )
        if rung.name != GZIPPED and rung.size_bytes != before:
            low, high = sorted((rung.size_bytes, before))
            said = "smaller" if high == before else "larger"
            figure.add_bar(
                x=[(high - low) / 1024],
                base=[low / 1024],
                marker={"color": PALETTE[0] if high == before else PALETTE[3], "opacity": 0.22},
                customdata=[[high - low, said]],
                hovertemplate="%{customdata[0]:,} bytes %{customdata[1]} than the way before"
                "<extra></extra>",
                **bar,
            )
        before = before if rung.name == GZIPPED else rung.size_bytes
        # Over its bar rather than beside it, where a phone has no room for it.
        text = f"{rung.name}: {size(rung.size_bytes)}, {dense / max(1, rung.size_bytes):.1f} x"
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", y=rung.name, yshift=17, showarrow=False,
            text=f"<b>{text}</b>" if ours else text, font={"size": 11},
        )  # fmt: skip
    smallest = max(1, min(rung.size_bytes for rung in rungs)) / 1024
    largest = max(rung.size_bytes for rung in rungs) / 1024
    ticks = [step * 10**power for power in range(-2, 6) for step in (1, 2, 5)]
    figure.update_xaxes(
        type="log", range=[log10(0.6 * smallest), log10(1.1 * largest)], tickvals=ticks,
        ticktext=[f"{tick:,}" if tick >= 1 else f"{tick:g}" for tick in ticks],
    )  # fmt: skip
    count = len(rungs)
    figure.update_yaxes(
        range=[count - 0.6, -0.9], showticklabels=False, gridcolor="rgba(0,0,0,0)", title=None,
        automargin=False,  # a phone needs all of the width
    )  # fmt: skip
    figure.update_layout(bargap=0.3, barmode="overlay", margin={"l": 16})
    return figure


def layer_bytes(info: "PackedInfo") -> go.Figure:
    """The packed file by layer: its bytes, and the bits that a weight takes there on average."""
    figure = base_figure("Layer; over its bar, bits a weight", "KiB in the file", height=320)
    figure.add_bar(
        x=[layer.name for layer in info.layers],
        y=[layer.total_bytes / 1024 for layer in info.layers],
        marker={"color": PALETTE[0]},
        text=[f"{8 * layer.total_bytes / layer.weights:.1f}" for layer in info.layers],
        textposition="outside",
        constraintext="none",  # else it shrinks with the bars, on a phone until nobody can read it
        textangle=0,
        cliponaxis=False,
        customdata=[
            (layer.bits, 100 * layer.nonzeros / layer.weights, layer.weights)
            for layer in info.layers
        ],
        hovertemplate=(
            "%{x}: %{y:.1f} KiB, %{text} bits a weight<br>%{customdata[2]:,} weights, "
            "%{customdata[1]:.1f} % not zero, %{customdata[0]} bits nominal<extra></extra>"
        ),
        showlegend=False,
    )
    return figure


def front(
    points: Sequence["FrontPoint"],
    dense_accuracy: float,
    dense_bytes: int,
    trained: Mapping[str, tuple[int, float]],
) -> go.Figure:
    """Packed size against test accuracy, a line for each way to spread zeros and bits.

    Dotted, what was predicted of our own. trained: name -> bytes and accuracy (a fraction) of files
    whose weights were trained on, drawn as stars. The axis ends a little below the least accuracy
    of entropy-constrained files, where there are such; other ways may go on under it.
    """
    figure = base_figure("File on disk (KiB, logarithmic)", "Test accuracy (%)", height=440)
    ways = list(dict.fromkeys(point.way for point in points))
    for k, way in enumerate(ways):
        mine = sorted((p for p in points if p.way == way), key=lambda point: point.packed_bytes)
        figure.add_scatter(
            x=[point.packed_bytes / 1024 for point in mine],
            y=[100 * point.accuracy for point in mine],
            customdata=[dense_bytes / point.packed_bytes for point in mine],
            name=way.replace("rounding compensated", "compensated"),  # a phone's legend is narrow
            mode="lines+markers",
            line=line_of(k, 3 if way in (OURS, COMPENSATED, PRICED) else 1.6),
            marker=marker_of(k, 7),
            hovertemplate="%{x:.0f} KiB, %{customdata:.1f} times smaller: %{y:.2f} %",
        )
    foretold = sorted(
        (p.packed_bytes, p.predicted_drop)
        for p in points
        if p.way == OURS and p.predicted_drop is not None
    )
    figure.add_scatter(
        x=[size_bytes / 1024 for size_bytes, _ in foretold],
        y=[100 * (dense_accuracy - drop) for _, drop in foretold],
        name=f"{OURS}, predicted",
        mode="lines",
        line={"color": "#808080", "width": 2, "dash": "dot"},
        hovertemplate="%{x:.0f} KiB: predicted %{y:.2f} %",
    )
    if trained:
        figure.add_scatter(
            x=[size_bytes / 1024 for size_bytes, _ in trained.values()],
            y=[100 * accuracy for _, accuracy in trained.values()],
            customdata=[
                (name, dense_bytes / size_bytes) for name, (size_bytes, _) in trained.items()
            ],
            name="trained on, shipped here",
            mode="markers",
            marker={"symbol": "star", "size": 15, "color": PALETTE[7]},
            hovertemplate="%{customdata[0]}<br>%{x:.0f} KiB, %{customdata[1]:.1f} times smaller: "
            "%{y:.2f} %<extra></extra>",
        )
    figure.add_hline(
        y=100 * dense_accuracy,
        line={"color": "#808080", "width": 1.5, "dash": "dash"},
        annotation={"text": "dense float32", "font": {"size": 12}},
        annotation_position="top left",
    )
    best = PRICED if PRICED in ways else OURS
    lowest = min(100 * point.accuracy for point in points if point.way == best)
    figure.update_yaxes(range=[max(0, lowest - 4), min(100, 100 * dense_accuracy + 2)])
    ticks = [step * 10**power for power in range(5) for step in (1, 2, 5)]
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks])
    return figure


def codebook_kinds(
    rows: Sequence[Mapping[str, Any]], dense_accuracy: float, names: Mapping[str, str]
) -> go.Figure:
    """Accuracy against bits without training, a line for each way to choose the codebooks.

    rows: with kind, bits, accuracy, low and high, fractions; several of a kind and width (other
    random starts) are drawn as points on the line of their mean.
    """
    figure = base_figure("Bits for each weight", "Test accuracy (%)", height=360)
    widths = sorted({row["bits"] for row in rows})
    for k, (kind, name) in enumerate(names.items()):
        found = {
            width: [r for r in rows if r["kind"] == kind and r["bits"] == width] for width in widths
        }
        means = [
            100 * sum(r["accuracy"] for r in at) / len(at) if at else None for at in found.values()
        ]
        figure.add_scatter(
            x=[str(width) for width in widths],
            y=means,
            name=name,
            mode="lines+markers",
            line=line_of(k, 2.5),
            marker=marker_of(k, 9),
            hovertemplate="%{x} bits: %{y:.2f} %",
        )
    figure.add_hline(
        y=100 * dense_accuracy,
        line={"color": "#808080", "width": 1.5, "dash": "dash"},
        annotation={"text": "float32", "font": {"size": 12}},
        annotation_position="bottom left",
    )
    figure.update_xaxes(type="category", gridcolor=GRID)
    return figure
