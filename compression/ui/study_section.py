"""On the GridMask tab: the same recipe without it, with Cutout and with it, recorded."""

import gradio as gr

from compression.study_records import Difference, StudySummary, load_study, minutes, summarize
from compression.ui import html, plots
from compression.ui.recorded import study_file

NAMES = {
    "plain": "flip and crop alone",
    "cutout": "with Cutout",
    "gridmask": "with GridMask",
}
LEAD = (
    "Cutout deletes one square of each image, GridMask a whole grid of them. Is it worth it? The "
    "same short recipe three ways, several times each from other random starts. Here Cutout takes "
    "12 of 32 pixels a side out of every image from the first epoch on; GridMask comes in slowly, "
    "until it masks half of the images."
)


def build() -> None:
    """The recorded study; nothing where there is none."""
    path = study_file()
    if path is None:
        return
    runs, about = load_study(path)
    summary = summarize(runs)
    gr.Markdown("### Is it GridMask, or luck?")
    gr.HTML(f'<p class="cx-lead">{LEAD}</p>')
    with gr.Row():
        with gr.Column(scale=3, min_width=290):
            gr.Plot(plots.study_runs(runs, NAMES), show_label=False)
        with gr.Column(scale=3, min_width=290):
            said = conclusion(summary, about["config"]["epochs"])
            gr.HTML(_table(summary) + "<br>" + html.note(said))
    config = about["config"]
    machines = "; ".join(dict.fromkeys(run.machine for run in runs))
    gr.Markdown(
        f"Recorded by `{about['command']}` on {machines}: {config['preset']}, "
        f"{config['epochs']} epochs a run, {runs[0].total:,} test images. The times hold what else "
        "the machine did then, so the least of each tells most."
    )


def _table(summary: list[StudySummary]) -> str:
    head = [
        "Training", "Test accuracy|mean, deviation", "Against plain|95 % interval", "Time|a run",
    ]  # fmt: skip
    rows = [
        [
            NAMES[row.way],
            f"{row.mean:.2%}|± {100 * row.spread:.2f}, {len(row.accuracies)} seeds",
            "" if row.way == "plain" else against(row.against(summary[0])).replace(" ±", "|±"),
            minutes(row.seconds),
        ]
        for row in summary
    ]  # fmt: skip
    return html.table(head, rows)


def against(difference: Difference) -> str:
    """A difference with half of its 95 % interval, where there is one."""
    known = difference.seeds > 1
    return html.points(difference.mean) + (f" ± {100 * difference.margin:.2f}" if known else "")


def conclusion(summary: list[StudySummary], epochs: int) -> str:
    """What the numbers allow to be said of each way beside plain, and of the two beside each other.

    A difference counts as told apart where 0 is outside its 95 % interval by Student's t.
    """
    plain, *others = summary
    said = [_verdict(f"training {NAMES[row.way]}", "without", row.against(plain)) for row in others]
    if len(others) > 1:
        first, second = others
        said.append(_verdict("GridMask", "Cutout", second.against(first)))
    return (
        f"With {epochs} epochs, {'; '.join(said)} (points of test accuracy; 95 % by Student's t "
        "over pairs of the same seed). Longer schedules and larger networks were not tried here."
    )


def _verdict(one: str, other: str, apart: Difference) -> str:
    if not apart.told_apart:
        return f"{one} cannot be told from {other} ({against(apart)})"
    better = "better" if apart.mean > 0 else "worse"
    return f"{one} is {better} than {other}, by {100 * abs(apart.mean):.2f} ± " + (
        f"{100 * apart.margin:.2f}"
    )
