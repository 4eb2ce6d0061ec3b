"""A budget for the whole file: zeros and bits go where they do the least measured damage."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

import compression
from compression.inputs import InputError, real
from compression.ui import html
from compression.ui.explorer import Explorer
from compression.ui.prune_steps import Answer, dense_table, prune_layers
from compression.ui.quantize_steps import SOURCES
from compression.ui.session import Session

IMAGES = 256  # to measure a model that has no recorded settings
POINTS_A_LAYER = 16


@dataclass(frozen=True)
class Plan:
    """What a budget gave: (layer, bits) of each layer, the file's size and
    the predicted accuracy; hashable, as Gradio's
    state wants it."""

    bits: tuple[tuple[str, int], ...]
    size_bytes: int
    accuracy: float

    def text(self) -> str:
        """The predictions in a sentence."""
        return (
            f"Once pruned, quantized and recalibrated: {html.size(self.size_bytes)}, and predicted "
            f"{self.accuracy:.1%} right."
        )


def plan(explorer: Explorer, session: Session, kib: float) -> Iterator[tuple[Any, Any, Any]]:
    """Spread the budget over the layers; yields the prune table, the plan and a status line."""
    budget = 1024 * real("budget", kib, 1, 2**20, "KiB")
    yield gr.skip(), gr.skip(), html.status("Reading what each setting of each layer costs ...", 0)
    table = explorer.known_table(session.start)
    if table is None:
        model, points = explorer.model(session.start), []
        whole = POINTS_A_LAYER * len(compression.prunable_layers(model))
        images = explorer.images("validation", session.source).head(IMAGES)
        for point in compression.scan_settings(model, images.images, images.labels):
            points.append(point)
            text = f"Measuring what each setting costs: {point.layer} ..."
            yield gr.skip(), gr.skip(), html.status(text, len(points) / whole)
        table = compression.setting_table(model, points)
        explorer.keep_table(session.start, table)
    yield gr.skip(), gr.skip(), html.status("Making files until one fits the budget ...", 0.8)
    found, size = compression.fit(
        explorer.model(session.start),
        budget,
        lambda aim: compression.allocate(table, max_bytes=aim),
    )
    accuracy = table.dense_accuracy - found.predicted_drop
    planned = Plan(tuple(found.bits.items()), size, accuracy)
    rows = [
        [name, weights, round(100 * found.sparsities[name], 2)]
        for name, weights, _ in dense_table(explorer, session)
    ]
    yield rows, planned, html.status(planned.text())


def prune_by_plan(
    explorer: Explorer, session: Session, rows: object, planned: Plan | None
) -> Iterator[Answer]:
    """Prune with the table that the plan filled, and say what comes next."""
    if planned is None:
        raise InputError("A budget must be spread first, got none.")
    for kept, status, cards, curve in prune_layers(explorer, session, rows):
        done = kept is not gr.skip() and isinstance(kept, Session)
        text = f"Pruned. {planned.text()} Recalibrate or fine-tune, then Quantize: its table has "
        yield kept, html.status(text + "the bits.") if done else status, cards, curve


def fill_bits(planned: Plan | None, rows: list[list[Any]]) -> tuple[Any, Any, Any]:
    """The quantize table with the plan's bits, and the pruned model as what to quantize."""
    if planned is None:
        return gr.skip(), gr.skip(), gr.skip()
    widths = dict(planned.bits)
    filled = [[name, str(widths.get(name, ""))] for name, _ in rows]
    text = "The table of widths is filled by the budget. " + planned.text()
    return filled, SOURCES[1], html.status(text)
