"""What a goal for the whole file came to: bits, size and accuracy, foretold."""

from dataclasses import dataclass

from compression.ui import html


@dataclass(frozen=True)
class Plan:
    """start: key of the dense model that it is for; bits: (layer, bits) of each layer; size_bytes
    of the file; accuracy: the predicted one (a fraction, of the test images: the dense model's less
    the predicted drop); hashable, as Gradio's state wants it."""

    start: str
    bits: tuple[tuple[str, int], ...]
    size_bytes: int
    accuracy: float

    def text(self) -> str:
        """The predictions in a sentence."""
        return (
            f"Once pruned, quantized and recalibrated: {html.size(self.size_bytes)}, and predicted "
            f"{self.accuracy:.1%} of the test images right."
        )
