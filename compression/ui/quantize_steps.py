"""What the Quantize tab does: quantize, show a layer's codebook, train the centroids."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

import compression
from compression.inputs import InputError, choice, whole
from compression.ui import html, plots
from compression.ui.explorer import Explorer
from compression.ui.layer_table import layer_rows
from compression.ui.session import Session
from compression.ui.timing import Clock, checked_epochs

if TYPE_CHECKING:
    from compression.report import Variant

NO_CURVE = gr.update(value=None, visible=False)
HEADERS = ["Layer", "Bits"]
EMPTY = (
    "Nothing quantized yet. Choose the bits and press Quantize: the layer's few values then stand "
    "in the figure below."
)
BITS = (8, 4, 2)
SOURCES = ("dense model", "pruned model")
ROUNDINGS = ("each weight to the nearest", "errors make up for each other")
COMPENSATION_IMAGES = 512
LEARNING = ("the centroids", "the centroids, and which of them a weight takes")
BATCH = 64  # training codes: larger ones would make few steps of the sample
EDGE_BITS = 8  # of the first and the last layer, where they are spared
TRAINING_DROP = 0.005  # the course report trains the centroids where more than this is lost

Answer = tuple[Any, Any, Any, Any, Any]


def empty_overrides(explorer: Explorer, session: Session) -> list[list[Any]]:
    """A row for each layer with nothing filled in: every layer takes the common bit width."""
    layers = compression.prunable_layers(explorer.model(session.start))
    return [[name, ""] for name in layers]


def read_bits(
    bits: object, rows: object, layers: Sequence[str], spare: object = False
) -> dict[str, int]:
    """Layer -> bits: the table's where a cell holds a number, else the common width, or where
    `spare` is set EDGE_BITS for the first and the last of the layers."""
    common, spare = int(choice("bits", bits, BITS)), choice("spare", spare, (True, False))
    widths = {}
    for layer, cell in layer_rows(rows, "layer and bits", layers):
        blank = cell is None or cell == "" or cell != cell
        usual = EDGE_BITS if spare and layer in (layers[0], layers[-1]) else common
        widths[layer] = usual if blank else _width(layer, cell)
    return widths


def _width(layer: str, cell: object) -> int:
    try:
        value: object = float(str(cell))
    except ValueError:
        value = cell
    return whole(f"bits of {layer}", value, 1, 8)


def quantize_layers(
    explorer: Explorer,
    session: Session,
    source: str,
    bits: int,
    rows: object,
    rounding: str,
    spare: bool = False,
) -> Iterator[Answer]:
    """Quantize and measure; yields session, status, cards, curve, and the training button."""
    before = source_variant(explorer, session, source)
    widths = read_bits(bits, rows, list(compression.prunable_layers(before.model)), spare)
    compensated = choice("rounding", rounding, ROUNDINGS) == ROUNDINGS[1]
    text = "Finding each layer's best codebook and measuring on the test images ..."
    if compensated:
        text = f"Rounding layer after layer, by what {COMPENSATION_IMAGES} training images show ..."
    yield gr.skip(), html.status(text, 0.3), gr.skip(), NO_CURVE, gr.skip()
    label = _widths_text(int(bits), widths)
    steps = (*before.steps, f"k-means quantized to {label}")
    if compensated:
        images = explorer.images("train", session.source).images[:COMPENSATION_IMAGES]
        quantized = compression.quantize_compensated(before.model, widths, images, before.masks)
        steps = (*steps, f"rounding errors made up for on {len(images)} training images")
    else:
        quantized = compression.quantize(before.model, widths, before.masks)
    variant = compression.make_variant(
        f"{before.name} · {label}" + (" · compensated" if compensated else ""),
        steps,
        quantized.model,
        explorer.images("test", session.source),
        masks=quantized.masks,
        layers=quantized.layers,
    )
    session = session.with_quantized(explorer.put(variant), before=source_key(session, source))
    drop = before.evaluation.accuracy - variant.evaluation.accuracy
    text = f"Quantized: {html.points(-drop)} against {before.name}. "
    if loses_much(drop):
        ways = [] if spare or bits == EDGE_BITS else ["spare the first and the last layer"]
        ways += [] if compensated else ["let errors make up for each other", "recalibrate"]
        ways = ", ".join(ways) + ", or " if ways else ""
        text += f"That is more than 0.5 points lost: {ways}train the centroids to win it back."
    else:
        text += "No more than 0.5 points lost, so there is no need to train the centroids."
    offered = gr.update(interactive=loses_much(drop))
    yield session, html.status(text), result(explorer, session), NO_CURVE, offered


def loses_much(drop: float) -> bool:
    """Whether more is lost than TRAINING_DROP; exactly as much, a rounding error aside, is not."""
    return drop > TRAINING_DROP + 1e-9


def _widths_text(bits: int, widths: dict[str, int]) -> str:
    """`4 bits`, the same with the first and the last layer spared, or `mixed bits`."""
    blank, layers = [[layer, ""] for layer in widths], list(widths)
    if widths == read_bits(bits, blank, layers):
        return f"{bits} bits"
    spared = widths == read_bits(bits, blank, layers, True)
    return f"{bits} bits, first and last {EDGE_BITS}" if spared else "mixed bits"


def source_variant(explorer: Explorer, session: Session, source: str) -> "Variant":
    """The dense or the pruned model of this visit."""
    if source_key(session, source) is None:
        raise InputError("A pruned model is expected first, got none: prune one on the Prune tab.")
    return explorer.variant(str(source_key(session, source)))


def source_key(session: Session, source: str) -> str | None:
    """The key of the dense or the pruned model of this visit; None where nothing is pruned."""
    pruned = choice("model to quantize", source, SOURCES) == SOURCES[1]
    return session.pruned if pruned else session.start


def train(
    explorer: Explorer, session: Session, epochs: float, learning: str = LEARNING[0]
) -> Iterator[Answer]:
    """Train the latest quantized variant; zeros stay, and the codes too unless they may change."""
    before = _quantized(explorer, session)
    epochs = checked_epochs(explorer, session, epochs)
    moving = choice("what training may change", learning, LEARNING) == LEARNING[1]
    validation = explorer.images("validation", session.source)
    yield gr.skip(), html.status("Preparing ...", 0.0), gr.skip(), NO_CURVE, gr.skip()
    start = compression.evaluate(before.model, validation.images, validation.labels)
    levels = {"before training": start.accuracy}
    rows: list[Any] = []
    quantized = before.as_quantized()
    sets = (explorer.images("train", session.source), validation)
    if moving:
        dense = explorer.variant(str(session.unquantized)).model
        codes = dataclasses.replace(compression.CODE_TRAINING, epochs=epochs, batch_size=BATCH)
        steps = compression.train_codes_by_step(quantized, dense, *sets, codes)
    else:
        centroids = dataclasses.replace(compression.CentroidConfig(), epochs=epochs)
        steps = compression.train_centroids_by_step(quantized, *sets, centroids)
    clock = Clock()
    for found in steps:
        if isinstance(found, compression.StepResult):
            done = html.step_fraction(found)
            text = f"Epoch {found.epoch} of {epochs}, step {found.step} of {found.steps}"
            status = html.status(f"{text}{clock.left(done)} ...", done)
            yield gr.skip(), status, gr.skip(), gr.skip(), gr.skip()
            continue
        rows.append(found)
        text = f"Epoch {found.epoch} of {epochs}: {found.accuracy:.2%} on the validation images"
        figure = gr.update(value=plots.recovery_curve(rows, epochs, levels), visible=True)
        yield gr.skip(), html.status(text, found.epoch / epochs), gr.skip(), figure, gr.skip()
    best = rows[-1].best
    if best is quantized:
        text = (
            f"No epoch was better than the {rows[-1].best_accuracy:.2%} that the model had on the "
            "validation images before: it stays as it was."
        )
        yield gr.skip(), html.status(text), gr.skip(), gr.skip(), gr.skip()
        return
    step = "codes and centroids trained " if moving else "centroids trained "
    step += html.count(epochs, "epoch")
    variant = compression.make_variant(
        f"{before.name} · {'codes trained' if moving else 'trained'}",
        (*before.steps, step),
        best.model,
        explorer.images("test", session.source),
        masks=best.masks,
        layers=best.layers,
    )
    session = session.with_quantized(explorer.put(variant), before=session.unquantized)
    text = f"Trained. Kept epoch {rows[-1].best_epoch}, the best on the validation images."
    yield session, html.status(text), result(explorer, session), gr.skip(), gr.skip()


def recalibrate(explorer: Explorer, session: Session) -> Iterator[Answer]:
    """Re-estimate batch norm of the quantized model on training images; no code changes."""
    before = _quantized(explorer, session)
    train_set = explorer.images("train", session.source)
    text = f"Passing {len(train_set):,} training images through the quantized model ..."
    yield gr.skip(), html.status(text, 0.4), gr.skip(), gr.skip(), gr.skip()
    variant = compression.make_variant(
        f"{before.name} · recalibrated",
        (*before.steps, "batch norm recalibrated"),
        compression.recalibrate_batch_norm(before.model, train_set.images),
        explorer.images("test", session.source),
        masks=before.masks,
        layers=before.layers,
    )
    session = session.with_quantized(explorer.put(variant), before=session.unquantized)
    gain = variant.evaluation.accuracy - before.evaluation.accuracy
    text = f"Recalibrated: {html.points(gain)}. No weight moved, only batch norm's statistics."
    yield session, html.status(text), result(explorer, session), gr.skip(), gr.skip()


def _quantized(explorer: Explorer, session: Session) -> "Variant":
    if session.quantized is None:
        raise InputError("A quantized model is expected first, got none: press Quantize.")
    return explorer.variant(session.quantized)


def result(explorer: Explorer, session: Session) -> str:
    """Cards of the quantized model: accuracy, and its sizes by each way of counting."""
    if session.quantized is None or session.unquantized is None:
        return html.empty(EMPTY)
    now, before = explorer.variant(session.quantized), _unquantized(explorer, session)
    counted, report = now.size.stored_bytes, now.size.report_quantized_bytes or 0
    return html.cards(
        [
            html.accuracy_card(now, before),
            *_foretold(session, now),
            html.Card(
                "Size, counted in full",
                html.size(counted),
                f"{now.size.ratio:.1f} times smaller than dense float32; with codebooks "
                f"({html.size(now.size.codebook_bytes)}), sparse index, biases, batch norm",
            ),
            html.Card(
                "Report's formula",
                html.size(report),
                "all parameters x bits / 8: forgets the zeros and the codebooks",
            ),
            html.Card(
                "Distinct weights",
                f"{sum(len(layer.codebook) for layer in now.layers.values()):,}",
                f"in {len(now.layers)} codebooks, instead of {now.complexity.parameters:,}",
            ),
        ]
    )


def _foretold(session: Session, now: "Variant") -> list[html.Card]:
    """What the plan had said of this model, where it is the plan's."""
    plan = session.plan
    widths = tuple((name, layer.bits) for name, layer in now.layers.items())
    if plan is None or session.unquantized != session.pruned or set(widths) != set(plan.bits):
        return []
    off = now.evaluation.accuracy - plan.accuracy
    note = f"recalibrated, no weight trained; measured here: {html.points(off)} from that"
    return [html.Card("Predicted by the goal", html.percent(plan.accuracy), note)]


def _unquantized(explorer: Explorer, session: Session) -> "Variant | None":
    """What the quantized model was made of; the dense one where there is none, or it was dropped to
    make room; None where both were: a training that has ended is not to be lost for that."""
    found = explorer.find(session.unquantized) if session.unquantized else None
    return found or explorer.find(session.start)


def show_codebook(explorer: Explorer, session: Session, layer: str) -> Any:
    """A layer's weights before quantization; the codebook drawn over them, once there is one."""
    before = _unquantized(explorer, session) or explorer.variant(session.start)
    layers = compression.prunable_layers(before.model)
    weight = layers[choice("layer", layer, layers)].weight.detach()
    histogram = compression.weight_histogram(weight)
    made = explorer.find(session.quantized) if session.quantized else None  # None: dropped, too
    if made is None or layer not in made.layers:
        return plots.weight_histograms({"weights": histogram})
    quantized = made.layers[layer]
    counts = quantized.indices.flatten().long().bincount(minlength=len(quantized.codebook))
    return plots.codebook_over_histogram(histogram, quantized.codebook.tolist(), counts.tolist())


def follow_cut(session: Session, followed: str | None) -> tuple[Any, str | None]:
    """What to quantize, once a model has been pruned: that one; and the cut that was followed."""
    new = session.cut is not None and session.cut != followed
    return SOURCES[1] if new else gr.skip(), session.cut


def fresh(explorer: Explorer, session: Session) -> tuple[Any, ...]:
    """The tab for another dense model: its layers, nothing quantized yet."""
    rows = empty_overrides(explorer, session)
    names = [row[0] for row in rows]
    layer = gr.update(choices=names, value=names[0])
    cards, train = result(explorer, session), gr.update(interactive=False)
    return rows, layer, cards, "", NO_CURVE, train, SOURCES[0]
