"""The least that gradio can do, started as a page of its own: a slider, and an image that follows.

`python -m benchmarks.bare_page PORT`. The image is drawn by NumPy and shown as the explorer shows
its own, a PNG within the page's HTML; torch is not imported.
"""

import base64
import io
import sys

import gradio as gr
import numpy as np
from PIL import Image

LABEL = "d"


def picture(d: float) -> str:
    """Stripes of the width d in a picture of 32 x 32 pixels, and a caption that names d."""
    place = np.arange(32) // max(int(d), 1) % 2
    pixels = (255 * (place[:, None] ^ place)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((256, 256)).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<figure><img src="data:image/png;base64,{data}"><p>of every {d:g} pixels</p></figure>'


def build() -> gr.Blocks:
    """The slider and the picture."""
    with gr.Blocks(analytics_enabled=False) as page:
        slider = gr.Slider(2, 64, 14, step=1, label=LABEL)
        shown = gr.HTML(picture(14), elem_id="picture")
        slider.input(
            picture, slider, shown, trigger_mode="always_last", show_progress="hidden", queue=False
        )
    return page


if __name__ == "__main__":
    build().launch(server_port=int(sys.argv[1]), ssr_mode=False)
