"""How time grows, as a picture: a panel for each Growth, drawn by plotly and taken in Chromium."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.chromium import browser_page
from benchmarks.results import FOLDER, Growth, Section
from benchmarks.tables import TITLES

PICTURE, QUICK_PICTURE = FOLDER / "growth.png", FOLDER / "last.png"
PANEL_WIDTH, HEIGHT = 430, 470
OURS = "#0d9488"
# Told apart by colour-blind readers (Okabe & Ito 2008); ours are the two full lines in green tones.
STYLES = {
    "default mode": (OURS, "circle", "solid"),
    "float32": ("#3b82c4", "square", "solid"),
    "kmeans_1d": (OURS, "circle", "solid"),
    "loop over prepared tensors": ("#e69f00", "diamond", "dash"),
    "loop over a DataLoader": ("#d55e00", "triangle-up", "dash"),
    "scikit-learn": ("#e69f00", "diamond", "dash"),
    "fast-pytorch-kmeans": ("#cc79a7", "x", "dash"),
    "kmeans1d": ("#d55e00", "triangle-up", "dash"),
}


def growths(sections: Mapping[str, Section]) -> list[Growth]:
    """The panels of all sections, in the order of their titles."""
    parts = [sections[name] for name in TITLES if name in sections]
    return [row for part in parts for row in part.rows if isinstance(row, Growth)]


def draw(panels: Sequence[Growth], path: Path) -> None:
    """Write the panels as a PNG. Raises RuntimeError without a Chromium."""
    width = PANEL_WIDTH * len(panels)
    with TemporaryDirectory() as folder, browser_page(width, HEIGHT, 2) as page:
        html = Path(folder) / "growth.html"
        figure(panels).write_html(html, include_plotlyjs=True, config={"staticPlot": True})
        page.goto(html.as_uri())
        page.locator(".main-svg").first.wait_for()
        page.screenshot(path=path)


def figure(panels: Sequence[Growth]) -> go.Figure:
    """The panels side by side, both axes logarithmic: a straight line is a power."""
    drawn = make_subplots(1, len(panels), subplot_titles=[panel.title for panel in panels])
    seen: set[str] = set()
    for column, panel in enumerate(panels, 1):
        for name, seconds in panel.seconds.items():
            drawn.add_trace(_line(panel, name, seconds, name not in seen), row=1, col=column)
            seen.add(name)
        axis = {"type": "log", "gridcolor": "#e5e7eb", "dtick": 1}
        drawn.update_xaxes(axis | {"title": panel.x_label} | _ticks(panel), row=1, col=column)
        title = "seconds" if column == 1 else None
        drawn.update_yaxes(axis | {"title": title}, row=1, col=column)
    drawn.update_layout(
        width=PANEL_WIDTH * len(panels),
        height=HEIGHT,
        margin={"l": 60, "r": 20, "t": 40, "b": 110},
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#1f2937"},
        legend={"orientation": "h", "y": -0.22, "x": 0, "yanchor": "top"},
    )
    return drawn


def _line(panel: Growth, name: str, seconds: Sequence[float], in_legend: bool) -> go.Scatter:
    colour, symbol, dash = STYLES.get(name, ("#6b7280", "circle", "dot"))
    return go.Scatter(
        x=panel.x[: len(seconds)],
        y=seconds,
        name=name,
        legendgroup=name,
        showlegend=in_legend,
        mode="lines+markers",
        line={"color": colour, "dash": dash, "width": 2},
        marker={"color": colour, "symbol": symbol, "size": 8},
    )


def _ticks(panel: Growth) -> dict[str, object]:
    """A tick at each measured place."""
    return {"tickvals": list(panel.x), "ticktext": [f"{x:,.0f}" for x in panel.x]}
