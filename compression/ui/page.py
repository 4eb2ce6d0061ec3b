"""The whole page: what to start from, and the five tabs in the order of the pipeline."""

import gradio as gr

from compression.ui import (
    compare_tab,
    gridmask_tab,
    prune_tab,
    quantize_tab,
    sensitivity_tab,
    start_bar,
)
from compression.ui.explorer import Explorer
from compression.ui.session import Session

TITLE = "Compression explorer"
HEAD = (
    '<div class="cx-head"><h1>Compression explorer</h1><p>See how GridMask augmentation, magnitude '
    "pruning and k-means quantization change a real ResNet-9 on real CIFAR-10 images. Everything "
    "is computed here, while you watch.</p></div>"
)


def build_page(explorer: Explorer) -> gr.Blocks:
    """All components and events; launch it with the theme and the style sheet of `theme.py`."""
    first = Session(explorer.key_of(explorer.start, explorer.source), explorer.source)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        session, start = gr.State(first), gr.State(first.start)
        scanned = gr.State(None)
        gr.HTML(HEAD)
        start_bar.build(page, explorer, session, start)
        with gr.Tabs():
            with gr.Tab("GridMask"):
                gridmask_tab.build(page, explorer)
            with gr.Tab("Sensitivity"):
                sensitivity_tab.build(page, explorer, session, start, scanned)
            with gr.Tab("Prune"):
                by_goal = prune_tab.build(page, explorer, session, start, scanned)
            with gr.Tab("Quantize"):
                quantize_tab.build(page, explorer, session, start, by_goal)
            with gr.Tab("Compare") as compare:
                compare_tab.build(explorer, session, compare)
        _leave_checks_to_the_library(page)
    return page


def _leave_checks_to_the_library(page: gr.Blocks) -> None:
    """Hand values on as they were sent: the handlers check them, with one sentence for all ways in.

    Gradio's own checks have another wording each, and none for a value that is missing.
    """
    for block in page.blocks.values():
        if isinstance(block, gr.Slider | gr.Number | gr.Radio | gr.Dropdown | gr.CheckboxGroup):
            block.preprocess = _as_sent  # pyright: ignore[reportAttributeAccessIssue]


def _as_sent(payload: object) -> object:
    return payload
