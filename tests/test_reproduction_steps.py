"""The steps of a reproduction, training replaced by stand-ins: what each is given, and its rows."""

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from compression import reproduction
from compression.data import SPLITS, load_cifar10
from compression.model import load_checkpoint, prunable_layers, save_checkpoint
from compression.packing import load_packed, save_packed
from compression.presets import layer_names
from compression.pruning import prune
from compression.quantization import QuantizedModel, quantize
from compression.recalibration import recalibrate_batch_norm
from compression.recipes import FINE_TUNE
from compression.reproduction import Reproduction
from compression.reproduction_config import ReproductionConfig
from compression.scan_cache import content_digest
from compression.scan_records import load_scan
from compression.sensitivity import dense_point, latest, scan
from compression.stored import load_stored
from tests.training_cases import same_bits, same_images

ASKED: dict[str, Any] = {
    "compress": "net", "preset": "tiny", "source": "sample", "seed": 5, "distil": True,
    "train_images": 64, "validation_images": 30, "test_images": 50, "scan_images": 20,
    "levels": [0.3, 0.6], "max_drop": 2.5, "recalibration_images": 50, "compensation_images": 40,
    "bits": [2], "fine_tune_epochs": 4, "centroid_epochs": 2, "code_epochs": 3,
}  # fmt: skip
WAYS = ("trained", "codes-trained")
MODELS = {"gridmask": ["resnet9-s/gridmask"]}
TRAININGS = ("fine_tune", "train_centroids", "train_codes")


@pytest.fixture(scope="module")
def sets():
    """The images that such a run takes of each split."""
    return {split: load_cifar10(split, "sample").head(ASKED[f"{split}_images"]) for split in SPLITS}


def evenly(model, widths, images, masks):
    """In place of compensated rounding: levels evenly spaced, soon found."""
    return quantize(model, widths, masks, kind="linear")


def halved(model):
    """A copy with every weight halved, and its zeros."""
    copied = copy.deepcopy(model)
    for module in prunable_layers(copied).values():
        module.weight.data.mul_(0.5)
    return copied


@pytest.fixture(scope="module")
def done(tiny_network, tmp_path_factory):
    """A run in which the scan suggests other sparsities for every layer, fine-tuning halves the
    weights, compensated rounding spaces levels evenly, and levels and codes are trained to 4 and
    3 bits; with what they were given."""
    folder = tmp_path_factory.mktemp("done")
    save_checkpoint(tiny_network, folder / "net.safetensors", {})
    suggested = {name: k / 10 for k, name in enumerate(layer_names("tiny"))}
    given = {name: [] for name in ("scan", "compensated", *TRAININGS)}
    states = []

    def suggest(*asked):
        given["scan"].append(asked)
        return suggested

    def compensate(*asked):
        given["compensated"].append(asked[2])
        return evenly(*asked)

    def stand_in(name, make):
        def trained(*asked, teacher, resume, **options):
            given[name].append((asked, teacher))
            states.append(resume.name)
            found = make(asked[0])
            yield SimpleNamespace(
                epoch=1, epochs=7, accuracy=0.5, best=found, best_model=found,
                best_epoch=0 if name == "train_codes" else 6,
            )  # fmt: skip

        return trained

    made = {
        "fine_tune": halved,
        "train_centroids": lambda quantized: quantize(tiny_network, 4),
        "train_codes": lambda quantized: quantize(tiny_network, 3),
    }
    config = ReproductionConfig(models={"net": [str(folder / "net.safetensors")]}, **ASKED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduction, "suggest_sparsities", suggest)
        patch.setattr(reproduction, "quantize_compensated", compensate)
        patch.setattr(reproduction, "count_correct", lambda *asked: 1)  # fine-tuned is no worse
        for name, make in made.items():
            patch.setattr(reproduction, name, stand_in(name, make))
        rows = Reproduction(config, folder / "run").run()
    files = {row["variant"]: folder / "run" / row["file"] for row in rows}
    dense = load_checkpoint(folder / "net.safetensors").model
    return SimpleNamespace(
        folder=folder / "run", config=config, files=files, dense=dense, suggested=suggested,
        given=given, states=states,
    )  # fmt: skip


def weights_of(path):
    layers = prunable_layers(load_stored(path).model)
    return {name: module.weight.detach() for name, module in layers.items()}


def test_what_is_scanned_are_validation_images(done, sets):
    seen, recorded = sets["validation"].head(20), load_scan(done.folder / "net-scan.json")
    pair = (seen.images, seen.labels)
    assert recorded.content == content_digest(done.dense, *pair)
    assert list(recorded.points) == latest(scan(done.dense, *pair, levels=[0.3, 0.6], cache=None))
    assert recorded.dense == dense_point(done.dense, *pair)


def test_the_pruned_row_has_the_sparsities_that_the_scan_suggests(done):
    recorded = load_scan(done.folder / "net-scan.json")
    assert {(point.layer, point.sparsity) for point in recorded.points} == {
        (name, level) for name in done.suggested for level in (0.3, 0.6)
    }
    assert {point.total for point in recorded.points} == {20}
    ((points, dense_accuracy, max_drop),) = done.given["scan"]
    assert list(points) == list(recorded.points)
    assert (dense_accuracy, max_drop) == (recorded.dense.accuracy, 0.025)
    cut = prunable_layers(prune(done.dense, done.suggested).model)
    for name, weight in weights_of(done.files["net, pruned"]).items():
        assert torch.equal(weight, cut[name].weight)
    for name, weight in weights_of(done.files["net, pruned, fine-tuned"]).items():
        assert torch.equal(weight, cut[name].weight / 2)


def test_all_that_is_trained_learns_from_the_dense_model_where_that_is_asked(done, tmp_path):
    expected = {"fine_tune": (1, 4), "train_centroids": (2, 2), "train_codes": (2, 3)}
    for name, (times, epochs) in expected.items():
        assert len(done.given[name]) == times
        for (*_, recipe), teacher in done.given[name]:
            assert (recipe.epochs, recipe.seed) == (epochs, 5)
            assert same_bits(teacher, done.dense)
    ((*_, recipe), _) = done.given["fine_tune"][0]
    assert recipe.sgd_lr == FINE_TUNE.sgd_lr / 4
    plain = Reproduction(replace(done.config, distil=False), tmp_path)
    assert plain._teacher("net, dense, 2 bits, trained") is None


def test_all_that_is_trained_sees_training_images_and_is_chosen_on_validation_images(done, sets):
    for name in TRAININGS:
        for (*_, train_set, validation_set, _), _ in done.given[name]:
            assert same_images(train_set, sets["train"]), name
            assert same_images(validation_set, sets["validation"]), name


def test_batch_norm_is_recalibrated_and_errors_made_up_for_on_training_images(done, sets, tmp_path):
    train, path = sets["train"].images, tmp_path / "expected.safetensors"
    cut = prune(done.dense, done.suggested)
    parts = {"net, pruned": QuantizedModel(cut.model, {}, cut.masks)}
    for kind, dense, masks in (("dense", done.dense, {}), ("pruned", halved(cut.model), cut.masks)):
        name, widths = f"net, {kind}, 2 bits", dict.fromkeys(layer_names("tiny"), 2)
        parts[name] = quantize(dense, 2, masks)
        parts[f"{name}, compensated"] = evenly(dense, widths, None, masks)
    assert [len(images) for images in done.given["compensated"]] == [40, 40]
    assert all(torch.equal(images, train[:40]) for images in done.given["compensated"])
    for name, before in parts.items():
        model = recalibrate_batch_norm(before.model, train[:50])
        assert not same_bits(model, before.model)
        after = replace(before, model=model)
        wanted = {name: before, f"{name}, recalibrated": after}
        if name.endswith("compensated"):  # such a row is recalibrated too, and trained from there
            wanted = {name: after}
            for what in TRAININGS[1:]:
                (begun, *_), _ = done.given[what]["pruned" in name]
                assert same_bits(begun.model, model), (what, name)
        for row, expected in wanted.items():
            save_packed(expected, path)
            assert same_bits(load_packed(path), load_packed(done.files[row])), row


def test_levels_and_codes_are_trained_and_have_their_rows(done):
    for kind, asked in zip(("dense", "pruned"), done.given["train_codes"], strict=True):
        levels, codes = (
            load_stored(done.files[f"net, {kind}, 2 bits, {what}"])
            for what in ("trained", "codes trained")
        )
        assert {layer.bits for layer in levels.layers.values()} == {4}
        assert {layer.bits for layer in codes.layers.values()} == {3}
        assert levels.steps[-1] == "centroids distilled 7 epochs: epoch 6 kept, best on validation"
        free = "weights distilled 7 epochs, free to change centroid"
        assert codes.steps[-1] == f"{free}: the start kept, best on validation"
        (quantized, behind, *_), _ = asked
        assert {layer.bits for layer in quantized.layers.values()} == {2}
        was = done.dense if kind == "dense" else prune(done.dense, done.suggested).model
        for name, module in prunable_layers(behind).items():
            scale = 1 if kind == "dense" else 0.5
            assert torch.equal(module.weight, prunable_layers(was)[name].weight * scale)


def test_each_training_has_a_state_of_its_own_to_go_on_from(done):
    rows = [f"{kind}-2-bits-{what}" for kind in ("dense", "pruned") for what in WAYS]
    assert done.states == [f"net-{name}.resume" for name in ("tuned", *rows)]


def test_what_is_quantized_is_the_better_of_two_on_validation_images(tmp_path, sets, monkeypatch):
    right = iter([3, 4, 4, 3, 5, 5])

    def count(model, images, labels):
        assert torch.equal(images, sets["validation"].images)
        assert torch.equal(labels, sets["validation"].labels)
        return next(right)

    monkeypatch.setattr(reproduction, "count_correct", count)
    asked = ASKED | {"compress": "gridmask", "preset": "resnet9-s"}
    run = Reproduction(ReproductionConfig(models=MODELS, **asked), tmp_path)
    tuned, recalibrated = (["tuned"], run._dense("gridmask")), (["again"], run._dense("gridmask"))
    found = [run._better(tuned, recalibrated)[0] for _ in range(3)]
    assert found == [["again"], ["tuned"], ["tuned"]]


def test_few_images_are_fine_tuned_in_small_batches(done):
    """64 images: 512 in a batch would make one step."""
    ((*_, recipe), _) = done.given["fine_tune"][0]
    assert recipe.batch_size == 64 // 20
