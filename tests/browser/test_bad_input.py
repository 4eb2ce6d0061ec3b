"""What a visitor gets wrong is answered in one sentence; what was on the page stays."""

from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from compression.model import load_checkpoint
from compression.packing import save_packed
from compression.quantization import quantize

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def client(page_url):
    client = Client(page_url, verbose=False)
    yield client
    client.close()


def test_the_actions_have_named_endpoints(client):
    named = set(client.view_api(return_format="dict")["named_endpoints"])
    assert named >= {
        "/gridmask", "/gridmask_gallery", "/gridmask_upload", "/scan", "/prune", "/recalibrate",
        "/fine_tune", "/prune_fill_from_scan", "/quantize", "/train_centroids",
        "/recalibrate_quantized", "/allocate", "/pack", "/compare", "/latency", "/choose_model",
        "/upload_model", "/choose_images", "/download", "/gridmask_sample", "/gridmask_draw_again",
        "/suggest", "/prune_fill_50", "/prune_fill_70", "/prune_fill_90", "/weights", "/codebook",
        "/clear_variants", "/scan_csv", "/csv_file", "/json_file", "/quantize_for_size",
    }  # fmt: skip


GRID = ["cat", 8, 14, 0.4, 0, 0, 0, False]


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (0, "tiger", "class must be one of airplane, .*, got 'tiger'"),
        (1, 0, "image number must be a whole number from 1 to 200, got 0"),
        (2, 5000, "d must be a whole number from 1 to 4096 pixels, got 5000"),
        (2, 7.5, "d must be a whole number from 1 to 4096 pixels, got 7.5"),
        (2, "eight", "d must be a whole number from 1 to 4096 pixels, got 'eight'"),
        (3, 1.5, "ratio must be a number from 0 to 1, got 1.5"),
        (3, None, "ratio must be a number from 0 to 1, got nothing"),
        (4, 900, "angle must be a number from -360 to 360 degrees, got 900"),
        (7, "maybe", "invert must be one of True, False, got 'maybe'"),
    ],
)
def test_gridmask_says_what_was_expected(client, place, value, sentence):
    arguments = [*GRID[:place], value, *GRID[place + 1 :]]
    with pytest.raises(AppError, match=sentence):
        client.predict(*arguments, api_name="/gridmask")


def test_the_smaller_actions_answer_and_check_too(client):
    assert client.predict(4, api_name="/gridmask_draw_again") == 5
    with pytest.raises(AppError, match="seed must be a whole number from 0 to .*, got -1"):
        client.predict(-1, api_name="/gridmask_draw_again")
    table = client.predict(api_name="/prune_fill_70")
    assert {row[2] for row in table["data"]} == {70}
    with pytest.raises(AppError, match="tolerated drop must be a number from 0 to 100 points"):
        client.predict(-1, api_name="/suggest")
    with pytest.raises(AppError, match="layer must be one of conv1, .*, got 'conv9'"):
        client.predict("conv9", api_name="/weights")
    with pytest.raises(AppError, match="A scan of this model is expected first, got none"):
        client.predict(api_name="/scan_csv")


SCAN = [["conv1"], [50], 100, "float32", 1]


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (0, [], r"At least one of the layers must be ticked, got \[\]"),
        (0, ["conv9"], "layer must be one of conv1, .*, got 'conv9'"),
        (1, [120], "level must be a number from 0 to 100 %, got 120"),
        (2, 3, "images must be a whole number from 50 to 2000, got 3"),
        (3, "float8", "precision must be one of auto, float32, bfloat16, got 'float8'"),
        (4, -1, "tolerated drop must be a number from 0 to 100 points, got -1"),
    ],
)
def test_scan_says_what_was_expected(client, place, value, sentence):
    with pytest.raises(AppError, match=sentence):
        client.predict(*SCAN[:place], value, *SCAN[place + 1 :], api_name="/scan")


def test_gridmask_answers_over_the_api(client):
    assert "% of each whole unit" in client.predict(*GRID, api_name="/gridmask")


def test_prune_names_the_layer_and_the_range(client):
    rows = client.predict(api_name="/prune_fill_70")["data"]
    with pytest.raises(AppError, match=r"sparsity of conv1 must be a number from 0 to 100 %, got"):
        client.predict(table([["conv1", 864, 140], *rows[1:]]), api_name="/prune")
    with pytest.raises(AppError, match=r"must have a row for each layer, got none of linear"):
        client.predict(table(rows[:-1]), api_name="/prune")
    with pytest.raises(AppError, match=r"layer must be one of conv1, .*, got 'conv99'"):
        client.predict(table([["conv99", 1, 50]]), api_name="/prune")
    with pytest.raises(AppError, match="A pruned model is expected first, got none"):
        Client(client.src, verbose=False).predict(3, api_name="/fine_tune")


def test_a_budget_and_a_file_want_what_is_there(client):
    with pytest.raises(AppError, match="budget must be a number from 1 to 1048576 KiB, got 0"):
        client.predict(0, api_name="/allocate")
    with pytest.raises(
        AppError, match="The file must be at least [0-9,]+ bytes .* for this model, got"
    ):
        client.predict(2, api_name="/allocate")
    for_size = {"api_name": "/quantize_for_size"}
    with pytest.raises(AppError, match="size must be a number from 1 to 1048576 KiB, got -3"):
        client.predict("dense model", -3, **for_size)
    with pytest.raises(AppError, match="The file must be at least [0-9,]+ bytes .* got 1,024"):
        client.predict("dense model", 1, **for_size)
    with pytest.raises(AppError, match="A pruned or quantized model is expected first, got none"):
        Client(client.src, verbose=False).predict(api_name="/pack")


def table(rows):
    return {"headers": ["Layer", "Weights", "Zeros %"], "data": rows, "metadata": None}


def test_a_model_that_is_none_is_named(client):
    with pytest.raises(AppError, match="model must be one of resnet9-s/baseline, .* got 'vgg'"):
        client.predict("vgg", api_name="/choose_model")


def test_checkpoints_that_are_none_are_refused(client, tmp_path: Path):
    for name, content, sentence in (
        ("model.safetensors", b"\x10", "whole safetensors file"),
        ("model.pth", b"PK\x03\x04" + b"0" * 100, "got a pickle"),
        ("packed.safetensors", damaged_packed(tmp_path), "the file is damaged or was changed"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(AppError, match=sentence):
            client.predict(handle_file(path), api_name="/upload_model")


def damaged_packed(folder: Path) -> bytes:
    """A packed file with its last byte changed."""
    save_packed(quantize(load_checkpoint("resnet9-s/baseline").model, 1), folder / "whole")
    content = (folder / "whole").read_bytes()
    return content[:-1] + bytes([content[-1] ^ 1])


def test_pictures_that_are_none_are_refused(client, tmp_path: Path):
    text = tmp_path / "picture.png"
    text.write_bytes(b"not a picture")
    with pytest.raises(AppError, match="The upload must be a picture"):
        client.predict(handle_file(text), api_name="/gridmask_upload")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(AppError, match="animation of 2 frames"):
        client.predict(handle_file(tmp_path / "moving.gif"), api_name="/gridmask_upload")


def test_a_mistake_on_the_page_leaves_the_rest(new_visitor):
    visitor = new_visitor()
    page = visitor.page
    visitor.open_tab("Prune")
    page.get_by_role("button", name="Fine-tune").click()
    page.get_by_text("A pruned model is expected first, got none").first.wait_for()
    page.wait_for_timeout(500)
    word = page.locator('[data-testid="status-tracker"] .error')  # Gradio's, over the status line
    assert not any(each.is_visible() for each in word.all())
    visitor.open_tab("Quantize")
    page.get_by_label("Compressed file (KiB)", exact=True).fill("1")
    page.get_by_role("button", name="Quantize for this size").click()
    page.get_by_text("The file must be at least").first.wait_for()
    page.locator("#quantize-status").get_by_text("That did not work").wait_for()  # no bar is left
    assert page.locator("#quantize-status .cx-bar").count() == 0
    visitor.open_tab("GridMask")
    assert page.locator("#gridmask-triptych figure").count() == 3
