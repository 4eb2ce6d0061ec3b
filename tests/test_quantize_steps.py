"""Training on the Quantize tab: centroids alone, or with weights that may change theirs."""

import dataclasses

import pytest
import torch

from compression.inputs import InputError
from compression.ui.quantize_steps import (
    LEARNING,
    ROUNDINGS,
    SOURCES,
    empty_overrides,
    follow_cut,
    quantize_layers,
    show_codebook,
    train,
)
from compression.ui.session import Session
from tests.visit_cases import NotedImages


@pytest.fixture(scope="module")
def explorer():
    return NotedImages()


@pytest.fixture(scope="module")
def at_two_bits(explorer):
    start = Session(explorer.key_of("resnet9-s/baseline", "sample"))
    rows = empty_overrides(explorer, start)
    *_, (session, *_) = quantize_layers(explorer, start, SOURCES[0], 2, rows, ROUNDINGS[0])
    return session


@pytest.mark.parametrize(("learning", "changes"), [(LEARNING[0], False), (LEARNING[1], True)])
def test_codes_change_only_where_they_may(explorer, at_two_bits, learning, changes):
    said, seen, measured = explorer.told(train(explorer, at_two_bits, 1, learning))
    assert (seen, measured) == ({"sample train", "sample validation"}, {"sample test"})
    session, status, cards, *_ = said[-1]
    assert "Trained. Kept epoch 1, the best on the validation images." in status
    assert any("Epoch 1 of 1, step 2 of " in str(each[1]) for each in said)
    before, after = (explorer.variant(str(s.quantized)) for s in (at_two_bits, session))
    assert after.name == f"{before.name} · {'codes trained' if changes else 'trained'}"
    assert session.unquantized == at_two_bits.unquantized and "Test accuracy" in cards
    assert list(after.layers) == [name for name, _ in empty_overrides(explorer, session)]
    assert {len(layer.codebook) for layer in after.layers.values()} == {4}
    pairs = [(after.layers[name].indices, before.layers[name].indices) for name in after.layers]
    assert all(torch.equal(*pair) for pair in pairs) != changes


def test_a_codebook_is_drawn_over_the_weights_once_there_is_one(explorer, at_two_bits):
    start = Session(at_two_bits.start)
    (bars,) = show_codebook(explorer, start, "linear").data
    assert sum(bars.y) == 2560
    same, _, centroids = show_codebook(explorer, at_two_bits, "linear").data
    quantized = explorer.variant(str(at_two_bits.quantized)).layers["linear"]
    assert same.y == bars.y and list(centroids.x) == quantized.codebook.tolist()
    dropped = dataclasses.replace(at_two_bits, quantized="of long ago")
    assert len(show_codebook(explorer, dropped, "linear").data) == 1
    with pytest.raises(InputError, match="layer must be one of conv1, "):
        show_codebook(explorer, start, "conv9")


def test_what_may_change_is_one_of_two(explorer, at_two_bits):
    with pytest.raises(InputError, match="what training may change must be one of the centroids, "):
        next(train(explorer, at_two_bits, 1, "all"))


def test_what_is_quantized_follows_each_new_cut_and_nothing_else():
    start = Session("dense")
    source, followed = follow_cut(start, None)
    assert source != SOURCES[1] and followed is None
    cut = start.with_cut("cut")
    assert follow_cut(cut, None) == (SOURCES[1], "cut")
    tuned = cut.with_pruned("tuned")  # a visitor may have chosen the dense model meanwhile
    assert follow_cut(tuned, "cut")[0] != SOURCES[1]
    assert follow_cut(tuned.with_cut("again"), "cut") == (SOURCES[1], "again")
    assert follow_cut(tuned.cleared(), "cut")[1] is None
