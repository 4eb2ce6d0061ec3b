"""The Quantize tab: shared weights by k-means, their codebook, and centroid training."""

from typing import Any

import gradio as gr

from compression.presets import SHIPPED, layer_names
from compression.recorded_machine import machine_text
from compression.ui import html, packed_section, size_fit, size_plots, timing
from compression.ui import quantize_steps as steps
from compression.ui.budget import drop_bits, empty_bits, fill_bits, show_bits
from compression.ui.cancelling import cancel_by, cancelled, settle
from compression.ui.explorer import SUGGESTED_KIB, WORK, Explorer
from compression.ui.guard import bound, working
from compression.ui.recorded import codebook_kinds

LEAD = (
    "k-means quantization lets the weights of a layer share a few values (centroids), together its "
    "codebook: at b bits each weight is only the number of one of 2^b values. Fewer bits, smaller "
    "file, coarser weights. Pruned weights keep an exact zero, which takes one of the values."
)
SIZE_LEAD = (
    "Choose a size instead of bits. Each weight takes the value that costs least in error and in "
    "bytes together; what a byte costs is set so that the file fits. Weights that matter little "
    "become zero. Then rounding errors make up for each other and batch norm is recalibrated. "
    "About a minute for resnet9-s."
)
KINDS_LEAD = (
    "The course report saw accuracy fall at 4 and 2 bits. Part of that is the codebook: at 4 bits "
    "fast-pytorch-kmeans, the package of usual courses, loses points that the best codebook keeps. "
    "At 8 bits it makes no difference, and at 2 even the best one is not enough: recalibrate batch "
    "norm, or let errors make up for each other. The same checkpoint three ways, neither done:"
)
TRAIN_RULE = (
    f"Offered once a quantized model has lost more than {100 * steps.TRAINING_DROP:g} points of "
    "accuracy: below that the course report does not train either."
)
EPOCHS = 2  # of training, as first offered
KINDS = {
    "kmeans": "k-means, the best codebook (here)",
    "fast-pytorch-kmeans": "fast-pytorch-kmeans (mean of 2)",
    "linear": "evenly spaced levels",
}
QUICK: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": 4}
PRIVATE: dict[str, Any] = QUICK | {"api_visibility": "private"}


def build(
    page: gr.Blocks,
    explorer: Explorer,
    session: gr.State,
    start: gr.State,
    cleared: gr.State,
    by_goal: Any,
) -> None:
    """Components, then events; cleared: counts how often the visit was begun anew; by_goal: pruning
    by a goal for the file, which fills this table."""
    names = layer_names(explorer.preset)
    filled = gr.State(False)  # whether the table of widths is a goal's
    followed = gr.State(None)  # the pruned model that the choice of what to quantize has followed
    gr.HTML(f'<p class="cx-lead">{LEAD}</p>')
    with gr.Row(elem_classes="cx-sides"):
        with gr.Column(scale=2, min_width=290):
            source = gr.Radio(
                list(steps.SOURCES), value=steps.SOURCES[0], label="Model to quantize",
                info="pruned model: what the Prune tab made last.",
            )  # fmt: skip
            bits = gr.Radio(list(steps.BITS), value=4, label="Bit width (bits for each weight)")
            spare = gr.Checkbox(
                label=f"{steps.EDGE_BITS} bits for the first and the last layer",
                info="They hold few weights, some KiB of the file, and few bits harm them most.",
            )
            told = gr.HTML(visible=False, elem_id="quantize-filled")
            with gr.Accordion("Another width for some layers", open=False) as others:
                overrides = gr.Dataframe(
                    [[name, ""] for name in names],
                    headers=steps.HEADERS,
                    datatype=["str", "str"],
                    type="array",
                    interactive=True,
                    static_columns=[0],
                    label="1 to 8 bits; empty means as above",
                    elem_id="quantize-table",
                    buttons=[],
                )
                empty = gr.Button("Empty the table", size="sm")
            rounding = gr.Radio(
                list(steps.ROUNDINGS), value=steps.ROUNDINGS[0], label="Rounding of the weights",
                info="Nearest: each weight by itself, as in Deep Compression. Make up: one weight "
                "after another, and those not yet rounded shift to cancel the error so far, judged "
                "on 512 training images; about 15 s for resnet9-s, far better at few bits.",
            )  # fmt: skip
            press = gr.Button("Quantize", variant="primary")
            with gr.Accordion("Or: for a size of the file", open=True):
                gr.HTML(f'<p class="cx-lead">{SIZE_LEAD}</p>')
                with gr.Row():
                    budget = gr.Number(
                        SUGGESTED_KIB[explorer.preset], label="Compressed file (KiB)",
                        minimum=1, precision=0, min_width=120,
                    )  # fmt: skip
                    fit = gr.Button("Quantize for this size", min_width=170)
            recover = gr.Button("Recalibrate batch norm")
            learning = gr.Radio(
                list(steps.LEARNING), value=steps.LEARNING[0], label="What training may change",
                info="The first: each weight keeps its centroid, and the centroids' values are "
                "trained, as in Deep Compression. The second: weights may also move to another "
                "centroid; it did not help in our records where errors had made up for each other, "
                "and the file may grow past a size you asked for. Pruned zeros stay zero.",
            )  # fmt: skip
            epochs = gr.Slider(
                1, timing.MOST_EPOCHS, EPOCHS, step=1,
                label="Training epochs (passes over the images)",
            )  # fmt: skip
            hint = gr.HTML(timing.first_guess(explorer, EPOCHS))
            with gr.Row():
                train = gr.Button("Train the centroids", interactive=False, min_width=150)
                cancel = gr.Button("Cancel", variant="stop", min_width=90)
            gr.HTML(f'<p class="cx-lead">{TRAIN_RULE}</p>')
        with gr.Column(scale=3, min_width=290):
            status = gr.HTML(elem_id="quantize-status")
            cards = gr.HTML(html.empty(steps.EMPTY), elem_id="quantize-result")
            curve = gr.Plot(label="Centroid training", show_label=False, visible=False)
            layer = gr.Dropdown(names, value="conv4", label="Weights and codebook of layer")
            codebook = gr.Plot(label="Codebook", show_label=False)
    packed_section.build(explorer, session, start, cleared)
    _codebook_kinds()
    gr.HTML(
        html.note(
            "In the course report the quantized model (29.03 MiB) came out larger than the pruned "
            "one (12.88 MiB). The reason is its formula: it gives all parameters 8 bits, zeros "
            "too. Counted in full, zeros cost only their place in a sparse index."
        )
    )

    outputs = [session, status, cards, curve, train]
    work: dict[str, Any] = WORK | {"show_progress": "minimal", "show_progress_on": status}
    runs: list[Any] = [
        press.click(
            working(steps.quantize_layers, explorer),
            [session, source, bits, overrides, rounding, spare], outputs,
            api_name="quantize", **work,
        ),
        fit.click(
            working(size_fit.quantize_for_size, explorer), [session, source, budget], outputs,
            api_name="quantize_for_size", **work,
        ),
        recover.click(
            working(steps.recalibrate, explorer), session, outputs,
            api_name="recalibrate_quantized", **work,
        ),
        train.click(
            working(steps.train, explorer), [session, epochs, learning], outputs,
            api_name="train_centroids", **work,
        ),
    ]  # fmt: skip
    said = cancelled("Cancelled. The quantized model is as it was.")
    cancel_by(cancel, runs, said, status, status)
    settle(runs, status)
    # One listener: an older answer must not overtake a newer one.
    gr.on(
        [layer.change, session.change, page.load],
        bound(steps.show_codebook, explorer), [session, layer], codebook,
        api_name="codebook", trigger_mode="always_last", **QUICK,
    )  # fmt: skip
    by_goal.success(bound(fill_bits, explorer), session, [overrides, status], **PRIVATE)
    widths = [overrides, told, filled]
    by_goal.success(show_bits, session, [others, told, filled], **PRIVATE)
    empty.click(bound(empty_bits, explorer), session, widths, **PRIVATE)
    session.change(bound(drop_bits, explorer), [session, filled], widths, **PRIVATE)
    session.change(steps.follow_cut, [session, followed], [source, followed], **PRIVATE)
    gr.on(
        [start.change, cleared.change],
        bound(steps.fresh, explorer), session,
        [overrides, layer, cards, status, curve, train, source], **PRIVATE,
    )  # fmt: skip
    timing.keep_true(hint, explorer, session, start, epochs)
    start.change(bound(Explorer.suggested_kib, explorer), session, budget, **PRIVATE)


def _codebook_kinds() -> None:
    """The recorded answer to the report's "at 4 and 2 bits the performance dropped a lot"."""
    recorded = codebook_kinds(SHIPPED[0])
    if recorded is None:
        return
    gr.Markdown("### What a better codebook buys, without any training")
    gr.HTML(f'<p class="cx-lead">{KINDS_LEAD}</p>')
    figure = size_plots.codebook_kinds(recorded["rows"], recorded["dense_accuracy"], KINDS)
    gr.Plot(figure, show_label=False)
    rows = [row for row in recorded["rows"] if row["kind"] == "kmeans"]
    best = ", ".join(f"{row['accuracy']:.2%} at {row['bits']}" for row in rows)
    text = f"Recorded on {rows[0]['total']:,} test images by `{recorded['command']}` on "
    machine = machine_text(recorded["machine"])
    gr.Markdown(f"{text}{machine}. With the best codebooks: {best} bits.")
