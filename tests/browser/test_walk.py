"""A visitor walks through all five tabs; what the page shows is what the library computes."""

from pathlib import Path

import pytest
import torch
from playwright.sync_api import expect

from compression.allocation import allocate
from compression.allocation_records import load_settings
from compression.allocation_table import setting_table
from compression.budget_fit import fit
from compression.data import load_cifar10
from compression.evaluation import evaluate
from compression.gridmask import grid_mask
from compression.model import load_checkpoint, prunable_layers
from compression.packing import description_bytes, load_packed
from compression.presets import SHIPPED
from compression.pruning import prune
from compression.quantization import quantize
from compression.sizes import measure_size
from compression.ui.budget import ROOM
from compression.ui.html import size

pytestmark = pytest.mark.browser

ASSETS = Path(__file__).resolve().parents[2] / "assets"
SHIPPED_ROWS = [name.removeprefix("resnet9-s/") for name in SHIPPED] + [
    f"packed/{path.stem}" for path in sorted(ASSETS.glob("packed/*.safetensors"))
]

# Of the page's background and of its text: the mean of red, green and blue, 0 to 255.
BRIGHTNESS = """() => {
  const style = getComputedStyle(document.querySelector("gradio-app"));
  return [style.backgroundColor, style.color].map(colour =>
    colour.match(/[0-9.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part) / 3, 0));
}"""


@pytest.fixture(scope="module")
def test_set():
    return load_cifar10("test", "sample")


@pytest.fixture(scope="module")
def baseline():
    return load_checkpoint("resnet9-s/baseline").model


def accuracy_text(model, images) -> str:
    return f"{100 * evaluate(model, images.images, images.labels).accuracy:.2f} %"


def test_five_tabs_show_what_the_library_computes(new_visitor, baseline, test_set):
    visitor = new_visitor()
    page = visitor.page
    assert "1,646,122 parameters" in page.locator("#model-line").inner_text()

    visitor.open_tab("GridMask")
    page.get_by_label("number input for d: unit of the grid (pixels)").fill("8")
    mask = grid_mask(32, 32, d=8, ratio=0.4)
    page.locator("#gridmask-triptych").get_by_text(f"{mask.mean():.1%} kept;").wait_for()
    page.locator("#gridmask-gallery figure").nth(11).wait_for()

    visitor.open_tab("Sensitivity")
    page.locator("#scan-status").get_by_text("Recorded scan").wait_for()
    assert page.locator("#scan-table tbody tr").count() == 9

    visitor.open_tab("Prune")
    page.get_by_role("button", name="Prune 70 %").click()
    page.locator("#prune-status").get_by_text("Pruned.").wait_for()
    pruned = prune(baseline, dict.fromkeys(prunable_layers(baseline), 0.7))
    assert visitor.card("#prune-result", "Test accuracy") == accuracy_text(pruned.model, test_set)
    assert visitor.card("#prune-result", "Zeros") == f"{pruned.sparsity:.1%}"
    counted = measure_size(pruned.model, pruned.masks).stored_bytes
    assert visitor.card("#prune-result", "counted in full") == size(counted)

    visitor.open_tab("Quantize")
    expect(page.get_by_role("radio", name="pruned model")).to_be_checked(timeout=60_000)
    page.get_by_role("button", name="Quantize", exact=True).click()
    page.locator("#quantize-status").get_by_text("Quantized:").wait_for()
    quantized = quantize(pruned.model, 4, pruned.masks)
    shown = visitor.card("#quantize-result", "Test accuracy")
    assert shown == accuracy_text(quantized.model, test_set)
    counted = measure_size(quantized.model, quantized.masks, quantized.layers).stored_bytes
    assert visitor.card("#quantize-result", "counted in full") == size(counted)
    page.get_by_role("button", name="Make the file").click()
    page.locator("#packed-result .cx-card").first.wait_for()
    on_disk = visitor.card("#packed-result", "On disk")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the file").click()
    packed = download.value.path()
    assert on_disk == size(packed.stat().st_size)
    for name, module in prunable_layers(load_packed(packed)).items():
        assert torch.equal(module.weight, prunable_layers(quantized.model)[name].weight)

    visitor.open_tab("Compare")
    rows = page.locator("#compare-table tbody tr")
    rows.last.get_by_text("k-means quantized to 4 bits").wait_for()  # the table comes in parts
    cells = [rows.nth(k).locator("td").first.inner_text() for k in range(rows.count())]
    names = [cell.split("\n")[0] for cell in cells]
    assert "k-means quantized to 4 bits" in cells[-1]  # with the steps that led there
    assert names == [*SHIPPED_ROWS, "baseline · 70% pruned", names[-1]]
    assert names[-1].endswith("4 bits")
    assert rows.last.locator("td").nth(1).inner_text().startswith(shown.replace(" %", "%"))
    assert rows.last.locator("td").nth(3).inner_text() == on_disk
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "comparison.csv"
    lines = download.value.path().read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(names) and lines[-1].startswith(names[-1])
    assert visitor.foreign == []
    assert visitor.errors == []


def test_scan_streams_points_and_can_be_cancelled(new_visitor):
    visitor = new_visitor()
    page = visitor.page
    visitor.open_tab("Sensitivity")
    page.locator("#scan-status").get_by_text("Recorded scan").wait_for()
    page.get_by_label("number input for Validation images").fill("200")
    page.get_by_role("button", name="Scan", exact=True).click()
    page.locator("#scan-status").get_by_text("of 81 points").wait_for()
    page.locator("#scan-status").get_by_text("200 validation images in").wait_for()
    page.locator("#scan-status").get_by_text("or taken from the recorded scan").wait_for()
    page.get_by_label("number input for Validation images").fill("2000")
    page.get_by_role("button", name="Scan", exact=True).click()
    page.locator("#scan-status").get_by_text("of 81 points").wait_for()
    page.get_by_role("button", name="Cancel").first.click()
    page.locator("#scan-status").get_by_text("Cancelled").wait_for()


def test_opening_the_list_of_models_keeps_what_was_made(new_visitor):
    """Gradio's list answers whenever it is left, chosen anew or not."""
    visitor = new_visitor()
    visitor.open_tab("Prune")
    page = visitor.page
    page.get_by_role("button", name="Prune 70 %").click()
    page.locator("#prune-status").get_by_text("Pruned.").wait_for()
    models = page.get_by_label("Dense model to start from")
    models.click()
    page.get_by_role("option").first.wait_for()
    with page.expect_response(lambda response: "/queue/join" in response.url):
        models.press("Tab")
    page.locator("#model-line").get_by_text("parameters").wait_for()
    page.get_by_role("button", name="Recalibrate batch norm").first.click()
    page.locator("#prune-status").get_by_text("Recalibrated").wait_for()


def test_two_visitors_do_not_see_each_other(new_visitor):
    first, second = new_visitor(), new_visitor()
    first.open_tab("Prune")
    second.open_tab("Prune")
    first.page.get_by_role("button", name="Prune 50 %").click()
    second.page.get_by_role("button", name="Prune 90 %").click()
    for visitor in (first, second):
        visitor.page.locator("#prune-status").get_by_text("Pruned.").wait_for()
    assert first.card("#prune-result", "Zeros") == "50.0%"
    assert second.card("#prune-result", "Zeros") == "90.0%"
    for visitor, own, other in ((first, "50%", "90%"), (second, "90%", "50%")):
        visitor.open_tab("Compare")
        table = visitor.page.locator("#compare-table")
        table.get_by_text(f"{own} pruned").wait_for()
        assert f"{other} pruned" not in table.locator("tbody").inner_text()
        assert table.locator("tbody tr").count() == len(SHIPPED_ROWS) + 1


@pytest.mark.parametrize("options", [{"width": 360}, {"dark": True}], ids=["phone", "dark"])
def test_page_fits_a_phone_and_dark_mode(new_visitor, options):
    visitor = new_visitor(**options)
    page = visitor.page
    for tab, shown in (
        ("GridMask", "#gridmask-gallery figure"), ("Sensitivity", "#scan-table tbody tr"),
        ("Prune", "#prune-table [role=row], #prune-table tr"), ("Quantize", "#quantize-result"),
        ("Compare", "#compare-table tbody tr"),
    ):  # fmt: skip
        visitor.open_tab(tab)
        page.locator(shown).first.wait_for()
        page.locator(".js-plotly-plot:visible").first.wait_for()
        inner, scroll = page.evaluate("[window.innerWidth, document.documentElement.scrollWidth]")
        assert scroll <= inner, tab
    behind, text = page.evaluate(BRIGHTNESS)
    assert (behind < 60 < 180 < text) if options.get("dark") else (behind > 200 > 120 > text)
    assert visitor.errors == []


def test_on_a_phone_the_picture_stays_in_sight_of_its_sliders(new_visitor):
    visitor = new_visitor(width=360)
    page = visitor.page
    visitor.open_tab("GridMask")
    page.locator("#gridmask-triptych figure").nth(2).wait_for()
    place = page.locator("#gridmask-triptych").bounding_box()["y"]
    page.evaluate("y => window.scrollTo(0, y)", place + 100)  # its own place is out of sight
    slider = page.get_by_label("number input for Offset down (pixels)")
    picture, moved = page.locator("#gridmask-triptych").bounding_box(), slider.bounding_box()
    assert picture["y"] >= 0 and picture["y"] + picture["height"] <= moved["y"]


def test_a_budget_fills_both_tables_and_predicts(new_visitor, baseline, test_set):
    visitor = new_visitor()
    page = visitor.page
    visitor.open_tab("Prune")
    page.get_by_label("number input for Budget for the compressed file (KiB)").fill("400")
    page.get_by_role("button", name="Fill both tables by the goal and prune").click()
    page.locator("#prune-status").get_by_text("Pruned. Once pruned, quantized").wait_for()
    points = load_settings(ASSETS / "results" / "settings-resnet9-s-baseline.json").points
    table = setting_table(baseline, points)
    room = ROOM + description_bytes("baseline", ["as trained"])
    found, size = fit(
        baseline, 400 * 1024, lambda aim: allocate(table, max_bytes=aim), overhead=room
    )
    pruned = prune(baseline, found.sparsities)
    assert visitor.card("#prune-result", "Zeros") == f"{pruned.sparsity:.1%}"
    visitor.open_tab("Quantize")
    page.locator("#quantize-status").get_by_text("filled by the goal").wait_for()
    page.locator("#quantize-filled").get_by_text("it decides").wait_for()
    expect(page.get_by_role("radio", name="pruned model")).to_be_checked(timeout=60_000)
    page.locator("#quantize-table").get_by_text("res2.first").first.wait_for()  # open, to be seen
    page.get_by_role("button", name="Quantize", exact=True).click()
    page.locator("#quantize-status").get_by_text("Quantized:").wait_for()
    predicted = evaluate(baseline, test_set.images, test_set.labels).accuracy - found.predicted_drop
    assert visitor.card("#quantize-result", "Predicted by the goal") == f"{100 * predicted:.2f} %"
    page.get_by_role("button", name="Make the file").click()
    page.locator("#packed-result .cx-card").first.wait_for()
    shown = visitor.card("#packed-result", "On disk")  # with the steps of the visit in it
    assert shown.endswith(" KiB") and 0 <= size / 1024 - float(shown.removesuffix(" KiB")) < 1
    page.get_by_role("button", name="Empty the table").click()
    page.locator("#quantize-filled").wait_for(state="hidden")


def test_what_one_part_of_the_page_says_the_others_follow(new_visitor):
    visitor = new_visitor()
    page = visitor.page
    tolerated = "number input for Tolerated drop, each layer by itself (points)"
    visitor.open_tab("Sensitivity")
    page.locator("#scan-status").get_by_text("Recorded scan").wait_for()
    page.get_by_label(tolerated).first.fill("2.5")
    page.locator("#scan-table").get_by_text("losing at most 2.5 points").wait_for()
    visitor.open_tab("Prune")
    expect(page.get_by_label(tolerated).last).to_have_value("2.5")
    page.get_by_role("button", name="Prune 50 %").click()
    page.locator("#prune-status").get_by_text("Pruned.").wait_for()
    page.get_by_role("button", name="Fine-tune").click()
    page.locator("#prune-status").get_by_text("Epoch 1 of 3, step").wait_for()
    page.get_by_role("button", name="Prune with this table").scroll_into_view_if_needed()
    expect(page.locator("#prune-status .cx-bar")).to_be_in_viewport()  # from its foot, too
    page.locator("button:visible", has_text="Cancel").click()
    page.locator("#prune-status").get_by_text("Cancelled").wait_for()
    page.get_by_role("button", name="Prune 50 %").click()  # at once: it is not stopped, too
    page.locator("#prune-status").get_by_text("Pruned.").wait_for()
    page.locator("button:visible", has_text="Cancel").click()  # nothing runs
    page.wait_for_timeout(1500)
    assert "Pruned." in page.locator("#prune-status").inner_text()
    visitor.open_tab("Compare")
    rows = page.locator("#compare-table tbody tr")
    rows.last.get_by_text("baseline · 50% pruned #2").wait_for()
    page.get_by_role("button", name="Clear my variants").click()
    page.locator("#compare-status").get_by_text("Cleared").wait_for()
    page.wait_for_function(
        "n => document.querySelectorAll('#compare-table tbody tr').length == n",
        arg=len(SHIPPED_ROWS),
    )
    visitor.open_tab("Prune")
    page.locator("#prune-result").get_by_text("Nothing pruned yet").wait_for()
    visitor.open_tab("Quantize")
    expect(page.get_by_role("radio", name="dense model")).to_be_checked(timeout=60_000)
    assert visitor.errors == []


def test_a_file_is_made_for_a_size(new_visitor, test_set):
    visitor = new_visitor()
    page = visitor.page
    visitor.open_tab("Quantize")
    page.get_by_label("Compressed file (KiB)").fill("270")
    page.get_by_role("button", name="Quantize for this size").click()
    page.locator("#quantize-status").get_by_text("of the weights zero").wait_for()
    page.get_by_role("button", name="Make the file").click()
    page.locator("#packed-result .cx-card").first.wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the file").click()
    model = load_packed(download.value.path())
    told = float(visitor.card("#quantize-result", "Test accuracy").removesuffix(" %"))
    found = float(accuracy_text(model, test_set).removesuffix(" %"))
    assert abs(told - found) < 0.06  # an image of 2,000: the file's batch norm is in half precision
    shown = float(visitor.card("#packed-result", "On disk").removesuffix(" KiB"))
    assert 0.98 * 270 < shown <= 270
    page.get_by_role("button", name="Quantize", exact=True).click()  # the file is of no model now
    page.locator("#packed-result").get_by_text("No file yet").wait_for()
    assert page.get_by_role("button", name="Download the file").is_disabled()
    assert visitor.errors == []
