"""The page's handlers without a browser: uploads, tables, sessions, the store, pieces of HTML."""

import asyncio
import base64
import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from compression.data import CHANNEL_MEAN
from compression.evaluation import measure_complexity
from compression.inputs import InputError
from compression.model import build_model
from compression.presets import PRESETS, layer_names
from compression.ui import (
    budget,
    cancelling,
    compare_tab,
    gridmask_tab,
    html,
    plots,
    prune_steps,
    quantize_steps,
    sensitivity_tab,
    start_bar,
    theme,
    timing,
)
from compression.ui import explorer as explorer_module
from compression.ui.explorer import Explorer
from compression.ui.guard import guarded
from compression.ui.page import build_page
from compression.ui.pictures import read_upload, sample_picture
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


def saved(tmp_path, image: Image.Image, name: str, **options):
    image.save(tmp_path / name, **options)
    return str(tmp_path / name)


def test_upload_keeps_pixels_and_says_what_was_changed(tmp_path):
    picture = read_upload(saved(tmp_path, Image.new("RGB", (40, 30), (9, 8, 7)), "a.png"))
    assert picture.pixels.shape == (30, 40, 3) and (picture.pixels == (9, 8, 7)).all()
    assert picture.remark == ""
    grey = read_upload(saved(tmp_path, Image.new("L", (5, 5), 100), "grey.png"))
    assert "grey" in grey.remark and (grey.pixels == 100).all()
    clear = read_upload(saved(tmp_path, Image.new("RGBA", (5, 5), (0, 0, 0, 0)), "clear.png"))
    assert "transparency" in clear.remark and (clear.pixels == 255).all()
    wide = read_upload(saved(tmp_path, Image.new("RGB", (1024, 512)), "wide.png"))
    assert wide.pixels.shape == (128, 256, 3)


def test_upload_that_is_no_usable_picture_is_refused(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="must be a picture .* got a file that is none"):
        read_upload(str(tmp_path / "text.png"))
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    whole = saved(tmp_path, Image.fromarray(noise), "whole.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(whole).read_bytes()[:8000])
    with pytest.raises(InputError, match="must be whole, got one that is damaged"):
        read_upload(str(cut))
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green")]
    moving = saved(tmp_path, frames[0], "m.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="got an animation of 3 frames"):
        read_upload(moving)
    with pytest.raises(InputError, match="at most 6000 x 6000 pixels, got 6001 x 1"):
        read_upload(saved(tmp_path, Image.new("L", (6001, 1)), "long.png"))
    monkeypatch.setattr("compression.ui.pictures.MAX_UPLOAD_BYTES", 10)
    with pytest.raises(InputError, match="must be at most 0 MiB, got 0.0 MiB"):
        read_upload(str(cut))


def test_sample_picture_counts_within_the_class(explorer):
    images = explorer.images("validation", "sample")
    place = (images.labels == 3).nonzero()[1].item()
    assert (sample_picture(images, "cat", 2) == images.images[place].numpy()).all()
    with pytest.raises(InputError, match="image number must be a whole number from 1 to 200"):
        sample_picture(images, "cat", 201)


def pictures_in(shown):
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(part.split('"')[0]))))
        for part in shown.split("base64,")[1:]
    ]


def test_draws_fill_holes_as_training_does_and_take_d_in_either_order(explorer):
    shown = gridmask_tab.draw_gallery(explorer, "cat", 18, 12, 0.4, 360, 1, 0)
    assert shown == gridmask_tab.draw_gallery(explorer, "cat", 12, 18, 0.4, 360, 1, 0)
    assert "d from 12 to 18 pixels, ratio 0.4: 12 of 12 images masked" in shown
    mean = gridmask_tab.MEAN_COLOUR
    assert mean == tuple(round(255 * channel) for channel in CHANNEL_MEAN)
    whole = sample_picture(explorer.images("validation", "sample"), "cat", 1)
    changed = (pictures_in(shown)[0] != whole).any(axis=2)
    assert 0.1 < changed.mean() < 0.6 and (pictures_in(shown)[0][changed] == mean).all()


def test_grid_picture_is_the_image_times_the_mask(explorer):
    shown = gridmask_tab.show_grid(explorer, None, "cat", 1, 8, 0.5, 0, 0, 0, False)
    original, mask, result = pictures_in(shown)
    assert (mask[:4] == 255).all() and (mask[4:8, 4:8] == 0).all()
    assert (result == original * (mask[:, :, None] // 255)).all()
    assert "75.0% kept here; formula 75.0%" in shown


@pytest.mark.parametrize(
    ("cell", "value"), [("50", 0.5), ("50 %", 0.5), (12.5, 0.125), ("12,5", 0.125), (0, 0.0)]
)
def test_prune_table_reads_what_people_write(cell, value):
    assert prune_steps.read_table([["conv1", 864, cell]]) == {"conv1": value}
    assert prune_steps.read_table({"data": [["conv1", 864, cell]]}) == {"conv1": value}


@pytest.mark.parametrize("cell", ["half", None, "", 101, -1, float("nan")])
def test_prune_table_refuses_what_is_no_percentage(cell):
    with pytest.raises(InputError, match="sparsity of conv1 must be a number from 0 to 100 %, got"):
        prune_steps.read_table([["conv1", 864, cell]])


@pytest.mark.parametrize("rows", [None, [], "conv1", [1], [["conv1", 1]]])
def test_prune_table_of_another_form_is_refused(rows):
    with pytest.raises(InputError, match="must (have a row for each layer|be layer, weights and)"):
        prune_steps.read_table(rows)


def test_bits_come_from_the_common_width_and_the_table():
    rows = [["conv1", "8"], ["conv2", ""], ["linear", None], ["conv3", 3.0]]
    assert quantize_steps.read_bits(4, rows) == {"conv1": 8, "conv2": 4, "linear": 4, "conv3": 3}
    with pytest.raises(InputError, match="bits of conv1 must be a whole number from 1 to 8, got"):
        quantize_steps.read_bits(4, [["conv1", "9"]])
    with pytest.raises(InputError, match="bits of conv1 must be a whole number .* got 'few'"):
        quantize_steps.read_bits(4, [["conv1", "few"]])
    with pytest.raises(InputError, match="bits must be one of 8, 4, 2, got 3"):
        quantize_steps.read_bits(3, [["conv1", ""]])
    spared = quantize_steps.read_bits(2, [["conv1", ""], ["conv2", ""], ["linear", "6"]], True)
    assert spared == {"conv1": 8, "conv2": 2, "linear": 6}  # what the table says goes first


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


def test_store_drops_the_least_recently_used_and_says_so(monkeypatch):
    monkeypatch.setattr(explorer_module, "STORE_CAPACITY", 2)
    explorer = Explorer()
    made = [SimpleNamespace(name=name) for name in ("first", "second", "third")]
    keys = [explorer.put(variant) for variant in made[:2]]  # pyright: ignore[reportArgumentType]
    assert explorer.variant(keys[0]) is made[0]
    explorer.put(made[2])  # pyright: ignore[reportArgumentType]
    assert explorer.variant(keys[0]) is made[0]
    with pytest.raises(InputError, match="has been dropped to make room: make it again"):
        explorer.variant(keys[1])
    assert explorer.find(keys[1]) is None and explorer.name_of_dropped(keys[1]) == "second"
    assert len(set(keys)) == 2 and all(len(key) >= 20 for key in keys)


def test_a_visit_goes_on_after_one_of_its_variants_was_dropped(monkeypatch):
    monkeypatch.setattr(explorer_module, "STORE_CAPACITY", 1)
    monkeypatch.setattr(compare_tab, "SHIPPED", compare_tab.SHIPPED[:1])
    explorer = Explorer()
    explorer.packed = {}
    session = Session(explorer.key_of(explorer.start, "sample"))
    dense = explorer.variant(session.start)
    for name in ("gone <1>", "kept"):
        session = session.with_cut(explorer.put(dataclasses.replace(dense, name=name)))
    assert list(compare_tab.compare(explorer, session, False)) == [(gr.skip(),) * 5]
    ((status, table, *_),) = compare_tab.compare(explorer, session)
    assert status == gr.skip()
    assert "for all visitors together: gone &lt;1&gt;. To have" in table and "<td>kept" in table
    assert table.count("<tr>") == 3  # the head, the dense model and what is left of the visit
    file = compare_tab.csv_file(explorer, session)
    assert file["name"] == "comparison.csv" and len(file["text"].splitlines()) == 3
    assert prune_steps.show_histogram(explorer, session, "conv1").data[1].name == "pruned"
    lost = dataclasses.replace(session, cut=session.made[0], pruned=session.made[0])
    assert len(prune_steps.show_histogram(explorer, lost, "conv1").data) == 1


def test_a_file_is_never_loaded_by_its_key():
    with pytest.raises(InputError, match="must still be in the server's memory"):
        Explorer().variant("sample:/etc/passwd")


def test_a_measured_model_does_not_wait_for_another_to_be_measured(explorer):
    key = explorer.key_of("resnet9-s/baseline", "sample")
    known = explorer.variant(key)
    with ThreadPoolExecutor(1) as pool, explorer._measuring:  # as if a large one were measured
        assert pool.submit(explorer.variant, key).result(timeout=60) is known


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


def test_html_escapes_what_a_visitor_named():
    assert "<script>" not in html.cards([html.Card("<script>", "<script>", "<script>")])
    assert "<script>" not in html.table(["<script>"], [["<script>|<script>"]])
    assert "<script>" not in html.status("<script>") + html.note("<script>") + html.empty(
        "<script>"
    )


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
    *_, (status, figure, table) = sensitivity_tab.stop(running, None, 1)
    assert "No scan yet" in status and figure is None and "No scan yet" in table


def test_no_two_series_are_drawn_alike():
    marks = [plots.marker_of(k, 8) for k in range(60)]
    assert len({(mark["color"], mark["symbol"]) for mark in marks}) == 60
    bars = [plots.bar_of(k) for k in range(60)]
    assert len({(bar["color"], bar["pattern"]["shape"]) for bar in bars}) == 60
    assert plots.line_of(0)["dash"] == "solid" != plots.line_of(9)["dash"]


def test_a_training_is_guessed_before_and_measured_while_it_runs(monkeypatch):
    for preset, millions in timing.MILLION_MACS.items():
        assert round(measure_complexity(build_model(preset)).macs / 1e6) == millions
    assert set(timing.MILLION_MACS) == set(PRESETS)
    assert "about 20 s: 3 times 3,000 images" in timing.guess("resnet9-s", "sample", 3)
    assert "about 2.1 h: 20 times 45,000 images" in timing.guess("resnet9", "full", 20)
    assert timing.guess("resnet9", "full", 21) == ""
    seconds = iter([0.0, 1.0, 6.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(seconds))
    said = list(map(timing.Clock().left, (0.1, 0.2, 0.3)))
    assert said == ["", "", ", about 20 s left"]


def test_a_goals_table_says_so_and_is_emptied_once_its_plan_is_gone(explorer):
    planned = Session(explorer.key_of(explorer.start, "sample")).with_plan(Plan((), 1, 0.9))
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
