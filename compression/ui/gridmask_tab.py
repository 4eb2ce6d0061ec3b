"""The GridMask tab: a grid under the visitor's hand, random draws, what training with it gave."""

from typing import Any

import gradio as gr
import numpy as np

import compression
from compression.inputs import choice, whole
from compression.presets import CIFAR10_CLASSES
from compression.recorded_machine import machine_text
from compression.ui import html, plots, study_section
from compression.ui.explorer import Explorer
from compression.ui.guard import bound, guarded
from compression.ui.pictures import read_upload, sample_picture
from compression.ui.recorded import recorded_runs

LEAD = (
    "GridMask deletes a regular grid of squares from training images, so that the network "
    "cannot lean on one spot. Move the sliders: stripes of d x ratio pixels stay, the squares "
    "between them go. Smaller ratios delete more."
)
DRAWS_LEAD = (
    "In training each image gets a grid of its own, at random, or none. These sliders are the "
    "bounds; the ratio is the one above. The holes have the mean colour of all images, as in "
    "training. The recipes of the shipped models mask half of the images at most, and fewer in "
    "their first epochs and later cycles."
)
# CIFAR-10's mean, `data.CHANNEL_MEAN` in 0..255; `data` would load torch.
MEAN_COLOUR = (125, 123, 114)
LIVE: dict[str, Any] = {
    "trigger_mode": "always_last",
    "show_progress": "hidden",
    "queue": False,
    "concurrency_limit": None,
}

ALONG = "Along the grid: once that is turned, this way turns with it."


def show_grid(
    explorer: Explorer,
    upload: np.ndarray | None,
    class_name: str,
    number: float,
    d: float,
    ratio: float,
    angle: float,
    delta_x: float,
    delta_y: float,
    invert: bool,
) -> str:
    """Original, mask and result side by side, with the formula's kept fraction and the true one."""
    original = upload
    if original is None:
        original = sample_picture(explorer.images("validation", "sample"), class_name, number)
    height, width = original.shape[:2]
    invert = choice("invert", invert, (True, False))
    mask = compression.grid_mask(
        height, width, d=d, ratio=ratio, delta_x=delta_x, delta_y=delta_y, angle=angle,
        invert=invert,
    ).numpy()  # fmt: skip
    formula = compression.kept_fraction(int(d), ratio)
    formula = 1 - formula if invert else formula
    stripe = compression.stripe_width(int(d), ratio)
    stripes = f"Mask: white stays; stripes are {stripe} of every {d:g} pixels"
    share = f"{mask.mean():.1%} kept; {formula:.1%} of each whole unit of the grid"
    result = (original * mask[:, :, None]).astype(np.uint8)
    return html.figures(
        [
            (original, f"Original, {width} x {height} pixels"),
            ((mask * 255).astype(np.uint8), stripes),
            (result, f"Result: {share}"),
        ],
        "cx-triptych",
    )


def take_upload(path: str | None) -> tuple[np.ndarray | None, str]:
    """The visitor's picture, and a line on what was done to it."""
    if not path:
        return None, ""
    picture = read_upload(path)
    height, width = picture.pixels.shape[:2]
    remark = picture.remark or "Your picture is shown instead of the sample."
    return picture.pixels, html.status(f"{remark} It is worked on at {width} x {height} pixels.")


def back_to_sample() -> tuple[None, str]:
    """Forget the visitor's picture."""
    return None, ""


def draw_gallery(
    explorer: Explorer,
    class_name: str,
    d_low: float,
    d_high: float,
    ratio: float,
    rotate: float,
    probability: float,
    seed: float,
) -> str:
    """Twelve images of the class as training would see them, each with its own random grid; the
    ends of d may come in either order."""
    images = explorer.images("validation", "sample")
    low, high = sorted(whole("d", d, 1, 4096, "pixels") for d in (d_low, d_high))
    grids = compression.GridMask(
        (low, high), ratio, rotate, probability, seed=whole("seed", seed, 0, 2**31 - 1)
    )
    pixels = np.stack([sample_picture(images, class_name, number) for number in range(1, 13)])
    kept = grids.draw(len(pixels), *pixels.shape[1:3]).numpy()
    seen = np.where(kept[..., None], pixels, np.asarray(MEAN_COLOUR, np.uint8))
    masked = sum(not mask.all() for mask in kept)
    said = f"d from {low} to {high} pixels, ratio {ratio:g}: {masked} of {len(kept)} images masked."
    return html.status(said) + html.figures(
        [
            (picture, "whole" if mask.all() else f"{mask.mean():.0%} kept")
            for picture, mask in zip(seen, kept, strict=True)
        ],
        "cx-tiles",
    )


def next_seed(seed: float) -> float:
    """Another draw."""
    return (whole("seed", seed, 0, 2**31 - 1) + 1) % 2**31


def conclusion(runs: dict[str, dict[str, Any]]) -> str:
    """What the two recorded runs allow to be said, in figures and a sentence."""
    cards = [
        html.Card(
            f"{name}: test accuracy",
            html.percent(run["test_accuracy"]),
            f"95 % interval {run['test_interval'][0]:.2%} to {run['test_interval'][1]:.2%}, "
            f"{run['data']['test']:,} test images",
        )
        for name, run in runs.items()
    ] + [
        html.Card(
            f"{name}: training time",
            f"{run['training_seconds'] / 60:.0f} min",
            f"{len(run['curves'])} epochs; {machine_text(run['machine'])}; wall time, other work "
            "on the machine included",
        )
        for name, run in runs.items()
    ]
    baseline, masked = runs["baseline"], runs["gridmask"]
    difference = masked["test_accuracy"] - baseline["test_accuracy"]
    low, high = baseline["test_interval"]
    within = low <= masked["test_accuracy"] <= high
    text = (
        f"The GridMask model is {html.points(difference)} from the baseline, "
        + ("within" if within else "outside")
        + " its 95 % interval. "
        + _other_causes(baseline, masked)
        + "One run of each cannot settle which is better; the study below changes nothing but the "
        "masks, several times."
    )
    return html.cards(cards) + "<br>" + html.note(text)


def _other_causes(baseline: dict[str, Any], masked: dict[str, Any]) -> str:
    """What else the two runs differ in, in a sentence; nothing where that is nothing."""
    first, second = _kept(baseline), _kept(masked)
    if first == second:
        return ""
    return f"That is not GridMask alone: the baseline is {first}, the GridMask model {second}. "


def _kept(run: dict[str, Any]) -> str:
    """What a run kept of its rounds of training."""
    rounds = len(run.get("earlier", [])) + 1
    if run.get("averaged"):
        return f"the mean of the weights after {rounds} rounds of training"
    return f"what the last of {rounds} rounds of training gave"


def build(page: gr.Blocks, explorer: Explorer) -> None:
    """Components, then events."""
    gr.HTML(f'<p class="cx-lead">{LEAD}</p>')
    upload = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            with gr.Row():
                class_name = gr.Dropdown(
                    CIFAR10_CLASSES, value="cat", label="Class of the sample image", min_width=120
                )
                number = gr.Slider(1, 200, 8, step=1, label="Image number", min_width=120)
            d = gr.Slider(2, 64, 14, step=1, label="d: unit of the grid (pixels)")
            ratio = gr.Slider(0, 1, 0.4, step=0.01, label="ratio: stripe width over d")
            angle = gr.Slider(0, 360, 0, step=1, label="Rotation (degrees, counter-clockwise)")
            delta_x = gr.Slider(0, 64, 0, step=1, label="Offset to the right (pixels)", info=ALONG)
            delta_y = gr.Slider(0, 64, 0, step=1, label="Offset down (pixels)", info=ALONG)
            invert = gr.Checkbox(False, label="Invert: keep the squares, delete the stripes")
            with gr.Row():
                picture = gr.UploadButton(
                    "Use my own picture", size="sm", variant="secondary", min_width=120
                )
                reset = gr.Button("Back to the sample", size="sm", min_width=120)
        with gr.Column(scale=3, min_width=280, elem_classes="cx-in-sight"):
            triptych = gr.HTML(elem_id="gridmask-triptych", min_height=180)
            remark = gr.HTML()
    gr.Markdown("### Random draws, as training sees them")
    gr.HTML(f'<p class="cx-lead">{DRAWS_LEAD}</p>')
    with gr.Row():
        d_low = gr.Slider(2, 32, 12, step=1, label="d from (pixels)", min_width=130)
        d_high = gr.Slider(2, 32, 18, step=1, label="d to (pixels)", min_width=130)
        rotate = gr.Slider(0, 360, 360, step=1, label="Rotation up to (°)", min_width=130)
        probability = gr.Slider(0, 1, 0.5, step=0.05, label="Share masked", min_width=130)
        seed = gr.Number(0, label="Seed of the draws", precision=0, minimum=0, min_width=110)
        redraw = gr.Button("Draw again", variant="primary", min_width=110)
    gallery = gr.HTML(elem_id="gridmask-gallery", min_height=120)
    gr.Markdown("### What training with it gave")
    runs = recorded_runs()
    gr.HTML(conclusion(runs), elem_id="gridmask-conclusion")
    gr.Markdown("Accuracy on the 5,000 validation images, recorded while the checkpoints trained:")
    gr.Plot(
        plots.training_curves({name: run["curves"] for name, run in runs.items()}),
        show_label=False,
    )
    study_section.build()

    grid = [upload, class_name, number, d, ratio, angle, delta_x, delta_y, invert]
    show = bound(show_grid, explorer)
    moved = [number, d, ratio, angle, delta_x, delta_y]
    # One listener each for the mask and the draws: an older answer must not overtake a newer one.
    gr.on(
        [*(c.input for c in moved), *(c.change for c in (class_name, invert, upload)), page.load],
        show, grid, triptych, api_name="gridmask", **LIVE,
    )  # fmt: skip
    picture.upload(guarded(take_upload), picture, [upload, remark], api_name="gridmask_upload")
    reset.click(back_to_sample, None, [upload, remark], api_name="gridmask_sample")
    draws = [class_name, d_low, d_high, ratio, rotate, probability, seed]
    draw = bound(draw_gallery, explorer)
    moved = [d_low, d_high, rotate, probability, ratio]
    gr.on(
        [*(c.input for c in moved), seed.change, class_name.change, page.load],
        draw, draws, gallery, api_name="gridmask_gallery", **LIVE,
    )  # fmt: skip
    redraw.click(guarded(next_seed), seed, seed, api_name="gridmask_draw_again", **LIVE)
