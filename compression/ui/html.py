"""Small pieces of HTML that the tabs share: cards of figures, rows of pictures, a progress bar."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from compression.inputs import count

if TYPE_CHECKING:
    from compression.report import Variant
    from compression.training import StepResult


@dataclass(frozen=True)
class Card:
    """One figure with its label and a word of help; tone: `good`, `bad` or nothing."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


def cards(items: Iterable[Card]) -> str:
    """A row of cards that wraps on a narrow screen."""
    return f'<div class="cx-cards">{"".join(_card(item) for item in items)}</div>'


def _card(item: Card) -> str:
    return (
        f'<div class="cx-card {escape(item.tone)}"><div class="cx-label">{escape(item.label)}</div>'
        f'<div class="cx-value">{escape(item.value)}</div>'
        f'<div class="cx-note">{escape(item.note)}</div></div>'
    )


def data_uri(pixels: np.ndarray) -> str:
    """(H, W) or (H, W, 3) uint8 -> a PNG as a data: address: exact, no second request."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def figures(pictures: Iterable[tuple[np.ndarray, str]], css_class: str) -> str:
    """Pictures with captions; css_class: `cx-triptych` (three large) or `cx-tiles` (many small)."""
    shown = "".join(
        f'<figure><img src="{data_uri(pixels)}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for pixels, caption in pictures
    )
    return f'<div class="{css_class}">{shown}</div>'


def status(text: str, fraction: float | None = None) -> str:
    """One line on what is going on, with a bar where the fraction done is known."""
    bar = ""
    if fraction is not None:
        percent = 100 * min(1.0, max(0.0, fraction))
        bar = f'<div class="cx-bar"><div style="width:{percent:.1f}%"></div></div>'
    return f'<div class="cx-status" role="status">{escape(text)}{bar}</div>'


def step_fraction(result: "StepResult") -> float:
    """How far a training run is after a step, 0 to 1."""
    return (result.epoch - 1 + result.step / result.steps) / result.epochs


def empty(text: str) -> str:
    """What stands where a result will be, and how to get it."""
    return f'<div class="cx-empty">{escape(text)}</div>'


def note(text: str) -> str:
    """A remark that teaches, set off from the figures."""
    return f'<div class="cx-note-box">{escape(text)}</div>'


LONG_PRINT = 120  # characters of a cell's small print; longer makes the row taller than it helps


def table(head: list[str], rows: list[list[str]]) -> str:
    """A plain table that scrolls sideways on a narrow screen; cells may hold `main|small print`,
    of which `first; second; ...` is folded behind the first where it is long."""
    heads = "".join(f"<th>{_cell(text)}</th>" for text in head)
    body = "".join("<tr>" + "".join(f"<td>{_cell(c)}</td>" for c in row) + "</tr>" for row in rows)
    return (
        f'<div class="cx-table"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    main, _, small = text.partition("|")
    first, *rest = small.split("; ")
    if rest and len(small) > LONG_PRINT:
        return (
            f"{escape(main)}<details><summary>{escape(first)}; "
            f"<u>{count(len(rest), 'more step')}</u></summary>"
            f"<small>{escape('; '.join(rest))}</small></details>"
        )
    return escape(main) + (f"<small>{escape(small)}</small>" if small else "")


def percent(fraction: float) -> str:
    """0.9123 -> `91.23 %`."""
    return f"{100 * fraction:.2f} %"


def points(difference: float) -> str:
    """A difference of two accuracies in percentage points: 0.0123 -> `+1.23 points`."""
    return f"{round(100 * difference, 2) + 0.0:+.2f} points"  # + 0.0: no minus before a zero


def size(size_bytes: float) -> str:
    """Bytes in the unit that fits: `1.64 MiB`, `412.0 KiB`, `96 bytes`."""
    if size_bytes >= 2**20:
        return f"{size_bytes / 2**20:.2f} MiB"
    if size_bytes >= 2**10:
        return f"{size_bytes / 2**10:.1f} KiB"
    return f"{size_bytes} bytes"


def accuracy_card(now: "Variant", before: "Variant | None") -> Card:
    """Test accuracy with its interval, and the difference to another variant, where the server
    still has that."""
    interval = (
        f"95 % interval {now.evaluation.low:.1%} to {now.evaluation.high:.1%}, "
        f"{now.evaluation.total:,} images"
    )
    accuracy = percent(now.evaluation.accuracy)
    if before is None:
        return Card("Test accuracy", accuracy, interval)
    difference = now.evaluation.accuracy - before.evaluation.accuracy
    return Card(
        "Test accuracy",
        accuracy,
        f"{points(difference)} against {before.name}; {interval}",
        "good" if difference > -0.005 else "bad" if difference < -0.02 else "",
    )
