"""On the Compare tab: how small each shipped model gets at what accuracy, recorded."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from compression.front_records import (
    COMPENSATED,
    OURS,
    PRICED,
    RIVALS,
    FrontPoint,
    load_front,
    prediction_error,
)
from compression.presets import SHIPPED
from compression.recorded_machine import machine_text
from compression.ui import html, size_plots
from compression.ui.recorded import front_file, shrink_records, unseen_goals

LEAD = (
    "Every point is a packed file: pruned, quantized, recalibrated, no weight trained. Zeros "
    "and bits are spread over the layers by measured damage (each layer was pruned and quantized "
    "alone, in many ways, and what that did to the answers was noted; the cheapest ways together "
    "make the file), or in the usual ways: one sparsity for all layers, one threshold of magnitude "
    "for all weights, at random. Compensated: rounding errors make up for each other. "
    "Entropy-constrained: each weight takes the value whose error and code length together cost "
    "least, so zeros and bits come out by themselves. The axis ends a little below those; other "
    "lines go on under it. Stars are files whose weights were trained further for their size."
)


def build() -> None:
    """A tab a model that has a recorded front; nothing where there is none."""
    files = {name: path for name in SHIPPED if (path := front_file(name)) is not None}
    if not files:
        return
    gr.Markdown("### How small can it get?")
    gr.HTML(f'<p class="cx-lead">{LEAD}</p>')
    with gr.Tabs():
        for name, path in files.items():
            with gr.Tab(name):
                points, about = load_front(path)
                _front(name, points, about)


def _front(name: str, points: list[FrontPoint], about: dict[str, Any]) -> None:
    dense = about["dense_correct"] / points[0].total
    trained = trained_files(name, points[0].total)
    gr.Plot(size_plots.front(points, dense, about["dense_bytes"], trained), show_label=False)
    gr.HTML(html.note(remark(points, about["dense_correct"], unseen_goals(name))))
    gr.Markdown(
        f"Recorded by `{about['command']}` on {machine_text(about['machine'])}: {len(points)} "
        f"files, each measured on {points[0].total:,} test images."
    )


def trained_files(name: str, images: int) -> dict[str, tuple[int, float]]:
    """Bytes and accuracy of the shipped packed files of a model's network, whichever checkpoint of
    it they began at, on the same test images as the front's: the bundled ones or all."""
    found = {}
    for file, record in shrink_records().items():
        bundled = record["bundled_test"]
        accuracy = record["result"]["accuracy"]
        if images == bundled["total"]:
            accuracy = bundled["correct"] / bundled["total"]
        if record["start"].split("/")[0] == name.split("/")[0]:
            found[f"{file}, from {record['start']}"] = record["result"]["packed_bytes"], accuracy
    return found


def remark(points: list[FrontPoint], dense_correct: int, unseen: Sequence[FrontPoint] = ()) -> str:
    """How often ours is the best at a size, and how far its predictions were off; unseen: points
    that were measured after the predictions had taken their form."""
    sizes = sorted({point.goal_bytes for point in points if point.goal == "size"})
    won = best = contested = 0
    for size in sizes:
        at = {p.way: p.correct for p in points if p.goal == "size" and p.goal_bytes == size}
        usual = [at[way] for way in RIVALS if way in at]
        contested += bool(usual)
        won += bool(usual) and at[OURS] >= max(usual)
        best += PRICED in at and at[PRICED] == max(at.values())
    text = (
        f"Spread by measured damage, accuracy is on or above all of the usual ways at {won} of "
        f"{contested} sizes"
    )
    if contested < len(sizes):
        text += f" (no usual way makes files of the other {len(sizes) - contested})"
    if any(point.way == PRICED for point in points):
        text += f"; entropy-constrained it is on or above every other way at {best} of {len(sizes)}"
    if contested:
        tried = all(p.bits is not None for p in points if p.way in RIVALS)
        text += ". Each usual way uses the bit width that is "
        text += "best on validation images" if tried else "predicted to do it least damage"
        text += f"; random is one draw; their files fill {_filled(points)} of the size or more"
    for goal, kind in (("random", "sizes drawn at random"), ("size", "sizes in equal ratios")):
        if mine := [point for point in points if point.goal == goal]:
            text += f". {_error(mine, kind, dense_correct)}"
    # So it was with every front that is shipped; one recorded anew would have to be told apart.
    text += ". All of these sizes were measured before the way to predict was chosen"
    if unseen:
        text += ". "
        text += _error(unseen, "more sizes, drawn at random afterwards,", dense_correct)
    if above := _above_goal(points):
        text += (
            ". Files of measured damage whose rounding was compensated came out up to "
            f"{above:.1f} % above the size asked for"
        )
    return text + "."


def _filled(points: list[FrontPoint]) -> str:
    """What the usual ways' files use of the sizes asked for, at the least."""
    least = min(p.packed_bytes / p.goal_bytes for p in points if p.way in RIVALS)
    return f"{100 * least:.0f} %"


def _above_goal(points: list[FrontPoint]) -> float:
    """By how many percent a compensated file is larger than was asked for, at most; 0 for none."""
    ratios = [p.packed_bytes / p.goal_bytes for p in points if p.way == COMPENSATED]
    return 100 * (max([1.0, *ratios]) - 1)


def _error(points: Sequence[FrontPoint], kind: str, dense_correct: int) -> str:
    error = prediction_error(points, dense_correct)
    return (
        f"Over {error['goals']} {kind} the predicted drop was off by "
        f"{error['mean_drop_error']:.2f} points on average (at most "
        f"{error['greatest_drop_error']:.2f}; {abs(error['drop_bias']):.2f} too "
        f"{'large' if error['drop_bias'] > 0 else 'small'} on average), the predicted size by "
        f"{error['mean_size_error']:.1f} % (at most {error['greatest_size_error']:.1f} %)"
    )
