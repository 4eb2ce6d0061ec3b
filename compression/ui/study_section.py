"""On the GridMask tab: the same recipe without it, with Cutout and with it, recorded."""

import gradio as gr

from compression.study_records import StudySummary, load_study, summarize
from compression.ui import html, plots
from compression.ui.recorded import study_file

NAMES = {
    "plain": "flip and crop alone",
    "cutout": "with Cutout",
    "gridmask": "with GridMask",
}
LEAD = (
    "Cutout deletes one square of each image, GridMask a whole grid of them. Is it worth it? The "
    "same short recipe three ways, several times each from other random starts:"
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
            gr.HTML(_table(summary) + "<br>" + html.note(conclusion(summary)))
    config = about["config"]
    machines = "; ".join(dict.fromkeys(run.machine for run in runs))
    gr.Markdown(
        f"Recorded by `{about['command']}` on {machines}: {config['preset']}, "
        f"{config['epochs']} epochs a run, {runs[0].total:,} test images. The times hold what else "
        "the machine did then."
    )


def _table(summary: list[StudySummary]) -> str:
    head = ["Training", "Test accuracy|mean and spread", "Against plain|same seed", "Time|a run"]
    rows = [
        [
            NAMES[row.way],
            f"{row.mean:.2%}|± {100 * row.spread:.2f} points, {row.seeds} seeds",
            "" if row.way == "plain" else f"{html.points(row.difference)}|"
            f"± {100 * row.difference_spread:.2f}",
            f"{row.seconds / 60:.1f} min",
        ]
        for row in summary
    ]  # fmt: skip
    return html.table(head, rows)


def conclusion(summary: list[StudySummary]) -> str:
    """What the numbers allow to be said of each way beside plain: better, worse, or not told apart.

    A difference counts as told apart where 0 is outside its 95 % interval by Student's t.
    """
    said = []
    for row in summary[1:]:
        name = f"training {NAMES[row.way]}"
        if abs(row.difference) > row.margin:
            verdict = "better" if row.difference > 0 else "worse"
            said.append(f"{name} is {verdict} than without, by {100 * abs(row.difference):.2f}")
        else:
            said.append(f"{name} cannot be told from without ({html.points(row.difference)})")
    text = "; ".join(said)
    return (
        f"At this length, {text} (points of test accuracy; 95 % by Student's t over "
        "pairs of the same seed). Longer schedules and larger networks were not tried here."
    )
