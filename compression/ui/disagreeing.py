"""On the Compare tab: the test images to which the variants give the most different answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import compression
from compression.data import ImageSet
from compression.ui import html

if TYPE_CHECKING:
    from compression.report import Variant

MOST = 18
RIGHT = "\u2713"


def disagreeing(variants: Sequence["Variant"], test_set: ImageSet) -> str:
    """The images, each with its class and with the numbers of the variants that gave an answer."""
    places = compression.disagreements(variants, limit=MOST)
    if not places:
        return html.empty("All variants give the same answer to every test image.")
    pictures = [(test_set.images[k].numpy(), _caption(variants, test_set, k)) for k in places]
    names = ", ".join(f"{number} {v.name}" for number, v in enumerate(variants, start=1))
    note = html.note(
        f"Bold: what the image shows. {RIGHT}: the models that got it right; below, each wrong "
        f"answer and the models that gave it. Models by number: {names}."
    )
    return note + "<br>" + html.figures(pictures, "cx-tiles wide")


def _caption(variants: Sequence["Variant"], test_set: ImageSet, place: int) -> str:
    """The image's class, then an answer a line: the right one, and the wrong ones by number."""
    truth = test_set.classes[int(test_set.labels[place])]
    answers: dict[str, list[str]] = {truth: []}
    for number, variant in enumerate(variants, start=1):
        answer = test_set.classes[int(variant.evaluation.predictions[place])]
        answers.setdefault(answer, []).append(str(number))
    right = " ".join(answers.pop(truth)) or "nobody"
    wrong = [f"{answer}: {' '.join(who)}" for answer, who in answers.items()]
    return "\n".join([truth, f"{RIGHT} {right}", *wrong])
