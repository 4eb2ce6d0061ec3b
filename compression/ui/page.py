"""The whole page: the dense model to start from, and the five tabs in the order of the pipeline."""

from typing import Any

import gradio as gr

from compression.presets import SHIPPED
from compression.ui import (
    compare_tab,
    gridmask_tab,
    html,
    prune_tab,
    quantize_tab,
    sensitivity_tab,
)
from compression.ui.explorer import WORK, Explorer
from compression.ui.guard import bound
from compression.ui.session import Session

TITLE = "Compression explorer"
HEAD = (
    '<div class="cx-head"><h1>Compression explorer</h1><p>See how GridMask augmentation, magnitude '
    "pruning and k-means quantization change a real ResNet-9 on real CIFAR-10 images. Everything "
    "is computed here, while you watch.</p></div>"
)


def choose_start(explorer: Explorer, session: Session, name: str) -> tuple[Any, ...]:
    """Another dense model to work on: a shipped one, or the visitor's uploaded one."""
    variant = explorer.variant(str(name))
    return session.with_start(name), name, model_line(variant)


def upload_start(explorer: Explorer, session: Session, path: str | None) -> tuple[Any, ...]:
    """The visitor's checkpoint: checked, measured, and made the model to start from."""
    if not path:
        return gr.skip(), gr.skip(), gr.skip(), gr.skip()
    key = explorer.upload(path)
    variant = explorer.variant(key)
    listed = gr.update(choices=[*_choices(explorer), (variant.name, key)], value=key)
    return session.with_start(key), key, model_line(variant), listed


def model_line(variant: Any) -> str:
    """The chosen model in a line: parameters, size, MACs, accuracy."""
    evaluation = variant.evaluation
    return html.status(
        f"{variant.complexity.parameters:,} parameters, {html.size(variant.size.dense_bytes)} in "
        f"float32, {variant.complexity.macs / 1e6:.1f} M multiply-accumulates an image, "
        f"{evaluation.accuracy:.2%} right on {evaluation.total:,} test images "
        f"(95 % interval {evaluation.low:.1%} to {evaluation.high:.1%})."
    )


def first_line(explorer: Explorer, session: Session) -> str:
    """The starting model's line, once it is loaded."""
    return model_line(explorer.variant(session.start))


def _choices(explorer: Explorer) -> list[tuple[str, str]]:
    return [(name, name) for name in dict.fromkeys([*SHIPPED, explorer.start])]


def build_page(explorer: Explorer) -> gr.Blocks:
    """All components and events; launch it with the theme and the style sheet of `theme.py`."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        session = gr.State(Session(explorer.start))
        start = gr.State(explorer.start)
        scanned = gr.State(None)
        gr.HTML(HEAD)
        with gr.Row(elem_id="model-row"):
            model = gr.Dropdown(
                _choices(explorer), value=explorer.start, label="Dense model to start from", scale=2
            )
            with gr.Column(scale=3, min_width=260):
                line = gr.HTML(html.status("Loading the model ..."), elem_id="model-line")
            upload = gr.UploadButton(
                "Use my own checkpoint", size="sm", scale=1, min_width=170, elem_id="model-upload"
            )
        with gr.Tabs():
            with gr.Tab("GridMask"):
                gridmask_tab.build(page, explorer)
            with gr.Tab("Sensitivity"):
                sensitivity_tab.build(page, explorer, session, start, scanned)
            with gr.Tab("Prune"):
                prune_tab.build(page, explorer, session, start, scanned)
            with gr.Tab("Quantize"):
                quantize_tab.build(explorer, session, start)
            with gr.Tab("Compare") as compare:
                compare_tab.build(explorer, session, compare)

        model.input(
            bound(choose_start, explorer), [session, model], [session, start, line],
            api_name="choose_model", **WORK,
        )  # fmt: skip
        upload.upload(
            bound(upload_start, explorer), [session, upload], [session, start, line, model],
            api_name="upload_model", **WORK,
        )  # fmt: skip
        page.load(
            bound(first_line, explorer), session, line,
            api_visibility="private", show_progress="hidden",
        )  # fmt: skip
    return page
