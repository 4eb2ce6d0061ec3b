"""What the Prune tab does: fill the table, prune, recalibrate, fine-tune, show the weights."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

import compression
from compression.inputs import InputError, choice, real
from compression.ui import html, plots
from compression.ui.explorer import Explorer
from compression.ui.layer_table import layer_rows
from compression.ui.session import Session
from compression.ui.timing import Clock, checked_epochs

if TYPE_CHECKING:
    import torch

    from compression.report import Variant

NO_CURVE = gr.update(value=None, visible=False)
HEADERS = ["Layer", "Weights", "Zeros %"]
PRESS = "Prune with this table"
PRUNED = (
    "Pruned. Next: recalibrate batch norm or fine-tune, to win accuracy back; then Quantize, which "
    "takes the pruned model from here."
)
EMPTY = f'Nothing pruned yet. Fill the table and press "{PRESS}", or let a button fill it.'


def dense_table(explorer: Explorer, session: Session) -> list[list[Any]]:
    """The table of a model that nobody has pruned: each layer with its weights, at 0 %."""
    layers = compression.prunable_layers(explorer.model(session.start))
    return [[name, module.weight.numel(), 0.0] for name, module in layers.items()]


def fill_uniform(explorer: Explorer, session: Session, sparsity: float) -> list[list[Any]]:
    """The same sparsity (percent) in every layer."""
    sparsity = real("sparsity", sparsity, 0, 100, "%")
    return [[name, weights, sparsity] for name, weights, _ in dense_table(explorer, session)]


def fill_from_scan(
    explorer: Explorer, session: Session, scanned: dict[str, Any] | None, max_drop: float
) -> list[list[Any]]:
    """Each layer's largest scanned sparsity that loses at most `max_drop` points by itself."""
    max_drop = real("tolerated drop", max_drop, 0, 100, "points")
    if not scanned:
        raise InputError("A scan of this model is expected first, got none: run one on its tab.")
    chosen = compression.suggest_sparsities(
        scanned["points"], scanned["dense_accuracy"], max_drop / 100
    )
    return [
        [name, weights, round(100 * chosen.get(name, 0.0), 2)]
        for name, weights, _ in dense_table(explorer, session)
    ]


def read_table(rows: object, layers: Sequence[str]) -> dict[str, float]:
    """The visitor's table as layer -> sparsity in 0..1; InputError for a cell that is none."""
    read = layer_rows(rows, "layer, weights and sparsity", layers)
    return {row[0]: _percent(row[0], row[2]) / 100 for row in read}


def _percent(layer: str, cell: object) -> float:
    try:
        value = float(str(cell).replace("%", "").replace(",", "."))
    except ValueError:
        value = cell
    return real(f"sparsity of {layer}", value, 0, 100, "%")


Answer = tuple[Any, Any, Any, Any]


def prune_layers(explorer: Explorer, session: Session, rows: object) -> Iterator[Answer]:
    """Prune and measure; yields session, status, cards and curve."""
    start = explorer.variant(session.start)
    asked = read_table(rows, list(compression.prunable_layers(start.model)))
    sparsities = compression.with_present_zeros(start.model, asked)
    yield (
        gr.skip(),
        html.status("Pruning and measuring on the test images ...", 0.3),
        gr.skip(),
        NO_CURVE,
    )
    pruned = compression.prune(start.model, sparsities)
    name = f"{start.name} · {pruned.sparsity:.0%} pruned"
    variant = compression.make_variant(
        name,
        (*start.steps, f"pruned to {pruned.sparsity:.1%} zeros"),
        pruned.model,
        explorer.images("test", session.source),
        masks=pruned.masks,
    )
    session = session.with_cut(explorer.put(variant))
    yield (
        session,
        html.status(PRUNED),
        result(explorer, session),
        NO_CURVE,
    )


def recalibrate(explorer: Explorer, session: Session) -> Iterator[Answer]:
    """Re-estimate batch norm of the pruned model on training images."""
    before = _pruned(explorer, session)
    train_set = explorer.images("train", session.source)
    text = f"Passing {len(train_set):,} training images through the pruned model ..."
    yield gr.skip(), html.status(text, 0.4), gr.skip(), gr.skip()
    model = compression.recalibrate_batch_norm(before.model, train_set.images)
    session = _keep(explorer, session, before, model, "recalibrated", "batch norm recalibrated")
    done = html.status("Recalibrated: no weight moved, only batch norm's statistics.")
    yield session, done, result(explorer, session), gr.skip()


def tune(explorer: Explorer, session: Session, epochs: float) -> Iterator[Answer]:
    """Fine-tune with the masks held, yielding the live curve; keeps the best validation epoch."""
    before = _pruned(explorer, session)
    epochs = checked_epochs(explorer, session, epochs)
    config = dataclasses.replace(compression.FINE_TUNE, epochs=epochs)
    validation = explorer.images("validation", session.source)
    yield gr.skip(), html.status("Preparing ...", 0.0), gr.skip(), NO_CURVE
    pruned = compression.evaluate(before.model, validation.images, validation.labels)
    levels = {"before fine-tuning": pruned.accuracy}
    rows: list[Any] = []
    clock = Clock()
    for found in compression.train_by_step(
        before.model,
        explorer.images("train", session.source),
        validation,
        config,
        masks=before.masks,
    ):
        if isinstance(found, compression.StepResult):
            done = html.step_fraction(found)
            text = f"Epoch {found.epoch} of {epochs}, step {found.step} of {found.steps}"
            status = html.status(f"{text}{clock.left(done)} ...", done)
            yield gr.skip(), status, gr.skip(), gr.skip()
            continue
        rows.append(found)
        text = (
            f"Epoch {found.epoch} of {epochs}: {found.accuracy:.2%} on the validation images, "
            f"best {found.best_accuracy:.2%}, {found.seconds:.0f} s an epoch"
        )
        figure = gr.update(value=plots.recovery_curve(rows, epochs, levels), visible=True)
        yield gr.skip(), html.status(text, found.epoch / epochs), gr.skip(), figure
    best = rows[-1]
    step = f"fine-tuned {html.count(epochs, 'epoch')}, best of them {best.best_epoch}"
    session = _keep(explorer, session, before, best.best_model, "tuned", step)
    text = f"Fine-tuned. Kept epoch {best.best_epoch}, the best on the validation images."
    if best.best_accuracy < pruned.accuracy:
        text += f" That was {best.best_accuracy:.2%} there; {pruned.accuracy:.2%} before."
    yield session, html.status(text), result(explorer, session), gr.skip()


def _pruned(explorer: Explorer, session: Session) -> "Variant":
    if session.pruned is None:
        raise InputError(f'A pruned model is expected first, got none: press "{PRESS}".')
    return explorer.variant(session.pruned)


def _keep(
    explorer: Explorer,
    session: Session,
    before: "Variant",
    model: "torch.nn.Module",
    tag: str,
    step: str,
) -> Session:
    """Measure the recovered model and make it the visit's pruned one."""
    variant = compression.make_variant(
        f"{before.name} · {tag}",
        (*before.steps, step),
        model,
        explorer.images("test", session.source),
        masks=before.masks,
    )
    return session.with_pruned(explorer.put(variant))


def result(explorer: Explorer, session: Session) -> str:
    """Cards of the pruned model beside the dense one."""
    if session.pruned is None:
        return html.empty(EMPTY)
    now = explorer.variant(session.pruned)
    return html.cards(
        [
            html.accuracy_card(now, explorer.find(session.start)),
            html.Card("Zeros", _zeros(now), "of the weights of convolutions and linear layers"),
            html.Card(
                "Size, counted in full",
                html.size(now.size.stored_bytes),
                f"dense {html.size(now.size.dense_bytes)}; float32 values with a sparse index",
            ),
            html.Card(
                "Report's sparse size",
                html.size(now.size.report_sparse_bytes),
                "non-zeros x 4 bytes; forgets the index",
            ),
            html.Card(
                "Multiply-accumulates",
                f"{now.complexity.macs / 1e6:.1f} M",
                "unchanged: zeros are multiplied too, so this model is not faster",
            ),
        ]
    )


def _zeros(variant: "Variant") -> str:
    layers = variant.size.layers
    return f"{1 - sum(x.nonzeros for x in layers) / sum(x.weights for x in layers):.1%}"


def show_histogram(explorer: Explorer, session: Session, layer: str) -> Any:
    """The layer's weights in the dense model, as cut, and after recovery, where that moved them;
    as far as the server still has these."""
    stages = {"dense": explorer.variant(session.start)}
    recovered = session.pruned if session.pruned != session.cut else None
    for stage, key in (("pruned", session.cut), ("recovered", recovered)):
        variant = explorer.find(key) if key is not None else None
        if variant is not None:
            stages[stage] = variant
    weights = {}
    for stage, variant in stages.items():
        layers = compression.prunable_layers(variant.model)
        weights[stage] = layers[choice("layer", layer, layers)].weight.detach()
    if "pruned" in weights and "recovered" in weights:
        if weights["recovered"].equal(weights["pruned"]):  # recalibration moves no weight
            del weights["recovered"]
    span = max(weight.abs().max().item() for weight in weights.values())
    mask = stages["pruned"].masks.get(layer) if "pruned" in stages else None
    threshold = compression.threshold_of(weights["dense"], mask) if mask is not None else None
    return plots.weight_histograms(
        {
            stage: compression.weight_histogram(weight, threshold=threshold, span=span)
            for stage, weight in weights.items()
        }
    )


def fresh(explorer: Explorer, session: Session) -> tuple[Any, ...]:
    """The tab for another dense model: its layers, nothing pruned yet."""
    rows = dense_table(explorer, session)
    names = [row[0] for row in rows]
    return rows, gr.update(choices=names, value=names[0]), result(explorer, session), "", NO_CURVE
