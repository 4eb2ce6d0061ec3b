"""Turns what a visitor got wrong into one sentence on the page, and nothing else is lost."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import gradio as gr

from compression.inputs import InputError

# The library's names of what no field of the page is called -> what the page calls it.
_ON_THE_PAGE = {"max_bytes": "The file", "max_drop": "The points lost"}


def guarded(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The handler (a function or a generator) with InputError shown as Gradio's own message."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args: Any) -> Any:
            try:
                yield from handler(*args)
            except InputError as error:
                raise _message(error) from None

        return stream

    @functools.wraps(handler)
    def call(*args: Any) -> Any:
        try:
            return handler(*args)
        except InputError as error:
            raise _message(error) from None

    return call


def bound(handler: Callable[..., Any], explorer: Any) -> Callable[..., Any]:
    """The guarded handler with the server's explorer as its first argument."""
    return functools.partial(guarded(handler), explorer)


def working(handler: Callable[..., Any], explorer: Any) -> Callable[..., Any]:
    """`bound`, for long work: of all such handlers one step at a time is computed.

    Gradio gives a cancelled run's place away at once, while its step goes on in its thread. What
    comes next waits here until that step has ended, so that nothing is timed beside it.
    """
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args: Any) -> Any:
            steps = handler(*args)
            try:
                while True:
                    with explorer.turn:
                        try:
                            answer = next(steps)
                        except StopIteration:
                            return
                    yield answer
            finally:
                steps.close()

        return bound(stream, explorer)

    @functools.wraps(handler)
    def call(*args: Any) -> Any:
        with explorer.turn:
            return handler(*args)

    return bound(call, explorer)


def _message(error: InputError) -> gr.Error:
    first, space, rest = str(error).partition(" ")
    text = _ON_THE_PAGE.get(first, first) + space + rest
    return gr.Error(text, title="That does not work", print_exception=False, duration=12)
