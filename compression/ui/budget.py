"""A goal for the whole file: zeros and bits go where they do the least measured damage."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

import compression
from compression.budget_fit import packed_bytes
from compression.inputs import InputError, choice, real
from compression.ui import html
from compression.ui.explorer import Explorer
from compression.ui.plan import Plan
from compression.ui.prune_steps import Answer, dense_table, prune_layers
from compression.ui.quantize_steps import empty_overrides
from compression.ui.session import Session

IMAGES = 256  # to measure a model that has no recorded settings
POINTS_A_LAYER = 16
ROOM = 640  # bytes of the file's name and steps, whichever are taken from the goal on
GOALS = ("a file of at most so many KiB", "the smallest file that loses at most so many points")
FILLED = (
    "The goal filled the table below, and it decides: the bit width above does nothing for a layer "
    "that has one there. Empty the table to choose one width for all again. Letting errors make up "
    "for each other can make the file about 1 % larger than the goal."
)


def plan(
    explorer: Explorer, session: Session, kib: float, goal: str, points_lost: float
) -> Iterator[tuple[Any, Any, Any]]:
    """Spread zeros and bits over the layers for one of the goals; yields the prune table, the plan
    and a status line."""
    by_size = choice("goal", goal, GOALS) == GOALS[0]
    budget = 1024 * real("budget", kib, 1, 2**20, "KiB") if by_size else 0.0
    most = 0.0 if by_size else real("points lost", points_lost, 0, 100, "points") / 100
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
        yield gr.skip(), gr.skip(), html.status("Counting what each setting takes ...", 0.7)
        table = compression.setting_table(model, points)
        explorer.keep_table(session.start, table)
    yield gr.skip(), gr.skip(), html.status("Making files, and seeing what they take ...", 0.8)
    model, start = explorer.model(session.start), explorer.variant(session.start)
    room = ROOM + compression.description_bytes(start.name, start.steps)
    if by_size:
        found, size = compression.fit(
            model, budget, lambda aim: compression.allocate(table, max_bytes=aim), overhead=room
        )
    else:
        found = compression.allocate(table, max_drop=most)
        size = packed_bytes(model, found, overhead=room)
    accuracy = max(0.0, start.evaluation.accuracy - found.predicted_drop)
    planned = Plan(session.start, tuple(found.bits.items()), size, accuracy)
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
        raise InputError("A goal must be spread first, got none.")
    if planned.start != session.start:  # which was chosen while the goal was spread
        raise InputError(
            "The goal must be spread for this model, got one for another: press again."
        )
    for kept, status, cards, curve in prune_layers(explorer, session, rows):
        if isinstance(kept, Session):
            kept = kept.with_plan(planned)
            text = f"Pruned. {planned.text()} Recalibrate or fine-tune, then Quantize: its table "
            status = html.status(text + "has the bits.")
        yield kept, status, cards, curve


def fill_bits(explorer: Explorer, session: Session) -> tuple[Any, Any]:
    """The quantize table with the plan's bits, and a word on it."""
    if session.plan is None:
        return gr.skip(), gr.skip()
    widths = dict(session.plan.bits)
    filled = [[name, str(widths.get(name, ""))] for name, _ in empty_overrides(explorer, session)]
    text = "The table of widths is filled by the goal, and decides now. " + session.plan.text()
    return filled, html.status(text)


def show_bits(session: Session) -> tuple[Any, Any, Any]:
    """Opens the table of widths that the plan filled, with a word on it; and that it is filled."""
    if session.plan is None:
        return gr.skip(), gr.skip(), gr.skip()
    return gr.update(open=True), gr.update(value=html.note(FILLED), visible=True), True


def empty_bits(explorer: Explorer, session: Session) -> tuple[Any, Any, Any]:
    """The table of widths with nothing in it, no word on it, and that no plan filled it."""
    return empty_overrides(explorer, session), gr.update(value="", visible=False), False


def drop_bits(explorer: Explorer, session: Session, filled: bool) -> tuple[Any, Any, Any]:
    """Empties the table that a plan filled, once the model is no longer the one of that plan."""
    if session.plan is not None or not filled:
        return gr.skip(), gr.skip(), gr.skip()
    return empty_bits(explorer, session)
