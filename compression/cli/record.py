"""`python -m compression record`: the recorded results in assets/results/, on the full data.

For one shipped checkpoint: a scan on validation images; pruning by it, with recalibration and
fine-tuning; and both the dense and the pruned model at 8, 4 and 2 bits: as quantized, with batch
norm recalibrated, and from there with trained centroids. Everything is chosen on validation images;
the accuracies are those of the 10,000 test images. Each row is written as soon as it is there, and
a run that was killed goes on after it.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from compression.centroids import CentroidConfig, train_centroids
from compression.cli.common import DataOption, progress_bar
from compression.data import ImageSet, load_cifar10
from compression.hardware import machine_record
from compression.inputs import whole
from compression.model import load_checkpoint, save_checkpoint
from compression.pruning import PrunedModel, prune, with_model
from compression.quantization import QuantizedModel, quantize
from compression.recalibration import recalibrate_batch_norm
from compression.report import make_variant, row_of
from compression.scan_records import load_scan
from compression.sensitivity import suggest_sparsities
from compression.training import FINE_TUNE, fine_tune

BITS = (8, 4, 2)
RECALIBRATION_IMAGES = 5000


def record_command(
    scan: Annotated[Path, typer.Argument(help="A scan of the checkpoint, from `scan --out`.")],
    out: Annotated[Path, typer.Argument(help="The JSON file of results to write.")],
    checkpoint: Annotated[str, typer.Option(help="A shipped checkpoint.")] = "resnet9-s/baseline",
    max_drop: Annotated[float, typer.Option(help="Points a layer may lose by itself.")] = 1.0,
    fine_tune_epochs: Annotated[int, typer.Option(help="After pruning; 0 leaves it out.")] = 3,
    train_epochs: Annotated[int, typer.Option(help="Of centroid training; 0: none.")] = 1,
    train_images: Annotated[int, typer.Option(help="For centroid training, the first N.")] = 45_000,
    data: DataOption = None,
) -> None:
    """Prune, quantize and train on the full CIFAR-10, a row for each result."""
    whole("train_images", train_images, 500, 45_000)
    whole("fine_tune_epochs", fine_tune_epochs, 0, 100)
    whole("train_epochs", train_epochs, 0, 100)
    sets = {split: load_cifar10(split, "full", data) for split in ("train", "validation", "test")}
    command = (
        f"python -m compression record {scan.name} {out.name} --checkpoint {checkpoint} "
        f"--max-drop {max_drop:g} --fine-tune-epochs {fine_tune_epochs} "
        f"--train-epochs {train_epochs} --train-images {train_images}"
    )
    recorder = Recorder(out, command, sets, train_images)
    dense = load_checkpoint(checkpoint).model
    recorder.add("dense", lambda: (dense, {}, {}))
    pruned = recorder.pruned(dense, _suggested(scan, max_drop), fine_tune_epochs)
    recorder.quantized("dense", dense, {}, train_epochs)
    recovered = "pruned, fine-tuned" if fine_tune_epochs else "pruned, recalibrated"
    recorder.quantized(recovered, pruned.model, pruned.masks, train_epochs)


def _suggested(scan: Path, max_drop: float) -> dict[str, float]:
    recorded = load_scan(scan)
    return suggest_sparsities(recorded.points, recorded.dense.accuracy, max_drop / 100)


class Recorder:
    """Rows of results in a file, each computed once."""

    def __init__(
        self, path: Path, command: str, sets: dict[str, ImageSet], train_images: int
    ) -> None:
        self.path, self.sets, self.train_images = path, sets, train_images
        self.content: dict[str, Any] = {
            "command": command, "machine": machine_record(), "rows": []
        }  # fmt: skip
        if path.is_file():
            self.content = json.loads(path.read_text())

    def has(self, name: str) -> bool:
        """Whether that row is there already."""
        return any(row["variant"] == name for row in self.content["rows"])

    def add(
        self, name: str, make: Callable[[], tuple[Any, dict[str, Any], dict[str, Any]]]
    ) -> None:
        """Make, measure on the test images and write the row `name`, unless it is there."""
        if self.has(name):
            return
        started = time.perf_counter()
        model, masks, layers = make()
        seconds = time.perf_counter() - started
        variant = make_variant(name, [name], model, self.sets["test"], masks=masks, layers=layers)
        row = row_of(variant) | {"seconds_to_make": round(seconds, 1)}
        self.content["rows"].append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")
        typer.echo(f"{name}: {row['accuracy']:.2%}, {row['counted_bytes']:,} bytes", err=True)

    def pruned(self, dense: Any, sparsities: dict[str, float], epochs: int) -> PrunedModel:
        """Pruned by the scan; then recalibrated; then fine-tuned. Kept beside the results file."""
        cut = prune(dense, sparsities)
        self.add("pruned", lambda: (cut.model, cut.masks, {}))
        again = self._recalibrated(cut.model)
        self.add("pruned, recalibrated", lambda: (again, cut.masks, {}))
        if not epochs:
            return with_model(cut, again)
        kept = self.path.with_suffix(".tuned.part")
        if not self.has("pruned, fine-tuned") or not kept.is_file():
            config = dataclasses.replace(FINE_TUNE, epochs=epochs)
            best = self._last(
                fine_tune(cut.model, self.sets["train"], self.sets["validation"], config,
                          masks=cut.masks), epochs
            )  # fmt: skip
            save_checkpoint(best.best_model, kept, {"steps": ["pruned", "fine-tuned"]})
        tuned = load_checkpoint(kept).model
        self.add("pruned, fine-tuned", lambda: (tuned, cut.masks, {}))
        return with_model(cut, tuned)

    def quantized(self, name: str, model: Any, masks: dict[str, Any], epochs: int) -> None:
        """8, 4 and 2 bits: as quantized, recalibrated, and with trained centroids."""
        for bits in BITS:
            plain = quantize(model, bits, masks)
            again = dataclasses.replace(plain, model=self._recalibrated(plain.model))
            self.add(f"{name}, {bits} bits", lambda plain=plain: _parts(plain))
            self.add(f"{name}, {bits} bits, recalibrated", lambda again=again: _parts(again))
            if epochs:
                self.add(
                    f"{name}, {bits} bits, trained",
                    lambda again=again: _parts(self._trained(again, epochs)),
                )

    def _recalibrated(self, model: Any) -> Any:
        return recalibrate_batch_norm(model, self.sets["train"].images[:RECALIBRATION_IMAGES])

    def _trained(self, quantized: QuantizedModel, epochs: int) -> QuantizedModel:
        config = dataclasses.replace(CentroidConfig(), epochs=epochs)
        train_set = self.sets["train"].head(self.train_images)
        return self._last(
            train_centroids(quantized, train_set, self.sets["validation"], config), epochs
        ).best  # fmt: skip

    def _last(self, epochs: Any, count: int) -> Any:
        results = []
        with progress_bar() as bar:
            task = bar.add_task("Training", total=count)
            for result in epochs:
                results.append(result)
                bar.advance(task)
        return results[-1]


def _parts(quantized: QuantizedModel) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    return quantized.model, quantized.masks, quantized.layers
