"""What the Quantize tab does for a size: zeros, levels and codes for a file of so many KiB."""

from collections.abc import Iterator

import gradio as gr

import compression
from compression.inputs import real
from compression.ui import html
from compression.ui.explorer import Explorer
from compression.ui.quantize_steps import (
    COMPENSATION_IMAGES,
    NO_CURVE,
    Answer,
    loses_much,
    result,
    source_key,
    source_variant,
)
from compression.ui.session import Session


def quantize_for_size(
    explorer: Explorer, session: Session, source: str, kib: float
) -> Iterator[Answer]:
    """Fit the file, recalibrate and measure; yields session, status, cards, curve, and the training
    button."""
    before = source_variant(explorer, session, source)
    budget = 1024 * real("size", kib, 1, 2**20, "KiB")
    train_set = explorer.images("train", session.source)
    few = train_set.images[:COMPENSATION_IMAGES]
    text = "Measuring what an error in each layer costs, and looking for the price of a bit ..."
    yield gr.skip(), html.status(text, 0.1), gr.skip(), NO_CURVE, gr.skip()
    name = f"{before.name} · {kib:g} KiB"
    steps = (
        *before.steps,
        f"quantized for at most {kib:g} KiB",
        f"rounding errors made up for on {len(few)} training images",
        "batch norm recalibrated",
    )
    trials = compression.fit_entropy_by_trial(
        before.model, budget, few, before.masks,
        overhead=compression.description_bytes(name, steps),
    )  # fmt: skip
    quantized, best_bytes = None, 0
    for number, trial in enumerate(trials):
        quantized, best_bytes = trial.best, trial.best_bytes
        text = f"Made a file of {html.size(trial.packed_bytes)}; {html.size(budget)} were asked for"
        status = html.status(f"{text} ...", min(0.9, 0.3 + 0.15 * number))
        yield gr.skip(), status, gr.skip(), gr.skip(), gr.skip()
    assert quantized is not None  # where none fits, the trials end with an InputError
    model = compression.recalibrate_batch_norm(quantized.model, train_set.images)
    variant = compression.make_variant(
        name,
        steps,
        model,
        explorer.images("test", session.source),
        masks=quantized.masks,
        layers=quantized.layers,
    )
    session = session.with_quantized(explorer.put(variant), before=source_key(session, source))
    drop = before.evaluation.accuracy - variant.evaluation.accuracy
    layers = variant.size.layers
    zeros = 1 - sum(layer.nonzeros for layer in layers) / sum(layer.weights for layer in layers)
    text = (
        f"Quantized to a file of {html.size(best_bytes)}: {html.points(-drop)} against "
        f"{before.name}, {zeros:.0%} of the weights zero. Make the file below"
        + (", or train the centroids first." if loses_much(drop) else ".")
    )
    offered = gr.update(interactive=loses_much(drop))
    yield session, html.status(text), result(explorer, session), NO_CURVE, offered
