"""Buttons that make a small text file when they are pressed, and let the browser save it.

Gradio's own DownloadButton gives what was made before the press, so it would need a new file on the
server for each change of the page; here the text goes straight to the browser, and no file is left.
"""

from collections.abc import Callable
from typing import Any

import gradio as gr

SAVE = """(file) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([file.text]));
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}"""


def text_file(name: str, text: str) -> dict[str, str]:
    """What a handler of `save_on_click` returns."""
    return {"name": name, "text": text}


def save_on_click(button: gr.Button, make: Callable[..., Any], inputs: Any, api_name: str) -> None:
    """Let the button save what `make` returns; an error of its is shown and saves nothing."""
    file = gr.JSON(visible="hidden")
    made = button.click(
        make, inputs, file, api_name=api_name, show_progress="hidden", concurrency_limit=4
    )
    made.success(None, file, js=SAVE)
