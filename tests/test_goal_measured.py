"""A goal for a model without recorded settings: measured here, once, on the validation images."""

import functools

import pytest

import compression
from compression.allocation_scan import scan_settings
from compression.ui import budget
from compression.ui.budget import GOALS, plan
from tests import visit_cases

explorer = visit_cases.explorer
start = visit_cases.start

FEW = {"sparsities": (0.5, 0.9), "bits": (2, 4)}


def test_a_model_without_a_record_is_measured_once_on_validation_images(
    monkeypatch, explorer, start
):
    monkeypatch.setattr(compression, "scan_settings", functools.partial(scan_settings, **FEW))
    monkeypatch.setattr(budget, "POINTS_A_LAYER", 4)
    monkeypatch.setattr(budget, "IMAGES", 60)
    asked = (explorer, start, 320, GOALS[1], 3.0)
    said, seen, measured = explorer.told(plan(*asked))
    assert (seen, measured) == ({"full validation"}, set())
    model, images = explorer.model(start.start), explorer.images("validation", "full").head(60)
    points = list(scan_settings(model, images.images, images.labels, **FEW))
    wanted = compression.allocate(compression.setting_table(model, points), max_drop=0.03)
    rows, planned, status = said[-1]
    assert {name: cell for name, _, cell in rows} == {
        name: round(100 * sparsity, 2) for name, sparsity in wanted.sparsities.items()
    }
    assert dict(planned.bits) == wanted.bits
    dense = explorer.variant(start.start).evaluation.accuracy
    assert planned.accuracy == pytest.approx(max(0.0, dense - wanted.predicted_drop))
    assert f"predicted {planned.accuracy:.1%} of the test images right" in status
    told = [text for _, _, text in said if "Measuring what each setting costs" in text]
    assert len(told) == len(points) == 36 and "width:100.0%" in told[-1]
    again, seen, measured = explorer.told(plan(*asked))
    assert again[-1] == said[-1] and not seen | measured
