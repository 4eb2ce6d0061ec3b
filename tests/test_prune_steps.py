"""The Prune tab's steps: the table out of a scan, recalibration, and a fine-tuning to its end."""

import dataclasses
from types import SimpleNamespace

import pytest

import compression
from compression.inputs import InputError
from compression.sensitivity import SensitivityPoint
from compression.ui.prune_steps import fill_from_scan, recalibrate, tune
from tests import visit_cases
from tests.training_cases import same_bits
from tests.visit_cases import TO_CHOOSE, TO_MEASURE

explorer = visit_cases.explorer
start = visit_cases.start
pruned = visit_cases.pruned


def test_the_table_has_the_largest_level_that_loses_no_more_than_tolerated(explorer, start):
    """Dense 90 %: at 2 points conv1 falls at 90 % of zeros, and conv2 at once."""
    found = {
        ("conv1", 0.5): 88, ("conv1", 0.9): 75, ("conv2", 0.5): 85, ("conv2", 0.9): 89,
        ("linear", 0.5): 90, ("linear", 0.875): 89,
    }  # fmt: skip
    points = [SensitivityPoint.counted(*place, count, 100) for place, count in found.items()]
    scanned = {"points": points, "dense_accuracy": 0.9}
    rows = fill_from_scan(explorer, start, scanned, 2.0)
    assert [row[:2] for row in rows[:3]] == [["conv1", 216], ["conv2", 1152], ["res1.first", 2304]]
    assert {name: cell for name, _, cell in rows if cell} == {"conv1": 50.0, "linear": 87.5}
    assert len(rows) == 9
    wide = {name: cell for name, _, cell in fill_from_scan(explorer, start, scanned, 15) if cell}
    assert wide == {"conv1": 90.0, "conv2": 90.0, "linear": 87.5}
    with pytest.raises(InputError, match="A scan of this model is expected first, got none"):
        fill_from_scan(explorer, start, None, 2.0)


def test_recalibration_is_that_of_the_training_images_and_moves_no_weight(explorer, pruned):
    before = explorer.variant(pruned.pruned)
    said, seen, measured = explorer.told(recalibrate(explorer, pruned))
    session, status, *_ = said[-1]
    found = explorer.variant(session.pruned)
    images = explorer.images("train", "full").images
    assert same_bits(found.model, compression.recalibrate_batch_norm(before.model, images))
    assert not same_bits(found.model, before.model)
    assert (seen, measured) == ({"full train"}, TO_MEASURE)
    assert session.cut == pruned.cut and found.masks.keys() == before.masks.keys()
    assert found.name == f"{before.name} · recalibrated"
    assert found.steps == (*before.steps, "batch norm recalibrated")
    assert "Passing 512 training images" in said[0][1] and "Recalibrated: no weight" in status


def test_a_fine_tuning_holds_the_zeros_and_chooses_on_the_validation_images(explorer, pruned):
    before = explorer.variant(pruned.pruned)
    said, seen, measured = explorer.told(tune(explorer, pruned, 2))
    session, status, cards, _ = said[-1]
    found = explorer.variant(session.pruned)
    sets = [explorer.images(split, "full") for split in ("train", "validation")]
    config = dataclasses.replace(compression.FINE_TUNE, epochs=2)
    *_, last = compression.fine_tune(before.model, *sets, config, masks=before.masks)
    assert same_bits(found.model, last.best_model)
    for name, layer in compression.prunable_layers(found.model).items():
        assert (layer.weight[~before.masks[name]] == 0).all()
    assert found.masks.keys() == before.masks.keys() and "60.0%" in cards
    assert (seen, measured) == (TO_CHOOSE, TO_MEASURE)
    assert session.cut == pruned.cut and found.name == f"{before.name} · tuned"
    assert found.steps == (*before.steps, f"fine-tuned 2 epochs, best of them {last.best_epoch}")
    assert f"Kept epoch {last.best_epoch}, the best on the validation images." in status
    told = [text for _, text, _, _ in said if f": {last.accuracy:.2%} on the validation" in text]
    assert len(told) == 1 and "Epoch 2 of 2" in told[0]
    *_, curve = (figure["value"] for *_, figure in said if figure.get("value"))
    assert list(curve.data[0].y) == [100 * row["accuracy"] for row in last.history]
    cut = compression.evaluate(before.model, sets[1].images, sets[1].labels).accuracy
    assert curve.data[1].name == f"before fine-tuning: {100 * cut:.2f} %"


@pytest.mark.parametrize(("best", "worse"), [(0.0, True), (1.0, False)])
def test_a_fine_tuning_that_did_harm_says_so(explorer, pruned, monkeypatch, best, worse):
    model = explorer.variant(pruned.pruned).model
    epoch = SimpleNamespace(
        epoch=1, accuracy=best, best_accuracy=best, best_epoch=1, seconds=1.0, best_model=model
    )
    monkeypatch.setattr(compression, "train_by_step", lambda *asked, **more: iter([epoch]))
    *_, (_, status, *_) = tune(explorer, pruned, 1)
    validation = explorer.images("validation", "full")
    before = compression.evaluate(model, validation.images, validation.labels).accuracy
    assert before > 0
    assert (f"That was {best:.2%} there; {before:.2%} before." in status) == worse
