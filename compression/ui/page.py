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
COMPARE = "Compare"
HEAD = (
    '<div class="cx-head"><h1>Compression explorer</h1><p>See how GridMask augmentation, magnitude '
    "pruning and k-means quantization change a real ResNet-9 on real CIFAR-10 images. What you "
    "press is computed on this server while you watch; what was recorded before says so.</p>"
    "<p>&ldquo;The course report&rdquo;, named here and there, is the report of a course project "
    "that tried the same three methods; this page starts from it.</p></div>"
)
# Files that were made for a download, and uploads, leave the disk after an hour, or two at most.
SWEEP_SECONDS = (3600, 3600)


def build_page(explorer: Explorer) -> gr.Blocks:
    """All components and events; launch it with the theme and the style sheet of `theme.py`."""
    first = Session(explorer.key_of(explorer.start, explorer.source), explorer.source)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=SWEEP_SECONDS) as page:
        session, start = gr.State(first), gr.State(first.start)
        scanned, cleared, comparing = gr.State(None), gr.State(0), gr.State(None)
        gr.HTML(HEAD)
        start_bar.build(page, explorer, session, start)
        with gr.Tabs():
            with gr.Tab("GridMask") as mask:
                gridmask_tab.build(page, explorer)
            with gr.Tab("Sensitivity") as scan:
                tolerated = sensitivity_tab.build(page, explorer, session, start, scanned)
            with gr.Tab("Prune") as prune:
                by_goal = prune_tab.build(
                    page, explorer, session, start, scanned, cleared, tolerated
                )
            with gr.Tab("Quantize") as quantize:
                quantize_tab.build(page, explorer, session, start, cleared, by_goal)
            with gr.Tab(COMPARE) as compare:
                compare_tab.build(explorer, session, cleared, comparing)
        # One listener that runs one at a time: what was chosen last is what stands.
        gr.on(
            [tab.select for tab in (mask, scan, prune, quantize, compare)],
            _is_comparing, None, comparing,
            trigger_mode="multiple", concurrency_limit=1, api_visibility="private",
        )  # fmt: skip
        _leave_checks_to_the_library(page)
    return page


def _is_comparing(chosen: gr.SelectData) -> bool:
    """Whether the tab that a visitor went to is Compare, which follows changes while it is open."""
    return chosen.value == COMPARE


def _leave_checks_to_the_library(page: gr.Blocks) -> None:
    """Hand values on as they were sent: the handlers check them, with one sentence for all ways in.

    Gradio's own checks have another wording each, and none for a value that is missing.
    """
    for block in page.blocks.values():
        if isinstance(block, gr.Slider | gr.Number | gr.Radio | gr.Dropdown | gr.CheckboxGroup):
            block.preprocess = _as_sent  # pyright: ignore[reportAttributeAccessIssue]


def _as_sent(payload: object) -> object:
    return payload
