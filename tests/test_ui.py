"""The page's handlers without a browser: tables, sessions, trainings, pieces of HTML."""

import asyncio
import dataclasses

import gradio as gr
import pytest
import torch

from compression.evaluation import measure_complexity
from compression.inputs import InputError
from compression.model import build_model
from compression.presets import PRESETS, layer_names
from compression.pruning import weight_histogram
from compression.ui import (
    budget,
    cancelling,
    html,
    plots,
    prune_steps,
    quantize_steps,
    sensitivity_tab,
    start_bar,
    theme,
    timing,
)
from compression.ui.explorer import Explorer
from compression.ui.guard import guarded
from compression.ui.page import build_page
from compression.ui.plan import Plan
from compression.ui.session import Session


@pytest.fixture(scope="module")
def explorer():
    return Explorer()


@pytest.fixture(scope="module")
def page(explorer):
    async def built():  # in a loop, since Gradio would open one that nobody closes
        return build_page(explorer).config

    return asyncio.run(built())


def test_session_moves_on_without_changing_the_one_before():
    first = Session("a")
    cut = first.with_cut("b")
    tuned = cut.with_pruned("c").with_quantized("d", before="c")
    assert (first.made, cut.cut, cut.pruned) == ((), "b", "b")
    assert (tuned.made, tuned.cut, tuned.pruned) == (("b", "c", "d"), "b", "c")
    assert (tuned.quantized, tuned.unquantized) == ("d", "c")
    other = tuned.with_start("e")
    assert (other.start, other.made, other.pruned, other.quantized) == ("e", tuned.made, None, None)
    assert tuned.cleared() == Session("a")


def test_guard_turns_a_mistake_into_the_pages_message():
    def handler():
        raise InputError("d must be 3, got 4.")

    def stream():
        yield 1
        raise InputError("d must be 3, got 4.")

    with pytest.raises(gr.Error, match="d must be 3, got 4."):
        guarded(handler)()
    steps = guarded(stream)()
    assert next(steps) == 1
    with pytest.raises(gr.Error, match="d must be 3, got 4."):
        next(steps)


def test_guard_calls_a_goal_as_the_page_does():
    def handler(name):
        raise InputError(f"{name} must be at least 9 bytes for max_bytes, got 4.")

    for name, shown in (("max_bytes", "The file"), ("max_drop", "The points lost"), ("d", "d")):
        with pytest.raises(gr.Error) as caught:
            guarded(handler)(name)
        assert caught.value.message == f"{shown} must be at least 9 bytes for max_bytes, got 4."


def test_html_escapes_what_a_visitor_named():
    assert "<script>" not in html.cards([html.Card("<script>", "<script>", "<script>")])
    assert "<script>" not in html.table(["<script>"], [["<script>|<script>"]])
    assert "<script>" not in html.status("<script>") + html.note("<script>") + html.empty(
        "<script>"
    )


def test_a_histogram_marks_where_it_is_cut():
    histogram = weight_histogram(torch.linspace(-1, 1, 99), threshold=0.5)
    layout = plots.weight_histograms({"dense": histogram}).layout
    assert [shape.x0 for shape in layout.shapes] == [-0.5, 0.5]
    assert [note.text for note in layout.annotations] == ["cut here"]


def test_counts_have_their_noun():
    assert [html.count(n, "epoch") for n in (1, 3)] == ["1 epoch", "3 epochs"]
    assert [html.count(n, "pass", "passes") for n in (1, 2)] == ["1 pass", "2 passes"]


def test_a_difference_of_nothing_has_no_minus():
    assert [html.points(x) for x in (0.0123, -0.005, -0.0, -1e-9)] == [
        "+1.23 points", "-0.50 points", "+0.00 points", "+0.00 points",
    ]  # fmt: skip


def test_exactly_half_a_point_lost_is_not_more_than_that():
    lost = [before / 2000 - (before - 10) / 2000 for before in range(1500, 2000)]
    assert any(drop > quantize_steps.TRAINING_DROP for drop in lost)  # by floating point alone
    assert not any(quantize_steps.loses_much(drop) for drop in lost)
    assert quantize_steps.loses_much(11 / 2000)


def test_sizes_are_told_in_the_unit_that_fits():
    assert [html.size(n) for n in (96, 1536, 2**20 * 3 // 2)] == ["96 bytes", "1.5 KiB", "1.50 MiB"]


def test_layer_names_are_those_of_the_models():
    assert layer_names("resnet9-s")[0] == "conv1" and len(layer_names("resnet9-s")) == 9


def test_what_a_stopped_run_says_late_does_not_stand(monkeypatch):
    monkeypatch.setattr(cancelling, "LATE_SECONDS", 0.0)
    running, done = html.status("Epoch 1 of 3 ...", 0.2), html.status("Pruned.")
    said = list(cancelling.cancelled("Cancelled.")(running))
    assert len(said) == 2 and said[0] == said[1] and "Cancelled." in said[0]
    assert list(cancelling.cancelled("Cancelled.")(done)) == [gr.skip()]  # a result stays
    assert list(cancelling.cancelled("Cancelled.", "Timing")(running)) == [gr.skip()]
    assert cancelling.failed(running) == html.status(cancelling.FAILED)  # without a bar
    assert cancelling.failed(done) == gr.skip()  # refused before it began
    *_, (status, figure, table) = sensitivity_tab.stop(running, None, 1)
    assert "No scan yet" in status and figure is None and "No scan yet" in table


def test_long_steps_are_folded_behind_the_first_and_none_is_lost():
    assert html.table(["Variant"], [["a|b; c"]]).count("<small>b; c</small>") == 1
    long = ["first <step>", *(f"step {k} of many words" for k in range(6))]
    shown = html.table(["Variant"], [[f"name|{'; '.join(long)}"]])
    assert "<summary>first &lt;step&gt;; <u>6 more steps</u></summary>" in shown
    assert f"<small>{'; '.join(long[1:])}</small></details>" in shown


def test_no_two_series_are_drawn_alike():
    marks = [plots.marker_of(k, 8) for k in range(60)]
    assert len({(mark["color"], mark["symbol"]) for mark in marks}) == 60
    assert plots.line_of(0)["dash"] == "solid" != plots.line_of(9)["dash"]


def test_a_training_is_guessed_before_and_measured_while_it_runs(monkeypatch):
    for preset, millions in timing.MILLION_MACS.items():
        assert round(measure_complexity(build_model(preset)).macs / 1e6) == millions
    assert set(timing.MILLION_MACS) == set(PRESETS)
    assert "about 20 s: 3 passes over 3,000 images" in timing.guess("resnet9-s", "sample", 3)
    assert "about 2.1 h: 20 passes over 45,000 images" in timing.guess("resnet9", "full", 20)
    assert timing.guess("resnet9", "full", 21) == ""
    assert "about 9 min: 6 passes over" in timing.guess("resnet9-s", "full", 6, 10)
    long = timing.guess("resnet9-s", "full", 7, 10)
    assert "7 epochs of resnet9-s on 45,000 images may take about 11 min; " in long
    assert "this server gives a training 10 min. Choose 6 at most." in long
    assert "1 epoch of resnet9 " in (none := timing.guess("resnet9", "full", 1, 1))
    assert "Choose fewer images or a smaller model." in none
    seconds = iter([0.0, 1.0, 6.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(seconds))
    said = list(map(timing.Clock().left, (0.1, 0.2, 0.3)))
    assert said == ["", "", ", about 20 s left"]


def test_a_training_longer_than_the_server_gives_is_refused(explorer):
    session = Session(explorer.key_of("resnet9-s/baseline", "full"))
    session = dataclasses.replace(session, source="full")
    assert timing.checked_epochs(explorer, session, 20.0) == 20
    short = Explorer(longest_minutes=10)
    assert timing.checked_epochs(short, session, 6) == 6  # 6 x 45,000 x 96 / 46,000 s: 9.4 minutes
    assert "Choose 6 at most." in timing.guess_of(short, session, 7)
    assert "20 epochs of resnet9-s" in timing.first_guess(Explorer(longest_minutes=1), 20)
    expected = r"10 min .* \(6 at most of resnet9-s on the full set\), got 7"
    with pytest.raises(InputError, match=expected):
        timing.checked_epochs(short, session, 7)
    with pytest.raises(InputError, match=r"\(none of resnet9-s on the full set\), got 1\."):
        timing.checked_epochs(Explorer(longest_minutes=1), session, 1)
    with pytest.raises(InputError, match="longest_minutes must be a number from 1 to 10000 min"):
        Explorer(longest_minutes=0)


@pytest.mark.parametrize("train", [prune_steps.tune, quantize_steps.train])
def test_each_training_of_the_page_asks_how_long_it_may_take(monkeypatch, train):
    short = Explorer(longest_minutes=1)
    session = Session(short.key_of("resnet9-s/baseline", "sample"), pruned="p", quantized="q")
    monkeypatch.setattr(short, "variant", lambda key: None)
    with pytest.raises(InputError, match=r"\(9 at most of resnet9-s on the sample set\), got 20"):
        next(train(short, session, 20))


def test_a_goals_table_says_so_and_is_emptied_once_its_plan_is_gone(explorer):
    planned = Session(explorer.key_of(explorer.start, "sample")).with_plan(Plan("key", (), 1, 0.9))
    opened, told, filled = budget.show_bits(planned)
    assert opened["open"] and "it decides" in told["value"] and filled is True
    assert budget.drop_bits(explorer, planned, True) == (gr.skip(),) * 3
    other = planned.with_cut("key")
    assert budget.drop_bits(explorer, other, False) == (gr.skip(),) * 3
    rows, told, filled = budget.drop_bits(explorer, other, True)
    assert rows == [[name, ""] for name in layer_names("resnet9-s")] and filled is False
    assert told["visible"] is False


def test_other_images_keep_the_model_and_say_what_leaves(explorer):
    before = Session(explorer.key_of("resnet9-s/gridmask", "sample"), made=("a", "b"))
    session, key, _, listed, said = start_bar.choose_images(explorer, before, "sample")
    assert session == Session(before.start) and key == before.start
    assert listed["value"] == "resnet9-s/gridmask" and "left the comparison: 2." in said
    assert start_bar.chosen(before) == ("resnet9-s/gridmask", "sample")
    session, *_, said = start_bar.choose_images(explorer, Session("upload"), "sample")
    assert session.start.endswith(explorer.start) and "Upload your checkpoint again" in said


def test_white_text_on_the_accent_colour_can_be_read():
    def luminance(colour):
        parts = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
        linear = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return sum(map(float.__mul__, (0.2126, 0.7152, 0.0722), linear))

    for fill in (theme.FILL, theme.FILL_HOVER):
        assert 1.05 / (luminance(getattr(theme.THEME, fill.strip("*"))) + 0.05) > 4.5


def test_a_load_queues_four_events(page):
    """What app.py says of it where it bounds the queue."""
    loads = [d for d in page["dependencies"] if any(event == "load" for _, event in d["targets"])]
    assert sum(d["queue"] is not False for d in loads) == 4


@pytest.mark.parametrize(
    "shown",
    [{"elem_id": "compare-table"}, {"elem_id": "gridmask-triptych"},
     {"elem_id": "gridmask-gallery"}, {"label": "Weights of the layer"}, {"label": "Codebook"}],
)  # fmt: skip
def test_what_follows_changes_has_one_listener_so_that_older_answers_do_not_stand(page, shown):
    """Gradio keeps the order within a listener alone."""
    ids = [c["id"] for c in page["components"] if shown.items() <= c["props"].items()]
    assert len(ids) == 1
    follows = [
        d for d in page["dependencies"]
        if ids[0] in d["outputs"] and any(event != "click" for _, event in d["targets"])
    ]  # fmt: skip
    assert len(follows) == 1
    assert len(follows[0]["targets"]) > 1 and follows[0]["trigger_mode"] == "always_last"
