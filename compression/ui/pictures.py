"""Pictures for the page: images of the sample by class, and what a visitor uploads, made safe.

An upload is hostile input: its size is read before its pixels are, only still raster formats are
opened, and the result is a small RGB array.
"""

import contextlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from compression.inputs import InputError, choice, whole

if TYPE_CHECKING:
    from compression.data import ImageSet

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_UPLOAD_BYTES = 10 * 2**20
MAX_SIDE = 6000
SHOWN_SIDE = 256


@dataclass(frozen=True)
class Picture:
    """pixels: (H, W, 3) uint8; remark: one sentence on what had to be changed, or nothing."""

    pixels: np.ndarray
    remark: str = ""


def sample_picture(images: "ImageSet", class_name: object, number: object) -> np.ndarray:
    """The `number`-th image (from 1) of a class: (32, 32, 3) uint8."""
    label = images.classes.index(choice("class", class_name, images.classes))
    places = (images.labels == label).nonzero().flatten()
    number = whole("image number", number, 1, len(places))
    return images.images[places[number - 1]].numpy()


def read_upload(path: str) -> Picture:
    """A visitor's picture as RGB, its longer side at most 256 pixels.

    Raises InputError for a file that is no picture, is damaged, too large, animated, or has values
    of 32 bits; a grey picture or one with transparency is taken, and the remark says what was done.
    """
    file = Path(path)
    if file.stat().st_size > MAX_UPLOAD_BYTES:
        raise InputError(
            f"The picture must be at most {MAX_UPLOAD_BYTES // 2**20} MiB, "
            f"got {file.stat().st_size / 2**20:.1f} MiB."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a camera's notes
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                return _to_rgb(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(_too_large("more pixels than any screen")) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"The upload must be a picture ({', '.join(FORMATS)}), got a file of another kind."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("The picture must be whole, got one that is damaged.") from error


def _to_rgb(image: Image.Image) -> Picture:
    width, height = image.size
    if max(width, height) > MAX_SIDE:
        raise InputError(_too_large(f"{width} x {height}"))
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a camera's still JPEG with a preview behind it
        raise InputError(f"The picture must be a still one, got an animation of {frames} frames.")
    # A camera's notes that cannot be read turn nothing.
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise InputError(
            "The picture must have 8 or 16 bits for each value, got one of 32: save it as PNG."
        )
    remark = ""
    if image.mode.startswith("I;16"):  # Pillow's own conversion makes all but the darkest white
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        remark = "The picture has transparency; it is shown on white."
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    elif image.mode in ("1", "L"):
        remark = "The picture is grey; its three channels are equal."
    rgb = image.convert("RGB")
    rgb.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return Picture(np.asarray(rgb), remark)


def _too_large(came: str) -> str:
    return f"The picture must be at most {MAX_SIDE} x {MAX_SIDE} pixels, got {came}."
