"""The Prune tab: a sparsity for each layer, what it costs, and two ways to recover."""

from functools import partial
from typing import Any

import gradio as gr

from compression.presets import layer_names
from compression.ui import html, timing
from compression.ui import prune_steps as steps
from compression.ui.budget import GOALS, plan, prune_by_plan
from compression.ui.cancelling import cancel_by, cancelled, settle
from compression.ui.explorer import SUGGESTED_KIB, WORK, Explorer
from compression.ui.guard import bound, working
from compression.ui.sensitivity_tab import TOLERATED
from compression.ui.session import Session

LEAD = (
    "Magnitude pruning sets a layer's smallest weights to zero. Choose how many zeros each layer "
    "gets (its sparsity), by hand or from the scan, and see what is left of the accuracy. Then "
    "recover: recalibrate batch norm, which measures each channel's mean and spread anew on "
    "training images, or fine-tune, which trains on with the zeros held."
)
NOTE = (
    "Both ways to recover use the training images of the set chosen at the top: 3,000 of the "
    "bundled sample, or 45,000 of the full CIFAR-10. From few images less comes back. The best "
    "epoch is chosen on validation images; the test images only report. The course report chose "
    "on its test set, which flatters its figures."
)
UNIFORM = (50, 70, 90)
EPOCHS = 3  # of fine-tuning, as first offered
QUICK: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": 4}
PRIVATE: dict[str, Any] = QUICK | {"api_visibility": "private"}


def uniform_table(percent: float, explorer: Explorer, session: Session) -> list[list[Any]]:
    """The table of a button that says one sparsity for all."""
    return steps.fill_uniform(explorer, session, percent)


def build(
    page: gr.Blocks,
    explorer: Explorer,
    session: gr.State,
    start: gr.State,
    scanned: gr.State,
    cleared: gr.State,
    tolerated: gr.Slider,
) -> Any:
    """Components, then events; returns pruning by a goal for the file, which other tabs follow.

    cleared: counts how often the visit was begun anew; tolerated: the drop on the scan's tab.
    """
    planned = gr.State(None)
    names = layer_names(explorer.preset)
    gr.HTML(f'<p class="cx-lead">{LEAD}</p>')
    with gr.Row(elem_classes="cx-sides"):
        with gr.Column(scale=2, min_width=290):
            with gr.Group():
                max_drop = gr.Slider(**TOLERATED)
                from_scan = gr.Button("Fill from the scan and prune", variant="primary")
            with gr.Group():
                goal = gr.Radio(
                    list(GOALS), value=GOALS[0], label="Or a goal for the compressed file",
                    info="spreads zeros here and bits on the next tab where they do least damage",
                )  # fmt: skip
                budget = gr.Slider(
                    *_range(SUGGESTED_KIB[explorer.preset]), step=10,
                    label="Budget for the compressed file (KiB)",
                )  # fmt: skip
                points_lost = gr.Slider(
                    0.1, 10, 1, step=0.1, label="Lose at most (points, all layers together)",
                    visible=False,
                )  # fmt: skip
                by_budget = gr.Button("Fill both tables by the goal and prune")
            gr.HTML('<p class="cx-lead">Or the same in every layer:</p>')
            with gr.Row():
                uniform = [gr.Button(f"Prune {p} %", size="sm", min_width=80) for p in UNIFORM]
            table = gr.Dataframe(
                [[name, "", 0.0] for name in names],
                headers=steps.HEADERS,
                datatype=["str", "number", "number"],
                type="array",
                interactive=True,
                static_columns=[0, 1],
                label="Zeros in each layer (its sparsity): edit the last column",
                elem_id="prune-table",
                buttons=[],
            )
            press = gr.Button(steps.PRESS, variant="secondary")
        with gr.Column(scale=3, min_width=290):
            status = gr.HTML(elem_id="prune-status")
            cards = gr.HTML(html.empty(steps.EMPTY), elem_id="prune-result")
            with gr.Row():
                recover = gr.Button("Recalibrate batch norm", min_width=150)
                fine = gr.Button("Fine-tune", min_width=110)
                cancel = gr.Button("Cancel", variant="stop", min_width=90)
            epochs = gr.Slider(
                1, timing.MOST_EPOCHS, EPOCHS, step=1,
                label="Fine-tuning epochs (passes over the images)",
            )  # fmt: skip
            hint = gr.HTML(timing.first_guess(explorer, EPOCHS))
            curve = gr.Plot(label="Fine-tuning", show_label=False, visible=False)
            layer = gr.Dropdown(names, value="conv4", label="Weights of layer")
            histogram = gr.Plot(label="Weights of the layer", show_label=False)
    gr.HTML(html.note(NOTE))

    outputs = [session, status, cards, curve]
    work: dict[str, Any] = WORK | {"show_progress": "minimal", "show_progress_on": status}
    runs: list[Any] = [
        press.click(
            working(steps.prune_layers, explorer),
            [session, table],
            outputs,
            api_name="prune",
            **work,
        ),
        recover.click(
            working(steps.recalibrate, explorer), session, outputs, api_name="recalibrate", **work
        ),
        fine.click(
            working(steps.tune, explorer), [session, epochs], outputs, api_name="fine_tune", **work
        ),
    ]
    fills = [
        (
            from_scan,
            bound(steps.fill_from_scan, explorer),
            [session, scanned, max_drop],
            "prune_fill_from_scan",
        ),
        *(
            (
                button,
                bound(partial(uniform_table, percent), explorer),
                [session],
                f"prune_fill_{percent}",
            )
            for button, percent in zip(uniform, UNIFORM, strict=True)
        ),
    ]
    for button, fill, inputs, api_name in fills:
        filled = button.click(fill, inputs, table, api_name=api_name, **QUICK)
        runs.append(
            filled.success(
                working(steps.prune_layers, explorer),
                [session, table],
                outputs,
                api_visibility="private",
                **work,
            )
        )
    filled = by_budget.click(
        working(plan, explorer), [session, budget, goal, points_lost], [table, planned, status],
        api_name="allocate", **work,
    )  # fmt: skip
    pruned = filled.success(
        working(prune_by_plan, explorer), [session, table, planned], outputs,
        api_visibility="private", **work,
    )  # fmt: skip
    runs += [filled, pruned]
    said = cancelled("Cancelled. The pruned model is as it was.")
    cancel_by(cancel, runs, said, status, status)
    settle(runs, status)
    # One listener: an older answer must not overtake a newer one.
    gr.on(
        [layer.change, session.change, page.load],
        bound(steps.show_histogram, explorer), [session, layer], histogram,
        api_name="weights", trigger_mode="always_last", **QUICK,
    )  # fmt: skip
    gr.on(
        [start.change, cleared.change],
        bound(steps.fresh, explorer), session, [table, layer, cards, status, curve], **PRIVATE,
    )  # fmt: skip
    timing.keep_true(hint, explorer, session, start, epochs)
    goal.change(_shown_goal, goal, [budget, points_lost], **PRIVATE)
    tolerated.change(None, tolerated, max_drop, js="(points) => points")
    start.change(bound(_budget_of, explorer), session, budget, **PRIVATE)
    # Beside the queue, which an arrival fills enough without it.
    page.load(bound(steps.dense_table, explorer), session, table, queue=False, **PRIVATE)
    return pruned


def _range(suggested: int) -> tuple[int, int, int]:
    """Least, most and first KiB of the budget's slider: recorded settings end near the least."""
    return suggested // 40 * 10, 5 * suggested, suggested


def _budget_of(explorer: Explorer, session: Session) -> Any:
    """The budget's slider for another dense model."""
    least, most, first = _range(explorer.suggested_kib(session))
    return gr.update(minimum=least, maximum=most, value=first)


def _shown_goal(goal: str) -> tuple[Any, Any]:
    """The slider that belongs to the goal."""
    return gr.update(visible=goal == GOALS[0]), gr.update(visible=goal == GOALS[1])
