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

from compression.centroids import CentroidConfig, CentroidEpoch, train_centroids
from compression.code_training import CODE_TRAINING, train_codes
from compression.compensation import quantize_compensated
from compression.data import ImageSet
from compression.files import write_json, write_text
from compression.hardware import machine_record
from compression.inference import count_correct
from compression.inputs import count
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
Stage = tuple[list[str], QuantizedModel]  # what was done, in words, and what it gave
_STEPS = 20  # of fine-tuning at least in an epoch, however few the images


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
        check_shipped(config, self.content)
        if not self._results.is_file():
            self._write()  # before the first checkpoint is there for another config to take

    def run(self) -> list[dict[str, Any]]:
        """Do what is not done yet; returns the rows of results.json."""
        for name in self.config.models:
            self.model(name)
            self.row(f"{name}, dense", lambda name=name: (["as trained"], self._dense(name)))
        self.compress(self.config.compress)
        write_text(self.folder / "results.md", markdown(self.content))  # if killed before it
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
        dense = self._dense(name)
        if not self.config.prune:
            return self._quantized(f"{name}, dense", lambda: ([], dense))
        cut = prune(dense.model, self._scanned(name, dense.model))
        parts = QuantizedModel(cut.model, {}, cut.masks)
        pruned = [f"pruned to {cut.sparsity:.1%} zeros"]
        self.row(f"{name}, pruned", lambda: (pruned, parts))
        recovered = functools.cache(lambda: self._recalibrated((pruned, parts)))
        self.row(f"{name}, pruned, recalibrated", recovered)
        if self.config.fine_tune_epochs:
            tuned = functools.cache(lambda: self._tuned(name, (pruned, parts)))
            self.row(f"{name}, pruned, fine-tuned", tuned)
            candidates = (tuned, recovered)
            recovered = functools.cache(lambda: self._better(*(make() for make in candidates)))
        self._quantized(f"{name}, dense", lambda: ([], dense))
        self._quantized(f"{name}, pruned", recovered)

    def row(self, name: str, make: Callable[[], Stage]) -> None:
        """Make a variant, pack it, load the file back, measure it; unless its row is there."""
        if any(row["variant"] == name for row in self.content["rows"]):
            return
        started = time.perf_counter()
        steps, parts = make()
        path = self.folder / "packed" / f"{_slug(name)}.safetensors"
        path.parent.mkdir(exist_ok=True)
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

    def _dense(self, name: str) -> QuantizedModel:
        return QuantizedModel(load_checkpoint(self.model(name)).model, {}, {})

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

    def _recalibrated(self, stage: Stage) -> Stage:
        images = self.sets["train"].images[: self.config.recalibration_images]
        steps, parts = stage
        again = dataclasses.replace(parts, model=recalibrate_batch_norm(parts.model, images))
        return [*steps, "batch norm recalibrated"], again

    def _better(self, *stages: Stage) -> Stage:
        """The stage whose model has the most validation images right, of several the first."""
        images = self.sets["validation"]
        right = [count_correct(parts.model, images.images, images.labels) for _, parts in stages]
        return stages[right.index(max(right))]

    def _tuned(self, name: str, stage: Stage) -> Stage:
        path, config = self.folder / f"{name}-tuned.safetensors", self.config
        steps, parts = stage
        if not path.is_file():
            # A trained network's answers make steeper steps than labels: 0.02 comes near diverging.
            rate = FINE_TUNE.sgd_lr / (FINE_TUNE.temperature**2 if config.distil else 1)
            recipe = dataclasses.replace(
                FINE_TUNE,
                epochs=config.fine_tune_epochs,
                batch_size=min(FINE_TUNE.batch_size, max(2, len(self.sets["train"]) // _STEPS)),
                sgd_lr=rate,
                seed=config.seed,
            )
            resume = self._resume(f"{name}, tuned")
            epochs = fine_tune(
                parts.model,
                *self._pair(),
                recipe,
                masks=parts.masks,
                teacher=self._teacher(name),
                resume=resume,
            )
            best = self._last(f"{name}, fine-tuning", epochs)
            save_checkpoint(cast(ResNet9, best.best_model), path, {"steps": ["fine-tuned"]})
            resume.unlink(missing_ok=True)
        way = "distilled" if config.distil else "fine-tuned"
        tuned = dataclasses.replace(parts, model=load_checkpoint(path).model)
        return [*steps, f"{way} {count(config.fine_tune_epochs, 'epoch')}"], tuned

    def _quantized(self, name: str, make: Callable[[], Stage]) -> None:
        """What `make` gives, at each bit width; made where a row of it is still to be measured."""
        for bits in self.config.bits:
            self._at_width(name, make, *self.config.widths(layer_names(self.config.preset), bits))

    def _at_width(
        self, name: str, make: Callable[[], Stage], widths: dict[str, int], said: str
    ) -> None:
        """As quantized, recalibrated, with rounding errors that make up for each other, and from
        there with trained centroids, and with weights that may change theirs."""
        name, text = f"{name}, {said}", f"k-means quantized to {said}"
        images = self.sets["train"].images[: self.config.compensation_images]

        @functools.cache
        def plain() -> Stage:
            steps, parts = make()
            return [*steps, text], quantize(parts.model, widths, parts.masks)

        def compensated() -> Stage:
            steps, parts = make()
            found = quantize_compensated(parts.model, widths, images, parts.masks)
            return [*steps, text, f"rounding errors made up for on {len(images)} images"], found

        self.row(name, plain)
        again = functools.cache(lambda: self._recalibrated(plain()))
        self.row(f"{name}, recalibrated", again)
        if len(images):
            again = functools.cache(lambda: self._recalibrated(compensated()))
            self.row(f"{name}, compensated", again)
        if self.config.centroid_epochs:
            self.row(f"{name}, trained", lambda: self._trained(f"{name}, trained", again()))
        if self.config.code_epochs:
            freed = f"{name}, codes trained"
            self.row(freed, lambda: self._recoded(freed, again(), make()[1].model))

    def _teacher(self, name: str) -> nn.Module | None:
        return self._dense(name.partition(",")[0]).model if self.config.distil else None

    def _trained(self, name: str, stage: Stage) -> Stage:
        config = CentroidConfig(epochs=self.config.centroid_epochs, seed=self.config.seed)
        epochs = train_centroids(stage[1], *self._pair(), config, **self._learning(name))
        return self._kept(stage, self._last(name, epochs), "centroids", "")

    def _recoded(self, name: str, stage: Stage, model: nn.Module) -> Stage:
        config = dataclasses.replace(
            CODE_TRAINING, epochs=self.config.code_epochs, seed=self.config.seed
        )
        epochs = train_codes(stage[1], model, *self._pair(), config, **self._learning(name))
        return self._kept(stage, self._last(name, epochs), "weights", ", free to change centroid")

    def _kept(self, stage: Stage, last: CentroidEpoch, what: str, how: str) -> Stage:
        """The best epoch's model, or the start where no epoch was better on validation."""
        way = "distilled" if self.config.distil else "trained"
        best = f"epoch {last.best_epoch}" if last.best_epoch else "the start"
        text = f"{what} {way} {count(last.epochs, 'epoch')}{how}: {best} kept, best on validation"
        return [*stage[0], text], last.best

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
        write_text(self.folder / "results.md", markdown(self.content))


def _slug(name: str) -> str:
    """A row's name as that of a file."""
    return name.replace(", ", "-").replace(" ", "-")
