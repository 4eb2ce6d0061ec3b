"""The commands prune and quantize: what they write and what they say, against the functions behind
them, on a tiny network and a few images."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from compression.__main__ import app
from compression.cli import compress
from compression.compensation import quantize_compensated
from compression.model import load_checkpoint, prunable_layers, save_checkpoint
from compression.packing import save_packed
from compression.pruning import prune
from compression.quantization import quantize
from compression.recalibration import recalibrate_batch_norm
from compression.stored import load_stored
from compression.training import FINE_TUNE, fine_tune
from compression.unfolding import is_folded, unfold_batch_norm
from tests import cli_cases
from tests.cli_cases import few, measured, run, weights_of
from tests.training_cases import same_bits, same_images

few_images = cli_cases.few_images
start = cli_cases.start
TRAININGS = {
    "fine_tune": ("prune", "--sparsity", 0.5, "--fine-tune-epochs", 1),
    "train_centroids": ("quantize", "--bits", 2, "--train-epochs", 1),
    "train_codes": ("quantize", "--bits", 2, "--train-epochs", 1, "--train-codes"),
}
SMALLER = {
    "prune": (
        ("--sparsity", 0.5),
        lambda model: prune(model, dict.fromkeys(prunable_layers(model), 0.5)).model,
    ),
    "quantize": (("--bits", 3), lambda model: quantize(model, 3).model),
}


def test_prune_leaves_the_zeros_that_it_is_asked_for(start, tmp_path):
    out, single = tmp_path / "pruned.safetensors", tmp_path / "single.safetensors"
    words = ("--sparsity", 0.5, "--layer", "conv1=0.25", "--layer", "linear=0")
    shown = json.loads(run("prune", start, out, *words, "--json"))
    before, after = weights_of(start), weights_of(out)
    wanted = dict.fromkeys(before, 0.5) | {"conv1": 0.25, "linear": 0.0}
    for name, weight in after.items():
        kept, old = weight != 0, before[name]
        assert int((~kept).sum()) == round(wanted[name] * weight.numel())
        assert torch.equal(weight[kept], old[kept])
        if wanted[name]:
            assert old[~kept].abs().max() < old[kept].abs().min()
    assert load_checkpoint(out).metadata["sparsity"] == wanted
    found = measured(out, "test")
    assert (shown["checkpoint"], shown["accuracy"]) == (str(out), found.accuracy)
    assert (shown["loss"], shown["test_images"]) == (found.loss, 50)
    run("prune", start, single, "--layer", "conv2=0.75")
    zeros = {name: int((weight == 0).sum()) for name, weight in weights_of(single).items()}
    assert zeros == dict.fromkeys(before, 0) | {"conv2": 0.75 * before["conv2"].numel()}


@pytest.mark.parametrize("words", [("prune", "--sparsity", 0.5), ("quantize", "--bits", 3)])
def test_batch_norm_alone_is_recalibrated_on_training_images(start, tmp_path, words):
    plain, again = tmp_path / "plain.safetensors", tmp_path / "again.safetensors"
    command, *options = words
    run(command, start, plain, *options)
    run(command, start, again, *options, "--recalibrate")
    before = load_checkpoint(plain).model
    expected = recalibrate_batch_norm(before, few("train").images)
    assert same_bits(load_checkpoint(again).model, expected)
    assert not same_bits(before, expected)
    assert load_stored(again).steps == (*load_stored(plain).steps, "batch norm recalibrated")


def test_prune_fine_tunes_with_the_zeros_held(start, tmp_path):
    out = tmp_path / "tuned.safetensors"
    run("prune", start, out, "--sparsity", 0.5, "--fine-tune-epochs", 1, "--seed", 3)
    dense = load_checkpoint(start).model
    cut = prune(dense, dict.fromkeys(prunable_layers(dense), 0.5))
    sets = (few("train"), few("validation"))
    recipe = replace(FINE_TUNE, epochs=1, seed=3)
    *_, last = fine_tune(cut.model, *sets, recipe, masks=cut.masks)
    assert same_bits(load_checkpoint(out).model, last.best_model.cpu())
    for name, weight in weights_of(out).items():
        kept = cut.masks[name]
        assert not weight[~kept].any()
        assert not torch.equal(weight[kept], prunable_layers(cut.model)[name].weight[kept])
    assert load_stored(out).steps[-1] == "fine-tuned 1 epoch, best of them 1"


def test_prune_holds_the_zeros_that_a_checkpoint_has_already(start, tmp_path):
    once, twice = tmp_path / "once.safetensors", tmp_path / "twice.safetensors"
    run("prune", start, once, "--layer", "conv2=0.75", "--layer", "conv3=0.5")
    words = ("--layer", "conv1=0.5", "--layer", "conv3=0.25", "--fine-tune-epochs", 1)
    run("prune", once, twice, *words)
    zeros = {name: float((w == 0).double().mean()) for name, w in weights_of(twice).items()}
    assert {name: each for name, each in zeros.items() if each} == {
        "conv1": 0.5, "conv2": 0.75, "conv3": 0.5,
    }  # fmt: skip
    assert load_checkpoint(twice).metadata["sparsity"] == zeros


def test_quantize_keeps_the_zeros_of_a_pruned_checkpoint(tiny_network, tmp_path):
    start, out = tmp_path / "pruned.safetensors", tmp_path / "small.safetensors"
    every = list(prunable_layers(tiny_network))
    cut = prune(tiny_network, dict.fromkeys(every[1:], 0.6))
    save_checkpoint(cut.model, start, {"steps": ["as trained", "pruned"]})  # pyright: ignore[reportArgumentType]
    run("quantize", start, out, "--bits", 2, "--layer", "conv1=8", "--compensate", 32)
    widths = dict.fromkeys(every, 2) | {"conv1": 8}
    expected = quantize_compensated(cut.model, widths, few("train").images[:32], cut.masks)
    found = load_stored(out)
    for name, weight in weights_of(out).items():
        assert torch.equal(weight, expected.layers[name].weight())
        assert torch.equal(weight == 0, prunable_layers(cut.model)[name].weight == 0)
    assert {name: layer.bits for name, layer in found.layers.items()} == widths
    sizes = {name: len(layer.codebook) for name, layer in found.layers.items()}
    assert sizes.pop("conv1") > 16 and set(sizes.values()) == {4}
    assert found.steps == (
        "as trained", "pruned", "k-means quantized to mixed bits",
        "rounding errors made up for on 32 training images",
    )  # fmt: skip


@pytest.mark.parametrize("name", TRAININGS)
def test_what_is_trained_sees_training_images_and_is_chosen_on_validation_images(
    name, start, tmp_path, monkeypatch
):
    train, seen = getattr(compress, name), []

    def watched(*asked, **options):
        seen.append(asked)
        return train(*asked, **options)

    monkeypatch.setattr(compress, name, watched)
    command, *words = TRAININGS[name]
    run(command, start, tmp_path / "trained.safetensors", *words)
    ((*_, train_set, validation_set, _),) = seen
    assert same_images(train_set, few("train"))
    assert same_images(validation_set, few("validation"))


@pytest.mark.parametrize("command", SMALLER)
def test_an_unpacked_models_batch_norm_is_taken_apart_first(command, tiny_network, tmp_path):
    """Folded, nothing of it would be left to recalibrate."""
    names = ("packed", "unpacked", "plain", "again")
    packed, unpacked, plain, again = (tmp_path / f"{name}.safetensors" for name in names)
    trained = copy.deepcopy(tiny_network)
    torch.nn.init.uniform_(trained.conv1.norm.bias)  # as a network's that is trained
    save_packed(quantize(trained, 6), packed)
    done = CliRunner().invoke(app, ["unpack", str(packed), str(unpacked)])
    assert done.exit_code == 0, (done.output, done.exception)
    options, smaller = SMALLER[command]
    run(command, unpacked, plain, *options)
    run(command, unpacked, again, *options, "--recalibrate")
    folded, images = load_checkpoint(unpacked).model, few("train").images
    assert is_folded(folded)
    expected = smaller(unfold_batch_norm(folded, images))
    assert same_bits(load_checkpoint(plain).model, expected)
    recalibrated = recalibrate_batch_norm(expected, images)
    assert same_bits(load_checkpoint(again).model, recalibrated)
    assert not same_bits(recalibrated, expected)
