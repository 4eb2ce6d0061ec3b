"""On the Compare tab: which classes of images compression costs, a row a variant.

What pruning and quantization take away is not spread evenly over the classes (Hooker et al. 2019,
"What Do Compressed Deep Neural Networks Forget?", arXiv 1911.05248).
"""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from compression.evaluation import wilson_interval
from compression.ui import html

if TYPE_CHECKING:
    from compression.report import Variant

BETTER, WORSE = "13 148 136", "213 94 0"  # teal and vermilion, as in the figures
STRONGEST, FULL_AT = 0.5, 0.1  # opacity of a tint, and the difference that is given it


def class_table(variants: Sequence["Variant"], reference: "Variant | None") -> str:
    """Share of each class's test images that each variant gets right (its recall), in percent;
    tinted by the difference to `reference`, where the server still has that."""
    if not variants:
        return html.empty("No variant to show.")
    names = [report.name for report in variants[0].evaluation.per_class]
    heads = "".join(f"<th>{escape(name)}</th>" for name in ("Variant", *names))
    before = [r.recall for r in reference.evaluation.per_class] if reference else None
    rows = "".join(_row(variant, before) for variant in variants)
    return (
        f"{html.note(_remark(variants[0], reference))}<br>"
        f'<div class="cx-table cx-classes"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(variant: "Variant", before: list[float] | None) -> str:
    cells = f"<td>{escape(variant.name)}</td>"
    for k, report in enumerate(variant.evaluation.per_class):
        style = _tint(report.recall - before[k]) if before else ""
        cells += f"<td{style}>{100 * report.recall:.1f}</td>"
    return f"<tr>{cells}</tr>"


def _tint(difference: float) -> str:
    """A cell's colour: none for the same, the deeper the further away."""
    if not difference:
        return ""
    opacity = STRONGEST * min(1.0, abs(difference) / FULL_AT)
    colour = BETTER if difference > 0 else WORSE
    return f' style="background: rgb({colour} / {opacity:.2f})"'


def _remark(variant: "Variant", reference: "Variant | None") -> str:
    images = min(report.support for report in variant.evaluation.per_class)
    low, high = wilson_interval(round(0.9 * images), images)
    text = f"Right answers in percent. The 95 % interval of 90 % is {low:.0%} to {high:.0%} "
    text += f"for one class of {images:,} images: a small difference may be chance."
    if reference is None:
        return text
    text += f" Orange: fewer right than {reference.name}; green: more; strongest from "
    return f"{text}{100 * FULL_AT:g} points on."
