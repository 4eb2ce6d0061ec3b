"""Build the page, read the command line, launch."""

import argparse
import threading
from pathlib import Path

from compression.inputs import InputError
from compression.presets import SHIPPED
from compression.ui.explorer import STORE_CAPACITY, Explorer
from compression.ui.page import build_page
from compression.ui.theme import CSS_FILE, THEME


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Host, port, model, data, the longest training, and how many variants are kept."""
    parser = argparse.ArgumentParser(description="The compression explorer's page.")
    parser.add_argument("--host", default=None, help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=None, help="port (default: first free from 7860)"
    )
    parser.add_argument(
        "--model",
        default=SHIPPED[0],
        help=f"{', '.join(SHIPPED)}, packed/NAME, or a safetensors file (default {SHIPPED[0]})",
    )
    parser.add_argument(
        "--source",
        default="sample",
        choices=("sample", "full", "auto"),
        help="images to measure on: the bundled sample (default), or the full set, once downloaded",
    )
    parser.add_argument("--data", type=Path, default=None, help="folder of the full CIFAR-10")
    parser.add_argument(
        "--longest-minutes",
        type=float,
        default=None,
        metavar="MINUTES",
        help="refuse trainings that may take longer, for pages of many visitors (default: none)",
    )
    parser.add_argument(
        "--variants",
        type=int,
        default=STORE_CAPACITY,
        help="how many models that visitors made are kept, of all together "
        f"(default {STORE_CAPACITY}); each takes memory for its weights, more than once",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Launch the page; torch and the model load in the background once it answers."""
    options = parse_arguments(arguments)
    try:
        explorer = Explorer(
            options.model, options.source, options.data, options.longest_minutes, options.variants
        )
    except InputError as error:
        raise SystemExit(f"Error: {error}") from None
    page = build_page(explorer)
    # max_size is for the whole page, not for a visitor, and an arrival queues six events (four at
    # the load, two for the tab in sight): a class of thirty at once is not to be turned away.
    page.queue(default_concurrency_limit=4, max_size=400)
    threading.Thread(target=explorer.warm_up, daemon=True).start()
    try:
        page.launch(
            server_name=options.host,
            server_port=options.port,
            inbrowser=options.open,
            theme=THEME,
            css_paths=CSS_FILE,
            max_file_size="256mb",
            state_session_capacity=300,
            footer_links=["api"],
            ssr_mode=False,
        )
    except OSError as error:  # the port is taken, or the address is none of this computer's
        raise SystemExit(f"Error: host and port must be free to listen on, got: {error}") from None


if __name__ == "__main__":
    main()
