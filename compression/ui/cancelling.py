"""What the page says once a run was cancelled."""

import time
from collections.abc import Callable, Iterator

from compression.ui import html

LATE_SECONDS = 1.0  # within which a stopped run's last words arrive


def cancelled(text: str) -> Callable[[], Iterator[str]]:
    """A handler that says so, twice: what the run had sent before it was stopped may arrive after
    the first time."""

    def say() -> Iterator[str]:
        yield html.status(text)
        time.sleep(LATE_SECONDS)
        yield html.status(text)

    return say
