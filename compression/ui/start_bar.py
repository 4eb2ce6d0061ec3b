"""Above the tabs: the dense model to start from, and the images to measure on."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

import compression
from compression.inputs import InputError, choice
from compression.presets import SHIPPED
from compression.ui import html
from compression.ui.explorer import SOURCES, WORK, Explorer
from compression.ui.guard import bound
from compression.ui.session import Session

IMAGES = [
    ("bundled sample: 2,000 test images, quick", "sample"),
    ("full CIFAR-10: 10,000 test images, narrower intervals", "full"),
]


def choose_model(explorer: Explorer, session: Session, name: str) -> tuple[Any, ...]:
    """Another dense model to work on: a shipped one by name, or an upload by its key."""
    known = list(dict.fromkeys([*SHIPPED, explorer.start]))
    if not explorer.holds(name):  # an upload's key, which its visitor alone has
        choice("model", name, known)
    key = explorer.key_of(name, session.source) if name in known else name
    variant = explorer.variant(key)
    return session.with_start(key), key, model_line(variant)


def upload_model(explorer: Explorer, session: Session, path: str | None) -> tuple[Any, ...]:
    """The visitor's checkpoint: checked, measured, and made the model to start from."""
    if not path:
        raise InputError("A safetensors file is expected, got nothing.")
    key = explorer.upload(path, session.source)
    variant = explorer.variant(key)
    listed = gr.update(choices=[*_choices(explorer), (variant.name, key)], value=key)
    return session.with_start(key), key, model_line(variant), listed


def choose_images(explorer: Explorer, session: Session, source: str) -> tuple[Any, ...]:
    """Measure on other images from now on: a fresh comparison, from the starting model."""
    choice("images", source, SOURCES)
    if source == "full" and not explorer.has_full():
        raise InputError(
            "The full CIFAR-10 is expected on this server, got none: press Download first."
        )
    key = explorer.key_of(explorer.start, source)
    line = model_line(explorer.variant(key))
    return Session(key, source), key, line, gr.update(choices=_choices(explorer))


def download(explorer: Explorer) -> Iterator[str]:
    """Fetch the full set once for this server, with progress."""
    for progress in compression.download_cifar10(explorer.root):
        yield html.status(progress.stage, progress.fraction)


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


def build(page: gr.Blocks, explorer: Explorer, session: gr.State, start: gr.State) -> None:
    """Components, then events."""
    with gr.Row(elem_id="model-row"):
        model = gr.Dropdown(
            _choices(explorer), value=explorer.start, label="Dense model to start from", scale=2
        )
        with gr.Column(scale=4, min_width=260):
            line = gr.HTML(html.status("Loading the model ..."), elem_id="model-line")
    with gr.Accordion("Other images, or a checkpoint of your own", open=False):
        with gr.Row(elem_id="source-row"):
            source = gr.Radio(IMAGES, value=explorer.source, label="Images to measure on", scale=3)
            fetch = gr.Button("Download full CIFAR-10 (184 MB)", size="sm", min_width=190)
            upload = gr.UploadButton(
                "Use my own checkpoint (.safetensors)",
                size="sm",
                min_width=230,
                elem_id="model-upload",
            )
        fetched = gr.HTML(elem_id="download-status")

    work: dict[str, Any] = WORK | {"show_progress": "minimal", "show_progress_on": line}
    model.input(
        bound(choose_model, explorer), [session, model], [session, start, line],
        api_name="choose_model", **work,
    )  # fmt: skip
    upload.upload(
        bound(upload_model, explorer), [session, upload], [session, start, line, model],
        api_name="upload_model", **work,
    )  # fmt: skip
    source.input(
        bound(choose_images, explorer), [session, source], [session, start, line, model],
        api_name="choose_images", **work,
    )  # fmt: skip
    fetch.click(
        bound(download, explorer), None, fetched, api_name="download", show_progress="hidden",
        concurrency_id="download", concurrency_limit=1,
    )  # fmt: skip
    page.load(
        bound(first_line, explorer), session, line,
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip
