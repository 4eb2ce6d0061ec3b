"""Above the tabs: the dense model to start from, and the images to measure on."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

import compression
from compression.inputs import InputError, choice
from compression.presets import SHIPPED
from compression.ui import html
from compression.ui.cancelling import settle
from compression.ui.explorer import SOURCES, WORK, Explorer
from compression.ui.guard import bound, working
from compression.ui.session import Session

IMAGES = [
    ("bundled sample: 2,000 test images, quick", "sample"),
    ("full CIFAR-10: 10,000 test images, narrower intervals", "full"),
]
IMAGES_INFO = (
    "A change begins anew: what you have made, and a checkpoint that you have uploaded, leave the "
    "page, since they were measured on other images."
)
FETCH = "Fetch full CIFAR-10 to this server (163 MiB)"
MODELS_INFO = (
    "Dense: nothing pruned or quantized yet. resnet9-s is half as wide as resnet9. baseline: "
    "trained without GridMask; gridmask: with it; distilled: then taught by models' answers."
)
FETCHED = 'The full CIFAR-10 is on this server now. Choose "full CIFAR-10" to measure on it.'


def choose_model(explorer: Explorer, session: Session, name: str) -> tuple[Any, ...]:
    """Another dense model to work on: a shipped one by name, or an upload by its key."""
    known = list(dict.fromkeys([*SHIPPED, explorer.start]))
    if not (explorer.holds(name) or explorer.was_dropped(name)):  # an upload's key is its visitor's
        choice("model", name, known)
    key = explorer.key_of(name, session.source) if name in known else name
    variant = explorer.variant(key)  # which says where it was dropped
    if key != session.start:  # the list answers whenever it is left, with what was chosen before
        session = session.with_start(key)
    return session, key, model_line(variant)


def upload_model(explorer: Explorer, session: Session, path: str | None) -> tuple[Any, ...]:
    """The visitor's checkpoint: checked, measured, and made the model to start from."""
    if not path:
        raise InputError("A safetensors file is expected, got nothing.")
    key = explorer.upload(path, session.source)
    variant = explorer.variant(key)
    listed = gr.update(choices=[*_choices(explorer), (variant.name, key)], value=key)
    return session.with_start(key), key, model_line(variant), listed


def choose_images(explorer: Explorer, session: Session, source: str) -> tuple[Any, ...]:
    """Measure on other images from now on: a fresh comparison, from the same model where that is
    no upload."""
    choice("images", source, SOURCES)
    if source == "full" and not explorer.has_full():
        raise InputError(
            f'The full CIFAR-10 is expected on this server, got none: press "{FETCH}" first.'
        )
    name = session.start.partition(":")[2] or explorer.start  # no upload's key has a colon
    key = explorer.key_of(name, source)
    variant = explorer.variant(key)
    said = f"Measured on {variant.evaluation.total:,} test images from now on. "
    if session.made:
        said += f"Variants of before that left the comparison: {len(session.made)}. "
    if name != session.start.partition(":")[2]:
        said += "Upload your checkpoint again to go on with it."
    listed = gr.update(choices=_choices(explorer), value=name)
    return Session(key, source), key, model_line(variant), listed, html.status(said)


def chosen(session: Session) -> tuple[str, str]:
    """What the visit works on, model and images, for the page to show once a choice was refused."""
    return session.start.partition(":")[2] or session.start, session.source


def download(explorer: Explorer) -> Iterator[str]:
    """Fetch the full set once for this server, with progress, and say what comes next."""
    for progress in compression.download_cifar10(explorer.root):
        if progress.fraction < 1:  # the last one names a folder of the server
            yield html.status(f"{progress.stage} ...", progress.fraction)
    yield html.status(FETCHED)


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
            _choices(explorer), value=explorer.start, label="Dense model to start from",
            info=MODELS_INFO, scale=2,
        )  # fmt: skip
        with gr.Column(scale=4, min_width=260):
            line = gr.HTML(html.status("Loading the model ..."), elem_id="model-line")
    with gr.Accordion("Other images, or a checkpoint of your own", open=False):
        with gr.Row(elem_id="source-row"):
            source = gr.Radio(
                IMAGES, value=explorer.source, label="Images to measure on", info=IMAGES_INFO,
                scale=3,
            )  # fmt: skip
            fetch = gr.Button(FETCH, size="sm", min_width=190)
            upload = gr.UploadButton(
                "Upload a checkpoint of this project (.safetensors)",
                size="sm",
                min_width=230,
                elem_id="model-upload",
            )
        fetched = gr.HTML(elem_id="download-status")

    work: dict[str, Any] = WORK | {"show_progress": "minimal", "show_progress_on": line}
    chose_model = model.input(
        working(choose_model, explorer), [session, model], [session, start, line],
        api_name="choose_model", **work,
    )  # fmt: skip
    upload.upload(
        working(upload_model, explorer), [session, upload], [session, start, line, model],
        api_name="upload_model", **work,
    )  # fmt: skip
    chose_images = source.input(
        working(choose_images, explorer), [session, source], [session, start, line, model, fetched],
        api_name="choose_images", **work,
    )  # fmt: skip
    for event in (chose_model, chose_images):
        event.failure(
            chosen, session, [model, source], api_visibility="private", show_progress="hidden"
        )
    fetching = fetch.click(
        bound(download, explorer), None, fetched, api_name="download", show_progress="hidden",
        concurrency_id="download", concurrency_limit=1,
    )  # fmt: skip
    settle([fetching], fetched)
    page.load(
        bound(first_line, explorer), session, line,
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip
