"""The Compare tab: every variant of this visit and the shipped ones, side by side."""

import dataclasses
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

import compression
from compression.presets import SHIPPED
from compression.ui import downloads, front_section, html, plots
from compression.ui.cancelling import cancel_by, cancelled, settle
from compression.ui.class_table import class_table
from compression.ui.disagreeing import disagreeing
from compression.ui.explorer import WORK, Explorer
from compression.ui.guard import bound, working
from compression.ui.session import Session
from compression.ui.timing import Clock

if TYPE_CHECKING:
    from compression.report import Variant

LEAD = (
    "Everything made in this visit beside the shipped models, measured on the same test images. "
    "Small and accurate is up and to the left. Where two intervals lie apart, the difference is "
    "more than chance; where they overlap, the intervals alone cannot tell. Files named packed/ "
    "come with the explorer, trained for their size."
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
    "Latency|1 image",
    "Latency|256 images",
]
WORDS = (
    "F1 and recall are means over the ten classes, each counted alike (macro). Latency is the "
    "median of many rounds for that many images at once; below it p10 to p90: one round in ten was "
    "faster than the first time, and one in ten slower than the second."
)
TELL_SECONDS = 1.0  # between two lines on the timing: sending them would be timed along
LATER = "Comes once the models are measured."
TIMING = "Timing"  # what the status begins with while latency is measured
CLEARED = "Cleared: your variants are gone; what you had set on the other tabs is as it was."


def all_keys(explorer: Explorer, session: Session) -> list[str]:
    """Shipped models, the visit's own dense model, and what was made, each once."""
    names = (*SHIPPED, *explorer.packed)
    shipped = [explorer.key_of(name, session.source) for name in names]
    return list(dict.fromkeys([*shipped, session.start, *session.made]))


def variants_of(explorer: Explorer, session: Session) -> dict[str, "Variant"]:
    """The variants behind those keys, their names made distinct; none for a key whose variant was
    dropped to make room."""
    found: dict[str, Variant] = {}
    measured = dict(session.latency)
    for key in all_keys(explorer, session):
        variant = explorer.find(key)
        if variant is None:
            continue
        variant = compression.with_latency(variant, measured.get(key, ()))
        repeats = sum(other.name.split(" #")[0] == variant.name for other in found.values())
        if repeats:
            variant = dataclasses.replace(variant, name=f"{variant.name} #{repeats + 1}")
        found[key] = variant
    return found


def compare(
    explorer: Explorer, session: Session, in_sight: bool | None = None
) -> Iterator[tuple[Any, ...]]:
    """A status line while shipped models are measured for the first time, then all of the tab.

    in_sight: whether the visitor has the tab open; None for a client without tabs.
    """
    if in_sight is False:
        yield tuple([gr.skip()] * 5)
        return
    waiting = [key for key in all_keys(explorer, session) if not explorer.is_measured(key)]
    for k, key in enumerate(waiting):
        name = key.partition(":")[2]
        text = f"Measuring {name} on the test images, {k + 1} of {len(waiting)} ..."
        yield html.status(text, k / len(waiting)), *[gr.skip()] * 4
        explorer.measure(key)
    yield "" if waiting else gr.skip(), *comparison(explorer, session)


def comparison(explorer: Explorer, session: Session) -> tuple[Any, ...]:
    """Table, figure, table by class, and the images on which variants disagree."""
    found = variants_of(explorer, session)
    variants = list(found.values())
    gone = [key for key in all_keys(explorer, session) if key not in found]
    return (
        _dropped(explorer, gone) + html.table(HEAD, [_table_row(variant) for variant in variants]),
        plots.size_against_accuracy(variants),
        class_table(variants, found.get(session.start)),
        disagreeing(variants, explorer.images("test", session.source)),
    )


def _dropped(explorer: Explorer, keys: list[str]) -> str:
    """What is missing from the table, and why; nothing where nothing is."""
    if not keys:
        return ""
    names = ", ".join(explorer.name_of_dropped(key) for key in keys)
    text = (
        f"Dropped to make room, since the server keeps "
        f"{html.count(explorer.capacity, 'variant')} for all visitors together: {names}. "
        "To have it in the comparison, make it again."
    )
    return html.note(text) + "<br>"


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


def csv_file(explorer: Explorer, session: Session) -> dict[str, str]:
    """The comparison as CSV."""
    variants = list(variants_of(explorer, session).values())
    return downloads.text_file("comparison.csv", compression.to_csv(variants))


def json_file(explorer: Explorer, session: Session) -> dict[str, str]:
    """The comparison as JSON, with each class's figures."""
    variants = list(variants_of(explorer, session).values())
    return downloads.text_file("comparison.json", compression.to_json(variants))


def clear(session: Session, cleared: int) -> tuple[Session, int, str]:
    """The visit as it began; counts, so that other tabs see that they are to begin anew."""
    return session.cleared(), cleared + 1, html.status(CLEARED)


def measure(explorer: Explorer, session: Session) -> Iterator[tuple[Any, ...]]:
    """Latency of all variants in turn, into the visitor's session, then the whole tab anew."""
    found = variants_of(explorer, session)
    text = f"{TIMING} {html.count(len(found), 'variant')} in turn, 1 image and 256 images at a time"
    yield gr.skip(), html.status(f"{text} ...", 0.0), *[gr.skip()] * 4
    clock, measured, told = Clock(), {}, time.perf_counter()
    for done in compression.measure_latency_by_round({key: found[key].model for key in found}):
        measured = done.latencies
        if time.perf_counter() - told < TELL_SECONDS:
            continue
        status = html.status(f"{text}{clock.left(done.fraction)} ...", done.fraction)
        yield gr.skip(), status, *[gr.skip()] * 4
        told = time.perf_counter()
    session = session.with_latency(measured)
    first = next(iter(measured.values()))[0]
    text = (
        f"Measured on this server: {first.threads} threads, median of {first.repeats} rounds, "
        "variants in turn. Zeros and shared values do not make dense arithmetic faster."
    )
    yield session, html.status(text), *comparison(explorer, session)


def build(explorer: Explorer, session: gr.State, cleared: gr.State, in_sight: gr.State) -> None:
    """Components, then events; cleared: counts how often the visit was begun anew; in_sight:
    whether this tab is open."""
    gr.HTML(f'<p class="cx-lead">{LEAD}</p>')
    with gr.Row():
        latency = gr.Button("Measure latency", variant="primary", min_width=140)
        cancel = gr.Button("Cancel", variant="stop", min_width=90)
        csv = gr.Button("Download CSV", min_width=120)
        json = gr.Button("Download JSON", min_width=120)
        empty = gr.Button("Clear my variants", min_width=120)
    status = gr.HTML(elem_id="compare-status")
    table = gr.HTML(html.empty("Measuring the shipped models ..."), elem_id="compare-table")
    gr.HTML(f'<p class="cx-lead">{WORDS}</p>')
    sizes = gr.Plot(show_label=False)
    gr.Markdown("### Which classes does it cost?")
    classes = gr.HTML(html.empty(LATER), elem_id="compare-classes")
    gr.Markdown("### Test images on which the variants disagree")
    differing = gr.HTML(html.empty(LATER), elem_id="compare-disagreements")

    front_section.build()

    outputs = [table, sizes, classes, differing]
    options: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": status}
    # One after another: a table of before must not overtake the one of now.
    gr.on(
        [in_sight.change, session.change],
        bound(compare, explorer),
        [session, in_sight],
        [status, *outputs],
        api_name="compare",
        concurrency_limit=2,
        trigger_mode="always_last",
        **options,
    )
    run = latency.click(
        working(measure, explorer),
        session,
        [session, status, *outputs],
        api_name="latency",
        **WORK,
        **options,
    )
    said = cancelled("Cancelled. The latencies are as they were.", TIMING)
    cancel_by(cancel, [run], said, status, status)
    settle([run], status)
    # After a run that is going on, which would else bring back what was cleared.
    empty.click(
        clear, [session, cleared], [session, cleared, status],
        api_name="clear_variants", **WORK, **options,
    )  # fmt: skip
    for button, make in ((csv, csv_file), (json, json_file)):
        downloads.save_on_click(button, bound(make, explorer), session, make.__name__)
