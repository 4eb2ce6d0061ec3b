"""A variant of the network with all that is said of it, and the rows that compare several.

A row holds plain numbers (accuracies as fractions, sizes in bytes, times in milliseconds), so the
page's table, CSV, JSON and the command line all show the same.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from compression.data import ImageSet
from compression.evaluation import Complexity, Evaluation, Latency, evaluate, measure_complexity
from compression.files import finite
from compression.inputs import InputError
from compression.packing import pack
from compression.quantization import QuantizedLayer, QuantizedModel
from compression.resnet9 import ResNet9
from compression.sizes import SizeReport, measure_size
from compression.stored import StoredModel


@dataclass(frozen=True)
class Variant:
    """One form of the network: dense, pruned or quantized.

    steps: how it came about, in words; masks: layer -> True where the weight is kept; layers: the
    quantized ones; packed_bytes: what its packed file takes, None for a network that is no ResNet9;
    latency: empty until it is measured.
    """

    name: str
    steps: tuple[str, ...]
    model: nn.Module = field(repr=False, compare=False)
    masks: dict[str, Tensor] = field(repr=False, compare=False)
    layers: dict[str, QuantizedLayer] = field(repr=False, compare=False)
    evaluation: Evaluation
    size: SizeReport
    complexity: Complexity
    packed_bytes: int | None
    latency: tuple[Latency, ...] = ()

    def as_quantized(self) -> QuantizedModel:
        """The variant in the form that centroid training takes."""
        return QuantizedModel(self.model, self.layers, self.masks)


def make_variant(
    name: str,
    steps: Sequence[str],
    model: nn.Module,
    test_set: ImageSet,
    *,
    masks: Mapping[str, Tensor] | None = None,
    layers: Mapping[str, QuantizedLayer] | None = None,
    file_bytes: int | None = None,
) -> Variant:
    """Measure `model` on the test images, count its MACs and its bytes, and pack it; file_bytes:
    what the packed file takes that it came out of, which it is not packed for again."""
    masks, layers = dict(masks or {}), dict(layers or {})
    if file_bytes is None and isinstance(model, ResNet9):
        parts = QuantizedModel(model, layers, masks)
        file_bytes = len(pack(StoredModel(name, tuple(steps), parts)))
    return Variant(
        name=name,
        steps=tuple(steps),
        model=model,
        masks=masks,
        layers=layers,
        evaluation=evaluate(model, test_set.images, test_set.labels),
        size=measure_size(model, masks, layers),
        complexity=measure_complexity(model),
        packed_bytes=file_bytes,
    )


def variant_of(stored: StoredModel, test_set: ImageSet, *, name: str | None = None) -> Variant:
    """The variant that a file holds, measured; name: instead of the file's."""
    parts = stored.parts
    return make_variant(
        name or stored.name,
        stored.steps,
        parts.model,
        test_set,
        masks=parts.masks,
        layers=parts.layers,
        file_bytes=stored.file_bytes,
    )


def with_latency(variant: Variant, latency: Sequence[Latency]) -> Variant:
    """The same variant with its measured latency."""
    return replace(variant, latency=tuple(latency))


def row_of(variant: Variant) -> dict[str, str | int | float | None]:
    """One line of the comparison; accuracies are fractions, sizes bytes, times milliseconds."""
    evaluation, size = variant.evaluation, variant.size
    row: dict[str, str | int | float | None] = {
        "variant": variant.name,
        "steps": "; ".join(variant.steps),
        "accuracy": evaluation.accuracy,
        "accuracy_low": evaluation.low,
        "accuracy_high": evaluation.high,
        "macro_f1": evaluation.macro.f1,
        "macro_recall": evaluation.macro.recall,
        "loss": evaluation.loss,
        "test_images": evaluation.total,
        "dense_bytes": size.dense_bytes,
        "report_sparse_bytes": size.report_sparse_bytes,
        "report_quantized_bytes": size.report_quantized_bytes,
        "counted_bytes": size.stored_bytes,
        "times_smaller": size.ratio,
        "packed_bytes": variant.packed_bytes,
        "packed_times_smaller": size.dense_bytes / variant.packed_bytes
        if variant.packed_bytes
        else None,
        "macs": variant.complexity.macs,
        "parameters": variant.complexity.parameters,
        "nonzero_parameters": variant.complexity.nonzero_parameters,
    }
    for latency in variant.latency:
        prefix = f"batch{latency.batch_size}"
        row[f"{prefix}_median_ms"] = latency.median_ms
        row[f"{prefix}_p10_ms"] = latency.p10_ms
        row[f"{prefix}_p90_ms"] = latency.p90_ms
        row["threads"] = latency.threads
    return row


def to_json(variants: Sequence[Variant]) -> str:
    """The rows as a JSON list, with each class's report."""
    rows = []
    for variant in variants:
        classes = {
            report.name: {
                "precision": report.precision,
                "recall": report.recall,
                "f1": report.f1,
                "support": report.support,
            }
            for report in variant.evaluation.per_class
        }
        rows.append(row_of(variant) | {"classes": classes})
    return json.dumps(finite(rows), indent=2, allow_nan=False)


def to_csv(variants: Sequence[Variant]) -> str:
    """The rows as CSV with a header; a value that a variant lacks is empty."""
    rows = [_unbroken(row_of(variant)) for variant in variants]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _unbroken(row: Mapping[str, object]) -> dict[str, object]:
    """Without carriage returns, which older Pythons write unquoted and readers take as a line's
    end."""
    return {k: v.replace("\r", " ") if isinstance(v, str) else v for k, v in row.items()}


def disagreements(variants: Sequence[Variant], limit: int = 24) -> list[int]:
    """Positions of the test images on which the variants' answers differ, most varied first.

    All variants must have been measured on the same number of images; InputError otherwise.
    """
    totals = {variant.evaluation.total for variant in variants}
    if len(totals) > 1:
        raise InputError(
            "variants must be measured on the same test images to be compared, "
            f"got {', '.join(str(total) for total in sorted(totals))} images."
        )
    if len(variants) < 2:
        return []
    answers = torch.stack([variant.evaluation.predictions for variant in variants])  # (V, N)
    ordered = answers.sort(dim=0).values
    distinct = 1 + (ordered[1:] != ordered[:-1]).sum(dim=0)
    order = torch.sort(distinct, descending=True, stable=True).indices
    return [int(place) for place in order[: max(0, limit)] if distinct[place] > 1]
