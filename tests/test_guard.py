"""Handlers between the page and the library: messages, and one step of long work at a time."""

import threading
from types import SimpleNamespace

import gradio as gr
import pytest

from compression.inputs import InputError
from compression.ui.guard import working

SERVER = SimpleNamespace(turn=threading.Lock())


def test_a_step_waits_for_one_that_was_cancelled_but_goes_on():
    """The first run's step is still computed, as after a cancel, when a second run begins."""
    inside, go, said = threading.Event(), threading.Event(), []

    def slow(explorer):
        inside.set()
        go.wait(60)
        said.append("slow ended")
        yield explorer

    def quick(explorer):
        said.append("quick began")
        yield explorer

    slowly = threading.Thread(target=lambda: next(working(slow, SERVER)()))
    quickly = threading.Thread(target=lambda: list(working(quick, SERVER)()))
    slowly.start()
    assert inside.wait(60)
    quickly.start()
    quickly.join(0.2)
    assert said == []
    go.set()
    slowly.join(60)
    quickly.join(60)
    assert said == ["slow ended", "quick began"]


def test_the_place_is_free_between_steps_and_after_an_error():
    def steps(explorer, count):
        try:
            yield from range(count)
            raise InputError("max_bytes must be more.")
        finally:
            closed.append(count)

    closed = []
    first, second = working(steps, SERVER)(1), working(steps, SERVER)(2)
    assert [next(first), next(second), next(second)] == [0, 0, 1]
    with pytest.raises(gr.Error, match="The file must be more"):
        next(first)
    second.close()
    assert closed == [1, 2]
    assert working(lambda explorer, x: (explorer, x), SERVER)(3) == (SERVER, 3)
