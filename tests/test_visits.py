"""A visit of several steps without a browser: what the newest variant is, and what is kept."""

import gradio as gr
import pytest

from compression.ui import html, packed_section, prune_steps, quantize_steps, start_bar
from compression.ui.session import Session
from tests.few_images import FewImages


@pytest.fixture(scope="module")
def explorer():
    return FewImages()


@pytest.fixture(scope="module")
def start(explorer):
    return Session(explorer.key_of("resnet9-s/baseline", "sample"))


def pruned_to(explorer, session, sparsity):
    rows = prune_steps.fill_uniform(explorer, session, sparsity)
    *_, (session, *_) = prune_steps.prune_layers(explorer, session, rows)
    return session


def quantized_to(explorer, session, source, bits):
    rows = quantize_steps.empty_overrides(explorer, session)
    rounding = quantize_steps.ROUNDINGS[0]
    *_, (session, *_) = quantize_steps.quantize_layers(
        explorer, session, source, bits, rows, rounding
    )
    return session


@pytest.fixture(scope="module")
def both(explorer, start):
    """Pruned, then quantized."""
    return quantized_to(explorer, pruned_to(explorer, start, 70), "pruned model", 4)


def test_leaving_the_list_of_models_as_it_was_keeps_the_visit(explorer, both):
    name = "resnet9-s/baseline"
    assert start_bar.choose_model(explorer, both, name)[0] is both
    other = start_bar.choose_model(explorer, both, "resnet9-s/gridmask")[0]
    assert (other.pruned, other.quantized, other.made) == (None, None, both.made)


def test_the_file_is_of_what_was_made_last(explorer, start, both):
    assert (start.latest, both.latest) == (None, both.quantized)
    again = pruned_to(explorer, both, 50)
    assert again.latest == again.pruned != both.pruned
    for session, name in ((both, "70% pruned · 4 bits"), (again, "50% pruned")):
        cards, _, _, file, key, *_ = next(iter(packed_section.make_file(explorer, session)))
        assert f"baseline · {name}</" in cards and key == session.latest
        assert file["interactive"] is True


def test_a_file_goes_once_something_newer_is_made(explorer, both):
    unchanged = (gr.skip(),) * 7
    assert packed_section.still(both, None) == unchanged
    assert packed_section.still(both, both.latest) == unchanged
    cards, ladder, layers, file, key, *_ = packed_section.still(both, both.pruned)
    assert cards == html.empty(packed_section.EMPTY) and key is None
    assert (ladder["visible"], layers["visible"], file["interactive"]) == (False, False, False)


def test_a_result_outlives_what_it_was_made_of(monkeypatch, start, both):
    few = FewImages(capacity=1)
    session = quantized_to(few, pruned_to(few, start, 70), "pruned model", 4)
    assert few.find(session.pruned) is None
    assert "against baseline; 95 %" in quantize_steps.result(few, session)
    bars, _, centroids = quantize_steps.show_codebook(few, session, "linear").data
    assert sum(bars.y) == 2560 and len(centroids.x) == 16
    monkeypatch.setattr(few, "find", lambda key: None)  # an uploaded dense model goes too
    cards = quantize_steps.result(few, session)
    assert "against" not in cards and "95 % interval" in cards and "100 images" in cards


def test_the_tab_for_another_model_quantizes_the_dense_one(explorer, start):
    assert quantize_steps.fresh(explorer, start)[-1] == "dense model"


def test_weights_that_recovery_did_not_move_are_drawn_once(explorer, both):
    recalibrated = list(prune_steps.recalibrate(explorer, both))[-1][0]
    names = [each.name for each in prune_steps.show_histogram(explorer, recalibrated, "conv4").data]
    assert names == [each.name for each in prune_steps.show_histogram(explorer, both, "conv4").data]
    assert len(names) == 2
    moved = explorer.variant(recalibrated.pruned).model
    assert moved is not explorer.variant(both.cut).model
    moved.conv4.conv.weight.data.mul_(1.5)
    names = [each.name for each in prune_steps.show_histogram(explorer, recalibrated, "conv4").data]
    assert len(names) == 3 and names[2].startswith("recovered")
