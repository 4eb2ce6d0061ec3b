"""The course report from start to end: train, scan, prune, fine-tune, quantize, train, pack.

One config file says what to do; every step leaves a file in one folder, and a step whose file is
there is not done again, so a run that was killed goes on where it was (training: at its last
epoch). Each row of the results is measured on a packed file loaded back from disk. Everything is
chosen on validation images; the test images only report.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from torch import nn

from compression.centroids import CentroidConfig, train_centroids
from compression.code_training import CODE_TRAINING, train_codes
from compression.compensation import quantize_compensated
from compression.data import ImageSet
from compression.files import write_json
from compression.hardware import machine_record
from compression.model import ResNet9, load_checkpoint, save_checkpoint
from compression.packing import save_packed
from compression.presets import layer_names
from compression.pruning import prune
from compression.quantization import QuantizedModel, quantize
from compression.recalibration import recalibrate_batch_norm
from compression.recipes import FINE_TUNE
from compression.report import row_of, variant_of
from compression.reproduction_config import ReproductionConfig
from compression.reproduction_inputs import check_shipped, content_of, sets_of
from compression.reproduction_table import markdown
from compression.runs import average_checkpoints, train_checkpoint
from compression.scan_records import load_scan, record_scan, save_scan
from compression.sensitivity import dense_point, latest, scan, suggest_sparsities
from compression.stored import StoredModel, load_stored
from compression.training import EpochResult, fine_tune

Notify = Callable[[str], None]


class Reproduction:
    """One run in one folder; `notify` is told of each thing that was done.

    Raises InputError where the folder holds a run of another config.
    """

    def __init__(
        self,
        config: ReproductionConfig,
        folder: Path,
        *,
        command: str = "",
        data: Path | None = None,
        notify: Notify = lambda text: None,
    ) -> None:
        self.config, self.folder, self.notify = config, folder, notify
        folder.mkdir(parents=True, exist_ok=True)
        self._results = folder / "results.json"
        self._machine = machine_record()
        self.content = content_of(self._results, config, command, self._machine)
        self._started = time.perf_counter() - self.content.get("seconds", 0.0)
        self.sets = sets_of(config, data)
        self.content["images"] = {split: len(images) for split, images in self.sets.items()}
        check_shipped(config)
        self._write()  # before the first checkpoint is there for another config to take

    def run(self) -> list[dict[str, Any]]:
        """Do what is not done yet; returns the rows of results.json."""
        for name in self.config.models:
            self.model(name)
            self.row(f"{name}, dense", ["as trained"], lambda name=name: self._dense(name))
        self.compress(self.config.compress)
        return self.content["rows"]

    def model(self, name: str) -> Path | str:
        """Train the model `name`, cycle by cycle; its checkpoint's path, or its shipped name.

        Of the last cycle and the average of all, the better on the validation images is taken.
        """
        cycles = self.config.models[name]
        if "/" in cycles[0]:
            return cycles[0]
        done: list[Path] = []
        for k, recipe in enumerate(cycles):
            out = self.folder / f"{name}-{k + 1}.safetensors"
            if not out.is_file():
                epochs = train_checkpoint(
                    out,
                    self.sets,
                    recipe=recipe,
                    preset=self.config.preset,
                    seed=self.config.seed + k,
                    start=str(done[-1]) if done else None,
                )
                self._last(f"{name}, cycle {k + 1}", epochs)
                out.with_name(out.name + ".resume").unlink(missing_ok=True)
            done.append(out)
        if len(done) == 1:
            return done[0]
        mean = self.folder / f"{name}-mean.safetensors"
        if not mean.is_file():
            average_checkpoints(mean, [str(path) for path in done], self.sets)
        found = {p: load_checkpoint(p).metadata["validation_accuracy"] for p in (done[-1], mean)}
        self.notify(f"{name}: {found[done[-1]]:.2%} after its cycles, {found[mean]:.2%} averaged")
        return max(found, key=lambda path: found[path])

    def compress(self, name: str) -> None:
        """Prune by a scan, recover, and quantize both the dense and the pruned model."""
        dense = self._dense(name)[0]
        if not self.config.prune:
            return self._quantized(f"{name}, dense", [], lambda: dense, {})
        sparsities = self._scanned(name, dense)
        cut = prune(dense, sparsities)
        pruned = [f"pruned to {cut.sparsity:.1%} zeros"]
        self.row(f"{name}, pruned", pruned, lambda: (cut.model, cut.masks, {}))
        recovered = functools.cache(lambda: self._recalibrated(cut.model))
        steps = [*pruned, "batch norm recalibrated"]
        self.row(f"{name}, pruned, recalibrated", steps, lambda: (recovered(), cut.masks, {}))
        if self.config.fine_tune_epochs:
            tuned = functools.cache(lambda: self._tuned(name, cut.model, cut.masks))
            way = "distilled" if self.config.distil else "fine-tuned"
            steps = [*pruned, f"{way} {self.config.fine_tune_epochs} epochs"]
            self.row(f"{name}, pruned, fine-tuned", steps, lambda: (tuned(), cut.masks, {}))
            recovered = tuned
        self._quantized(f"{name}, dense", [], lambda: dense, {})
        self._quantized(f"{name}, pruned", steps, recovered, cut.masks)

    def row(
        self,
        name: str,
        steps: list[str],
        make: Callable[[], tuple[nn.Module, dict[str, Any], dict[str, Any]]],
    ) -> None:
        """Make a variant, pack it, load the file back, measure it; unless its row is there."""
        if any(row["variant"] == name for row in self.content["rows"]):
            return
        started = time.perf_counter()
        model, masks, layers = make()
        path = self.folder / "packed" / f"{_slug(name)}.safetensors"
        path.parent.mkdir(exist_ok=True)
        parts = QuantizedModel(model, layers, masks)
        info = save_packed(StoredModel(name, tuple(steps), parts), path)
        measured = variant_of(load_stored(path), self.sets["test"], name=name)
        row: dict[str, Any] = {**row_of(measured)}
        row |= {"packed_bytes": info.total_bytes, "file": f"packed/{path.name}"}
        row |= {"seconds": round(time.perf_counter() - started, 1)}
        if self._machine != self.content["machine"]:  # gone on with elsewhere, or by later code
            row["machine"] = self._machine
        self.content["rows"].append(row)
        self._write()
        self._resume(name).unlink(missing_ok=True)
        self.notify(f"{name}: {row['accuracy']:.2%}, {info.total_bytes:,} bytes on disk")

    def _dense(self, name: str) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
        return load_checkpoint(self.model(name)).model, {}, {}

    def _scanned(self, name: str, dense: nn.Module) -> dict[str, float]:
        path, config = self.folder / f"{name}-scan.json", self.config
        if not path.is_file():
            images = self.sets["validation"].head(config.scan_images)
            pair = (images.images, images.labels)
            start = dense_point(dense, *pair)
            points = latest(list(scan(dense, *pair, levels=list(config.levels))))
            about = {"model": name, "command": self.content["command"]}
            save_scan(path, record_scan(dense, *pair, points, start, about=about))
            self.notify(f"{name}: scanned {len(points)} points")
        recorded = load_scan(path)
        return suggest_sparsities(recorded.points, recorded.dense.accuracy, config.max_drop / 100)

    def _recalibrated(self, model: nn.Module) -> nn.Module:
        images = self.sets["train"].images[: self.config.recalibration_images]
        return recalibrate_batch_norm(model, images)

    def _tuned(self, name: str, model: nn.Module, masks: dict[str, Any]) -> nn.Module:
        path, config = self.folder / f"{name}-tuned.safetensors", self.config
        if not path.is_file():
            # A trained network's answers make steeper steps than labels: 0.02 comes near diverging.
            rate = (
                FINE_TUNE.sgd_lr / FINE_TUNE.temperature**2 if config.distil else FINE_TUNE.sgd_lr
            )
            recipe = dataclasses.replace(
                FINE_TUNE, epochs=config.fine_tune_epochs, sgd_lr=rate, seed=config.seed
            )
            resume = self._resume(f"{name}, tuned")
            epochs = fine_tune(
                model,
                self.sets["train"],
                self.sets["validation"],
                recipe,
                masks=masks,
                teacher=self._teacher(name),
                resume=resume,
            )
            best = self._last(f"{name}, fine-tuning", epochs)
            save_checkpoint(cast(ResNet9, best.best_model), path, {"steps": ["fine-tuned"]})
            resume.unlink(missing_ok=True)
        return load_checkpoint(path).model

    def _quantized(
        self, name: str, steps: list[str], make: Callable[[], nn.Module], masks: dict[str, Any]
    ) -> None:
        """What `make` gives, at each bit width; made where a row of it is still to be measured."""
        for bits in self.config.bits:
            widths, said = self.config.widths(layer_names(self.config.preset), bits)
            self._at_width(f"{name}, {said}", said, steps, make, widths, masks)

    def _at_width(
        self,
        name: str,
        said: str,
        steps: list[str],
        make: Callable[[], nn.Module],
        widths: dict[str, int],
        masks: dict[str, Any],
    ) -> None:
        """As quantized, recalibrated, with rounding errors that make up for each other, and from
        there with trained centroids, and with weights that may change theirs."""
        config = self.config
        plain = functools.cache(lambda: quantize(make(), widths, masks))
        done = [*steps, f"k-means quantized to {said}"]
        self.row(name, done, lambda: _parts(plain()))
        again = functools.cache(lambda: self._statistics_anew(plain()))
        done = [*done, "batch norm recalibrated"]
        self.row(f"{name}, recalibrated", done, lambda: _parts(again()))
        if count := min(config.compensation_images, len(self.sets["train"])):
            images = self.sets["train"].images[:count]
            again = functools.cache(
                lambda: self._statistics_anew(quantize_compensated(make(), widths, images, masks))
            )
            text = f"rounding errors made up for on {count} images"
            done = [*done[:-1], text, "batch norm recalibrated"]
            self.row(f"{name}, compensated", done, lambda: _parts(again()))
        way = "distilled" if config.distil else "trained"
        if epochs := config.centroid_epochs:
            text = f"centroids {way} {epochs} epochs, best on validation"
            label = f"{name}, trained"
            self.row(label, [*done, text], lambda: _parts(self._trained(label, again())))
        if epochs := config.code_epochs:
            text = f"weights {way} {epochs} epochs, free to change centroid, best on validation"
            freed = f"{name}, codes trained"
            self.row(freed, [*done, text], lambda: _parts(self._recoded(freed, again(), make())))

    def _statistics_anew(self, quantized: QuantizedModel) -> QuantizedModel:
        return dataclasses.replace(quantized, model=self._recalibrated(quantized.model))

    def _teacher(self, name: str) -> nn.Module | None:
        return self._dense(name.partition(",")[0])[0] if self.config.distil else None

    def _trained(self, name: str, quantized: QuantizedModel) -> QuantizedModel:
        config = dataclasses.replace(
            CentroidConfig(), epochs=self.config.centroid_epochs, seed=self.config.seed
        )
        epochs = train_centroids(quantized, *self._pair(), config, **self._learning(name))
        return self._last(name, epochs).best

    def _recoded(self, name: str, quantized: QuantizedModel, model: nn.Module) -> QuantizedModel:
        config = dataclasses.replace(
            CODE_TRAINING, epochs=self.config.code_epochs, seed=self.config.seed
        )
        epochs = train_codes(quantized, model, *self._pair(), config, **self._learning(name))
        return self._last(name, epochs).best

    def _pair(self) -> tuple[ImageSet, ImageSet]:
        return self.sets["train"], self.sets["validation"]

    def _learning(self, name: str) -> dict[str, Any]:
        """Whom a row's model learns from, and where its training's state is kept."""
        return {"teacher": self._teacher(name), "resume": self._resume(name)}

    def _resume(self, name: str) -> Path:
        """Where the state of a row's training is, until the row is safe."""
        return self.folder / f"{_slug(name)}.resume"

    def _last(self, name: str, epochs: Iterator[EpochResult]) -> Any:
        """The last epoch's result; the run is left there, with its state, until that is kept."""
        result = None
        for result in epochs:
            self.notify(f"{name}: epoch {result.epoch} of {result.epochs}, {result.accuracy:.2%}")
            self._write()  # the time it took
            if result.epoch == result.epochs:
                break
        assert result is not None
        return result

    def _write(self) -> None:
        self.content["seconds"] = round(time.perf_counter() - self._started, 1)  # of all goes
        write_json(self._results, self.content)
        (self.folder / "results.md").write_text(markdown(self.content))


def _slug(name: str) -> str:
    """A row's name as that of a file."""
    return name.replace(", ", "-").replace(" ", "-")


def _parts(quantized: QuantizedModel) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    return quantized.model, quantized.masks, quantized.layers
