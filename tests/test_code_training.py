"""Weights that may change their centroid: the nearest at each step, and what training must keep."""

import copy
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from compression.__main__ import app
from compression.code_training import CODE_TRAINING, MovingCodes, train_codes
from compression.data import load_cifar10, normalize
from compression.hardware import has_bfloat16
from compression.inputs import InputError
from compression.model import prunable_layers, save_checkpoint
from compression.pruning import prune
from compression.quantization import QuantizedModel, quantize
from compression.stored import load_stored
from tests.test_centroids import state_of, tiny

CONFIG = replace(CODE_TRAINING, epochs=4, batch_size=32, sgd_lr=0.1, precision="float32")


@pytest.fixture(scope="module")
def sets():
    train = load_cifar10("train", "sample").head(160)
    return train, train  # what is learned is there


@pytest.fixture
def dense():
    return prune(tiny().eval(), {"0": 0.5}).model


@pytest.fixture
def quantized(dense):
    return quantize(dense, 2, {"0": dense[0].weight != 0})


def test_training_begins_behind_the_dense_weights_that_are_nearest_to_their_centroid(
    dense, quantized
):
    model = copy.deepcopy(quantized.model)
    layer = quantized.layers["5"]
    elsewhere = layer.indices.clone()
    elsewhere[0, :3] = (elsewhere[0, :3] + 1) % 4  # three codes that are not the nearest
    quantized.layers["5"] = replace(layer, indices=elsewhere)
    MovingCodes(model, quantized, dense).after_backward()
    assert torch.equal(model[0].weight, dense[0].weight)
    assert torch.equal(model[5].weight[1:], dense[5].weight[1:])
    assert torch.equal(model[5].weight[0, 3:], dense[5].weight[0, 3:])
    assert torch.equal(model[5].weight[0, :3], layer.codebook[elsewhere[0, :3].long()])


def test_a_step_takes_the_nearest_centroid_and_then_the_mean(dense, quantized):
    model = copy.deepcopy(quantized.model)
    codes = MovingCodes(model, quantized, dense)
    codes.after_backward()
    moved = {}
    with torch.no_grad():
        for name, module in prunable_layers(model).items():
            module.weight.add_(torch.randn(module.weight.shape), alpha=0.05)
            moved[name] = module.weight.clone()
    codes.after_step()
    for name, layer in quantized.layers.items():
        weight, values = prunable_layers(model)[name].weight, moved[name].flatten().double()
        levels = layer.codebook.double()
        apart = (values[:, None] - levels).abs()
        kept = quantized.masks[name].flatten() if name in quantized.masks else values == values
        if layer.zero_code is not None:
            apart[:, layer.zero_code] = torch.inf
        nearest = apart.argmin(1)
        for code in nearest[kept].unique():
            members = kept & (nearest == code)
            mean = values[members].mean().float()
            assert torch.allclose(weight.flatten()[members], mean, rtol=1e-6)
            assert len(weight.flatten()[members].unique()) == 1
        assert not weight.flatten()[~kept].any()


def test_the_zeros_code_stays_the_zeros_where_a_mean_beside_it_changes_its_sign(dense, quantized):
    model = copy.deepcopy(quantized.model)
    codes = MovingCodes(model, quantized, dense)
    kept, layer = quantized.masks["0"], codes._layers["0"]
    for value in (-0.001, 0.03):  # the centroid below zero comes near, and then lies above it
        codes.after_backward()
        with torch.no_grad():
            model[0].weight.copy_(torch.where(kept, torch.tensor(value), 0))
        codes.after_step()
        assert torch.equal(model[0].weight, torch.where(kept, torch.tensor(value), 0))
        assert layer.levels[layer._zero_code] == 0
    assert (layer.levels < 0).sum() == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_layers_keep_their_bits_and_their_zeros(dense, quantized, sets, precision):
    if precision == "bfloat16" and not has_bfloat16(torch.device("cpu")):
        pytest.skip("this processor has no bfloat16")
    before = state_of(quantized)
    *_, last = train_codes(quantized, dense, *sets, replace(CONFIG, precision=precision))
    for key, value in state_of(quantized).items():
        assert torch.equal(value, before[key])
    assert last.best_epoch > 0
    for name, layer in last.best.layers.items():
        assert torch.equal(layer.weight(), prunable_layers(last.best.model)[name].weight)
        assert len(layer.codebook) == 4 and layer.bits == 2
        assert not torch.equal(layer.indices, quantized.layers[name].indices)
    first = last.best.layers["0"]
    assert first.zero_code == int((first.codebook == 0).nonzero())
    assert torch.equal(first.indices != first.zero_code, quantized.masks["0"])
    assert last.best.masks == quantized.masks


def test_an_answer_that_is_right_already_is_kept(dense, quantized, sets):
    train, validation = sets
    with torch.inference_mode():
        answers = quantized.model(normalize(validation.images)).argmax(1)
    right = replace(validation, labels=answers.clone())
    *_, last = train_codes(quantized, dense, train, right, replace(CONFIG, epochs=1))
    assert last.best is quantized and last.best_epoch == 0 and last.best_accuracy == 1


def test_a_killed_run_goes_on_to_the_same_bits(dense, quantized, sets, tmp_path):
    *_, whole = train_codes(quantized, dense, *sets, CONFIG, teacher=dense, resume=tmp_path / "a")
    part = train_codes(quantized, dense, *sets, CONFIG, teacher=dense, resume=tmp_path / "b")
    next(part)
    part.close()
    *_, rest = train_codes(quantized, dense, *sets, CONFIG, teacher=dense, resume=tmp_path / "b")
    assert rest.history[-1]["train_loss"] == whole.history[-1]["train_loss"]
    for key, value in state_of(rest.best).items():
        assert torch.equal(value, state_of(whole.best)[key])


def test_other_networks_are_refused(dense, quantized, sets):
    with pytest.raises(InputError, match=r"dense must hold 0 of shape \(6, 3, 4, 4\), got no such"):
        next(train_codes(quantized, torch.nn.Linear(2, 2), *sets, CONFIG))
    with pytest.raises(InputError, match="quantized must hold at least one quantized layer"):
        next(train_codes(QuantizedModel(dense, {}, {}), dense, *sets, CONFIG))


@pytest.mark.parametrize(
    ("option", "words"), [([], "centroids "), (["--train-codes"], "codes and ")]
)
def test_the_command_trains_what_it_is_asked_to(tiny_network, tmp_path, option, words):
    start, out = tmp_path / "start.safetensors", tmp_path / "small.safetensors"
    save_checkpoint(tiny_network, start, {})
    asked = ["quantize", str(start), str(out), "--bits", "2", "--train-epochs", "1"]
    asked += ["--source", "sample", *option]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    found = load_stored(out)
    assert found.steps[-1].startswith(words) and "trained 1 epoch, kept: " in found.steps[-1]
    nearest = quantize(tiny_network, 2)
    changed = {
        name: not torch.equal(layer.indices, nearest.layers[name].indices)
        for name, layer in found.layers.items()
    }
    assert any(changed.values()) == bool(option)


def test_the_command_says_that_codes_that_move_keep_no_size(tiny_network, tmp_path):
    start = tmp_path / "start.safetensors"
    save_checkpoint(tiny_network, start, {})
    asked = ["quantize", str(start), str(tmp_path / "small.safetensors")]
    done = CliRunner().invoke(app, [*asked, "--max-kib", "30", "--train-codes"])
    assert str(done.exception).startswith("--train-codes must go without --max-kib")
    done = CliRunner().invoke(app, [*asked, "--train-codes"])
    assert str(done.exception) == "--train-codes must have --train-epochs above 0, got none."
