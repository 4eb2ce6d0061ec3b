"""On the Quantize tab: the compressed file itself, to be taken home, and where its bytes are."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

import compression
from compression.inputs import InputError
from compression.ui import html, size_plots
from compression.ui.explorer import WORK, Explorer
from compression.ui.guard import working
from compression.ui.session import Session

if TYPE_CHECKING:
    from compression.packing import PackedInfo

LEAD = (
    "Formulas are promises; this is the file. Each layer's codes go through an entropy coder, so a "
    "frequent value, such as the zero of a pruned layer, costs a fraction of a bit. The file loads "
    "back to the same weights bit for bit, here or with <code>python -m compression unpack</code>. "
    "The server keeps it for an hour or two. It holds the model that you made last, pruned or "
    "quantized."
)
PRESS = "Make the file"
EMPTY = f'No file yet. Prune or quantize a model, then press "{PRESS}".'
WHOLE = "The whole file"
Answer = tuple[Any, Any, Any, Any, Any, Any, Any]


def make_file(explorer: Explorer, session: Session) -> Iterator[Answer]:
    """Pack what was made last, pruned or quantized: cards, both figures, the file, whose it is, its
    account, and the choice of what the ladder shows.

    The folder goes once Gradio has its own copy of the file, which it sweeps.
    """
    key = session.latest
    if key is None:
        raise InputError(
            "A pruned or quantized model is expected first, got none: make one on the Prune tab or "
            "above."
        )
    variant = explorer.variant(key)
    name = re.sub(r"[^\w.-]+", "-", variant.name).strip("-")[:60]
    with tempfile.TemporaryDirectory(prefix="packed-") as folder:
        path = Path(folder) / f"{name}.safetensors"
        info = compression.save_packed(variant, path)
        file = gr.update(
            value=str(path),
            interactive=True,
            label=f"Download the file ({html.size(info.total_bytes)})",
        )
        yield (
            _cards(info, variant.name),
            gr.update(value=size_plots.size_ladder(info.ladder), visible=True),
            gr.update(value=size_plots.layer_bytes(info), visible=True),
            file,
            key,
            info,
            gr.update(
                choices=[WHOLE, *(layer.name for layer in info.layers)], value=WHOLE, visible=True
            ),
        )


def ladder_of(info: "PackedInfo | None", shown: str) -> Any:
    """The ladder of the whole file, or of one of its layers."""
    if info is None:
        return gr.skip()
    layers = {layer.name: layer.rungs for layer in info.layers}
    return size_plots.size_ladder(layers.get(shown, info.ladder))


def _cards(info: "PackedInfo", name: str) -> str:
    over, total = info.total_bytes / info.bound_bytes - 1, info.total_bytes
    parts = ", ".join(f"{html.size(n)} {part}" for part, n in info.parts.items() if n)
    return html.cards(
        [
            html.Card("On disk", html.size(total), f"{total:,} bytes: {name}"),
            html.Card(
                "Smaller than float32",
                f"{info.ratio:.1f} x",
                "Deep Compression (2016) reports 35 to 49 times on far larger networks, most of "
                "whose weights are in layers that can lose more of them",
            ),
            html.Card(
                "Above Shannon's bound",
                f"{over:.2%}",
                f"{html.size(info.bound_bytes)} is the least for these codes (their entropy), with "
                "codebooks, biases and batch norm; the rest is the coder's tables and the header",
            ),
            html.Card("Where the bytes are", f"{len(info.layers)} layers", parts),
        ]
    )


def nothing() -> Answer:
    """The section for another dense model."""
    hidden = gr.update(value=None, visible=False)
    button = gr.update(value=None, interactive=False, label="Download the file")
    return html.empty(EMPTY), hidden, hidden, button, None, None, gr.update(visible=False)


def still(session: Session, held: str | None) -> Answer:
    """The section as it is, unless another model has been made since its file."""
    if held in (None, session.latest):
        return (gr.skip(),) * 7  # pyright: ignore[reportReturnType]
    return nothing()


def build(explorer: Explorer, session: gr.State, start: gr.State, cleared: gr.State) -> None:
    """Components, then events; cleared: counts how often the visit was begun anew."""
    gr.Markdown("### The compressed file")
    gr.HTML(f'<p class="cx-lead">{LEAD}</p>')
    with gr.Row():
        press = gr.Button(PRESS, variant="primary", min_width=140)
        file = gr.DownloadButton("Download the file", interactive=False, min_width=160)
    cards = gr.HTML(html.empty(EMPTY), elem_id="packed-result")
    shown = gr.Dropdown(
        [WHOLE], value=WHOLE, label="Ways to store", visible=False, elem_id="packed-shown",
        info="What each way would take. Light: what it saves (green) or adds (orange) against the "
        "way before it (gzip stands there to compare). Point at a bar to see how it counts.",
    )  # fmt: skip
    with gr.Row():
        ladder = gr.Plot(label="Ways to store it", show_label=False, visible=False, min_width=320)
        layers = gr.Plot(label="By layer", show_label=False, visible=False, min_width=320)

    held = gr.State(None)  # the key of the model in the file
    info = gr.State(None)  # its account
    outputs = [cards, ladder, layers, file, held, info, shown]
    press.click(
        working(make_file, explorer), session, outputs, api_name="pack",
        show_progress="minimal", show_progress_on=cards, **WORK,
    )  # fmt: skip
    shown.input(ladder_of, [info, shown], ladder, api_visibility="private", show_progress="hidden")
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    gr.on([start.change, cleared.change], nothing, None, outputs, **quiet)
    session.change(still, [session, held], outputs, **quiet)
