"""The Sensitivity tab: which images a scan looks at, and what its figure and table show."""

import re

import pytest

import compression
from compression.sensitivity import SensitivityPoint, latest
from compression.ui import sensitivity_tab
from compression.ui.sensitivity_tab import run_scan, shown_scan
from tests import visit_cases

explorer = visit_cases.explorer
start = visit_cases.start


def scanned():
    """Dense 90 % of 50 images; one layer lacks a level, and the levels come in no order."""
    found = {
        ("conv1", 0.9): 36, ("conv1", 0.5): 45, ("res1.first", 0.5): 43, ("linear", 0.5): 46,
        ("linear", 0.9): 44,
    }  # fmt: skip
    points = [SensitivityPoint.counted(*place, count, 50) for place, count in found.items()]
    return {"points": points, "dense_accuracy": 0.9}


def cells(table):
    """The head, then the rows, each a list of texts."""
    found = []
    for row in re.findall("<tr>(.*?)</tr>", table):
        inside = re.findall("<t[hd]>(.*?)</t[hd]>", row)
        found.append([re.sub("<small>(.*)</small>", r"|\1", cell) for cell in inside])
    return found


def levels(figure):
    """The heights of the dense line and the tolerated one, by the words beside them."""
    words = [note.text for note in figure.layout.annotations]
    return dict(zip(words, (line.y0 for line in figure.layout.shapes), strict=True))


def test_the_table_has_each_layers_accuracy_at_each_level_and_what_it_bears():
    _, table = shown_scan(scanned(), 2)
    assert cells(table) == [
        ["Layer", "Largest sparsity|losing at most 2 points", "50%|accuracy %", "90%|accuracy %"],
        ["conv1", "50%", "90.0", "72.0"],
        ["res1.first", "0%", "86.0", ""],
        ["linear", "90%", "92.0", "88.0"],
    ]
    head, *rows = cells(shown_scan(scanned(), 1)[1])
    assert head[1] == "Largest sparsity|losing at most 1 point"
    assert [row[1] for row in rows] == ["50%", "0%", "50%"]
    assert [row[1] for row in cells(shown_scan(scanned(), 4)[1])[1:]] == ["50%", "50%", "90%"]


def test_the_tolerated_line_lies_so_many_points_below_the_dense_one():
    figure, _ = shown_scan(scanned(), 2.5)
    assert levels(figure) == pytest.approx({"dense": 90, "tolerated": 87.5})
    assert [(line.name, list(line.x), list(line.y)) for line in figure.data] == [
        ("conv1", [50, 90], [90, 72]), ("res1.first", [50], [86]), ("linear", [50, 90], [92, 88]),
    ]  # fmt: skip
    figure, table = shown_scan(None, 2.5)
    assert figure is None and "No scan yet" in table


def test_a_scan_is_of_the_first_validation_images(monkeypatch, explorer, start):
    monkeypatch.setattr(sensitivity_tab, "REDRAW_SECONDS", 0.0)
    layers = ["conv1", "conv4", "linear"]
    asked = (explorer, start, layers, [50, 90], 80, "float32", 2.5)
    said, seen, measured = explorer.told(run_scan(*asked))
    assert (seen, measured) == ({"full validation"}, set())
    images, model = explorer.images("validation", "full").head(80), explorer.model(start.start)
    subject = (model, images.images, images.labels)
    wanted = compression.scan(
        *subject, levels=(0.5, 0.9), layers=layers, precision="float32", cache=None
    )
    kept, status, figure, table = said[-1]
    assert latest(kept["points"]) == latest(wanted)
    dense = compression.dense_point(*subject, precision="float32").accuracy
    assert kept["dense_accuracy"] == dense and "6 points on 80 validation images in" in status
    assert "recorded scan" not in status
    drawn = [each[2] for each in said if hasattr(each[2], "layout")]
    assert len(drawn) > 1 and drawn[-1] is figure
    heights = pytest.approx({"dense": 100 * dense, "tolerated": 100 * dense - 2.5})
    assert all(levels(each) == heights for each in drawn)
    assert [row[0] for row in cells(table)] == ["Layer", *layers]
