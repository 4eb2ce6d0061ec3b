"""Pictures on the page: uploads, samples, and grids over them as training sees them."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compression.data import CHANNEL_MEAN
from compression.inputs import InputError
from compression.ui import gridmask_tab
from compression.ui.explorer import Explorer
from compression.ui.pictures import read_upload, sample_picture


@pytest.fixture(scope="module")
def explorer():
    return Explorer()


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


def test_pictures_of_16_bits_and_those_of_cameras_are_shown_as_they_are(tmp_path):
    ramp = np.arange(256, dtype=np.uint16).repeat(2).reshape(16, 32)
    for name in ("deep.png", "deep.tiff"):
        deep = read_upload(saved(tmp_path, Image.fromarray(ramp * 257), name))
        assert (deep.pixels == ramp[:, :, None]).all() and "grey" in deep.remark
    views = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = saved(
        tmp_path, views[0], "still.jpg", format="MPO", save_all=True, append_images=views[1:]
    )
    still = read_upload(path)
    assert still.pixels[:, :, 0].min() > 240 and still.pixels[:, :, 2].max() < 15
    for kind in (np.int32, np.float32):
        with pytest.raises(InputError, match="8 or 16 bits for each value, got one of 32"):
            read_upload(saved(tmp_path, Image.fromarray(ramp.astype(kind)), "wide.tiff"))


def test_a_picture_that_a_phone_took_upright_stands_upright(tmp_path):
    """Its camera's notes say how to turn it (EXIF's orientation 6: a quarter to the right)."""
    sideways = np.zeros((20, 40, 3), np.uint8)
    sideways[:, :20] = 255  # what is left becomes what is above
    for orientation, above in ((6, True), (8, False)):
        notes = Image.Exif()
        notes[0x0112] = orientation
        path = saved(tmp_path, Image.fromarray(sideways), "phone.png", exif=notes)
        pixels = read_upload(path).pixels
        assert pixels.shape == (40, 20, 3)
        assert (pixels[:20] == 255 * above).all() and (pixels[20:] == 255 * (not above)).all()
    path = saved(tmp_path, Image.fromarray(sideways), "odd.jpg", exif=b"Exif\0\0MM\0*\0\0\0\xff")
    assert read_upload(path).pixels.shape == (20, 40, 3)  # notes that cannot be read


def test_upload_that_is_no_usable_picture_is_refused(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="must be a picture .* got a file of another kind"):
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
    assert "75.0% kept; 75.0% of each whole unit of the grid" in shown
