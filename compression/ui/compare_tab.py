"""The Compare tab: every variant of this visit and the shipped ones, side by side."""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

import compression
from compression.presets import SHIPPED
from compression.ui import front_section, html, plots
from compression.ui.cancelling import cancelled
from compression.ui.explorer import WORK, Explorer
from compression.ui.guard import bound
from compression.ui.session import Session

if TYPE_CHECKING:
    from compression.report import Variant

LEAD = (
    "Everything made in this visit beside the shipped models, measured on the same test images. "
    "Small and accurate is up and to the left. Where intervals overlap, the images do not tell "
    "which of two models is better."
)
HEAD = [
    "Variant",
    "Accuracy|95 % interval",
    "F1|and recall, macro",
    "File|on disk",
    "Smaller|than dense",
    "By formula|in full, and the report's",
    "MACs|an image",
    "Non-zeros|of parameters",
    "Batch 1|p10 to p90",
    "Batch 256|p10 to p90",
]


def all_keys(explorer: Explorer, session: Session) -> list[str]:
    """Shipped models, the visit's own dense model, and what was made, each once."""
    names = (*SHIPPED, *explorer.packed)
    shipped = [explorer.key_of(name, session.source) for name in names]
    return list(dict.fromkeys([*shipped, session.start, *session.made]))


def variants_of(explorer: Explorer, session: Session) -> list["Variant"]:
    """The variants behind those keys, their names made distinct."""
    found: list[Variant] = []
    measured = dict(session.latency)
    for key in all_keys(explorer, session):
        variant = compression.with_latency(explorer.variant(key), measured.get(key, ()))
        repeats = sum(other.name.split(" #")[0] == variant.name for other in found)
        if repeats:
            variant = dataclasses.replace(variant, name=f"{variant.name} #{repeats + 1}")
        found.append(variant)
    return found


def compare(explorer: Explorer, session: Session) -> Iterator[tuple[Any, ...]]:
    """A status line while shipped models are measured for the first time, then all of the tab."""
    waiting = [key for key in all_keys(explorer, session) if not explorer.is_measured(key)]
    for k, key in enumerate(waiting):
        name = key.partition(":")[2]
        text = f"Measuring {name} on the test images, {k + 1} of {len(waiting)} ..."
        yield html.status(text, k / len(waiting)), *[gr.skip()] * 6
        explorer.variant(key)
    yield "" if waiting else gr.skip(), *comparison(explorer, session)


def comparison(explorer: Explorer, session: Session) -> tuple[Any, ...]:
    """Table, both figures, the images on which variants disagree, and the two files."""
    variants = variants_of(explorer, session)
    return (
        html.table(HEAD, [_table_row(variant) for variant in variants]),
        plots.size_against_accuracy(variants),
        plots.per_class_accuracy(variants),
        _disagreements(explorer, session, variants),
        _file("comparison.csv", compression.to_csv(variants)),
        _file("comparison.json", compression.to_json(variants)),
    )


def _table_row(variant: "Variant") -> list[str]:
    evaluation, size, cost = variant.evaluation, variant.size, variant.complexity
    report = size.report_quantized_bytes or size.report_sparse_bytes
    times = {latency.batch_size: latency for latency in variant.latency}
    return [
        f"{variant.name}|{'; '.join(variant.steps)}",
        f"{evaluation.accuracy:.2%}|{evaluation.low:.1%} to {evaluation.high:.1%}",
        f"{evaluation.macro.f1:.4f}|{evaluation.macro.recall:.4f}",
        html.size(variant.packed_bytes or size.stored_bytes),
        f"{size.dense_bytes / (variant.packed_bytes or size.stored_bytes):.1f} x",
        f"{html.size(size.stored_bytes)}|report: {html.size(report)}",
        f"{cost.macs / 1e6:.1f} M",
        f"{cost.nonzero_parameters:,}|of {cost.parameters:,}",
        *(
            f"{times[k].median_ms:.1f} ms|{times[k].p10_ms:.1f} to {times[k].p90_ms:.1f}"
            if k in times
            else "not measured"
            for k in (1, 256)
        ),
    ]


def _disagreements(explorer: Explorer, session: Session, variants: list["Variant"]) -> str:
    test_set = explorer.images("test", session.source)
    places = compression.disagreements(variants, limit=18)
    if not places:
        return html.empty("All variants give the same answer to every test image.")
    pictures = []
    for place in places:
        answers: dict[str, int] = {}
        for variant in variants:
            answer = test_set.classes[int(variant.evaluation.predictions[place])]
            answers[answer] = answers.get(answer, 0) + 1
        said = ", ".join(f"{answer} x{count}" for answer, count in answers.items())
        truth = test_set.classes[int(test_set.labels[place])]
        pictures.append((test_set.images[place].numpy(), f"{truth}; said: {said}"))
    return html.figures(pictures, "cx-tiles wide")


def _file(name: str, text: str) -> str:
    """A file in a folder of its own, for the visitor to download."""
    path = Path(tempfile.mkdtemp(prefix="comparison-")) / name
    path.write_text(text)
    return str(path)


def measure(explorer: Explorer, session: Session) -> Iterator[tuple[Any, ...]]:
    """Latency of all variants in turn, into the visitor's session, then the whole tab anew."""
    keys = all_keys(explorer, session)
    text = f"Timing {len(keys)} variants in turn, batch 1 and batch 256 ..."
    yield gr.skip(), html.status(text, 0.2), *[gr.skip()] * 6
    models = {key: explorer.variant(key).model for key in keys}
    measured = compression.measure_latency(models)
    session = session.with_latency(measured)
    first = measured[keys[0]][0]
    text = (
        f"Measured on this server: {first.threads} threads, median of {first.repeats} rounds, "
        "variants in turn. Zeros and shared values do not make dense arithmetic faster."
    )
    yield session, html.status(text), *comparison(explorer, session)


def build(explorer: Explorer, session: gr.State, tab: gr.Tab) -> None:
    """Components, then events."""
    gr.HTML(f'<p class="cx-lead">{LEAD}</p>')
    with gr.Row():
        time = gr.Button("Measure latency", variant="primary", min_width=140)
        cancel = gr.Button("Cancel", variant="stop", min_width=90)
        csv_file = gr.DownloadButton("Download CSV", min_width=120)
        json_file = gr.DownloadButton("Download JSON", min_width=120)
        clear = gr.Button("Clear my variants", min_width=120)
    status = gr.HTML(elem_id="compare-status")
    table = gr.HTML(html.empty("Measuring the shipped models ..."), elem_id="compare-table")
    with gr.Row():
        sizes = gr.Plot(show_label=False, min_width=320)
        classes = gr.Plot(show_label=False, min_width=320)
    gr.Markdown("### Test images on which the variants disagree")
    differing = gr.HTML(elem_id="compare-disagreements")

    front_section.build()

    outputs = [table, sizes, classes, differing, csv_file, json_file]
    options: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": status}
    # One after another: a table of before must not overtake the one of now.
    gr.on(
        [tab.select, session.change],
        bound(compare, explorer),
        session,
        [status, *outputs],
        api_name="compare",
        concurrency_limit=2,
        trigger_mode="always_last",
        **options,
    )
    run = time.click(
        bound(measure, explorer),
        session,
        [session, status, *outputs],
        api_name="latency",
        **WORK,
        **options,
    )
    cancel.click(
        cancelled("Cancelled."),
        None,
        status,
        cancels=[run],
        concurrency_limit=None,
        api_visibility="private",
    )
    clear.click(Session.cleared, session, session, api_name="clear_variants")
