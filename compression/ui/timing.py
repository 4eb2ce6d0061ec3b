"""How long a training may take: a rough guess before it starts, a measured one while it runs."""

import time

import gradio as gr

from compression.inputs import InputError, whole
from compression.ui import html
from compression.ui.explorer import Explorer
from compression.ui.guard import bound
from compression.ui.session import Session

# Multiply-accumulates (of answering, not of training) in millions for an image, as
# `measure_complexity` counts them: known here without loading a model.
MILLION_MACS = {"resnet9-s": 96, "resnet9": 381, "resnet9-t2g3": 532}
# Of training images, measured with fine-tuning, centroid training and code training on two cores of
# an AMD EPYC: 2.0 ms for an image of resnet9-s.
MILLION_MACS_A_SECOND = 46_000
TRAINING_IMAGES = {"sample": 3_000, "full": 45_000}
MOST_EPOCHS = 20
FIRST_SECONDS = 3.0  # before a training has run for so long, nothing is said of its end


def seconds_of(preset: str, source: str, epochs: float) -> float:
    """What so many epochs may take."""
    images = epochs * TRAINING_IMAGES[source]
    return images * MILLION_MACS[preset] / MILLION_MACS_A_SECOND


def checked_epochs(explorer: Explorer, session: Session, epochs: object) -> int:
    """A visitor's number of epochs; InputError for none, and for more than the server's longest
    training: there is one place for long work, and others wait for it."""
    count = whole("epochs", epochs, 1, MOST_EPOCHS)
    preset, longest = str(explorer.model(session.start).preset), explorer.longest_minutes
    fitting = epochs_within(longest, preset, session.source)
    if count > fitting:
        here = f"{fitting} at most" if fitting else "none"
        raise InputError(
            f"epochs must fit into the {longest:g} min that this server gives a training "
            f"({here} of {preset} on the {session.source} set), got {count}."
        )
    return count


def epochs_within(longest_minutes: float | None, preset: str, source: str) -> int:
    """The most epochs that a server gives a training; all that can be chosen without a limit."""
    if longest_minutes is None:
        return MOST_EPOCHS
    return min(MOST_EPOCHS, int(60 * longest_minutes / seconds_of(preset, source, 1)))


def guess(preset: str, source: str, epochs: float, longest_minutes: float | None = None) -> str:
    """A line on what so many epochs may take, or that the server does not give them so long;
    nothing for a number of epochs that cannot be."""
    try:
        epochs = whole("epochs", epochs, 1, MOST_EPOCHS)
    except InputError:
        return ""
    seconds = seconds_of(preset, source, epochs)
    fitting = epochs_within(longest_minutes, preset, source)
    images = f"{TRAINING_IMAGES[source]:,} images"
    if epochs > fitting:
        advice = f"{fitting} at most" if fitting else "fewer images or a smaller model"
        return html.status(
            f"{html.count(epochs, 'epoch')} of {preset} on {images} may take about "
            f"{duration(seconds)}; this server gives a training {longest_minutes:g} min. "
            f"Choose {advice}."
        )
    return html.status(
        f"This may take about {duration(seconds)}: {html.count(epochs, 'pass', 'passes')} over "
        f"{images} with {preset}, guessed for two cores of a server; other computers, and other "
        "visitors, change it."
    )


def first_guess(explorer: Explorer, epochs: float) -> str:
    """The line as a visit begins."""
    return guess(explorer.preset, explorer.source, epochs, explorer.longest_minutes)


def guess_of(explorer: Explorer, session: Session, epochs: float) -> str:
    """The line for a visit's dense model and images."""
    preset = str(explorer.model(session.start).preset)
    return guess(preset, session.source, epochs, explorer.longest_minutes)


def keep_true(
    hint: gr.HTML, explorer: Explorer, session: gr.State, start: gr.State, epochs: gr.Slider
) -> None:
    """Let the line follow the epochs and the model."""
    gr.on(
        [epochs.change, start.change],
        bound(guess_of, explorer), [session, epochs], hint,
        trigger_mode="always_last", show_progress="hidden", concurrency_limit=4,
        api_visibility="private",
    )  # fmt: skip


def duration(seconds: float) -> str:
    """In the unit that fits, no finer than a guess may be: `20 s`, `4 min`, `2.5 h`."""
    if seconds < 55:
        return f"{max(10, 10 * round(seconds / 10))} s"
    if seconds < 90 * 60:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.1f} h"


class Clock:
    """Tells from the steps of a training that runs what is left of it."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None  # seconds, fraction done

    def left(self, fraction: float) -> str:
        """`, about 3 min left`, or nothing as long as too little is done to tell."""
        now = time.perf_counter()
        if self._first is None:
            self._first = now, fraction
        began, before = self._first
        if now - began < FIRST_SECONDS or fraction <= before:
            return ""
        seconds = (now - began) * (1 - fraction) / (fraction - before)
        return f", about {duration(seconds)} left"
