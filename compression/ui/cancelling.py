"""How a run ends before its time, cancelled or failed: it is stopped, and the page says so."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gradio as gr

from compression.ui import html

LATE_SECONDS = 0.3  # within which a stopped run's last words arrive
RUNNING = "cx-bar"  # what the line of a run has until it ends: its bar
FAILED = "That did not work. What was there before is as it was."


def cancelled(text: str, running: str = RUNNING) -> Callable[[object], Iterator[Any]]:
    """A handler that takes the status line and says so, twice: what the run had sent before it was
    stopped may arrive after the first time. Where no run is told of in the line (`running` is not
    in it), it stays as it is."""

    def say(shown: object) -> Iterator[Any]:
        if running not in str(shown):
            yield gr.skip()
            return
        yield html.status(text)
        time.sleep(LATE_SECONDS)
        yield html.status(text)

    return say


def cancel_by(
    button: gr.Button, runs: Iterable[Any], say: Callable[..., Any], inputs: Any, outputs: Any
) -> None:
    """Let the button stop whichever of the runs goes on, then let `say` answer.

    Gradio's page takes a button's listeners one after another and waits for each; the runs that a
    listener cancels, too. With one listener for all, a run that the visitor begins while another is
    still being stopped would be stopped as well; so each run has its own, and they come first.
    """
    for run in runs:
        button.click(None, None, None, cancels=[run])
    button.click(
        say, inputs, outputs,
        concurrency_limit=None, api_visibility="private", show_progress="hidden",
    )  # fmt: skip


def settle(runs: Iterable[Any], status: gr.HTML) -> None:
    """Let the line of a run that failed half-way say so; its bar would stand as if it went on."""
    for run in runs:
        run.failure(
            failed, status, status,
            concurrency_limit=None, api_visibility="private", show_progress="hidden",
        )  # fmt: skip


def failed(shown: object) -> Any:
    """The status line after a failure; it stays where nothing had begun."""
    return html.status(FAILED) if RUNNING in str(shown) else gr.skip()
