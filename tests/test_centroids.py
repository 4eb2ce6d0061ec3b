"""Centroid gradients against autograd through codebook[indices], and what training must keep."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from compression.centroids import CentroidConfig, CentroidEpoch, TiedWeights, train_centroids
from compression.data import ImageSet, load_cifar10, normalize
from compression.inputs import InputError
from compression.model import prunable_layers
from compression.pruning import prune
from compression.quantization import QuantizedModel, quantize
from compression.recipes import TrainConfig

QUICK = CentroidConfig(epochs=3, batch_size=40, learning_rate=0.5, precision="float32")


def tiny() -> nn.Sequential:
    """A convolution with batch norm and a linear layer, for 32 x 32 images."""
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(3, 6, 4, stride=4),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def quantized_tiny(bits: int | dict[str, int] = 2, sparsity: float = 0.5) -> QuantizedModel:
    pruned = prune(tiny().eval(), {"0": sparsity})
    return quantize(pruned.model, bits, pruned.masks)


@pytest.fixture(scope="module")
def train_set() -> ImageSet:
    return load_cifar10("train", "sample").head(160)


@pytest.fixture(scope="module")
def validation_set() -> ImageSet:
    return load_cifar10("validation", "sample").head(80)


def state_of(quantized: QuantizedModel) -> dict[str, Tensor]:
    """Every tensor of a quantized model, copied."""
    tensors = dict(quantized.model.state_dict())
    for name, layer in quantized.layers.items():
        tensors |= {f"{name} codebook": layer.codebook, f"{name} indices": layer.indices}
    return {key: value.clone() for key, value in tensors.items()}


def codebook_gradients(quantized: QuantizedModel, images: ImageSet) -> dict[str, Tensor]:
    """The oracle: autograd with the codebooks as leaves and weights = codebook[indices]."""
    leaves = {n: layer.codebook.clone().requires_grad_() for n, layer in quantized.layers.items()}
    names = {"0": "0.weight", "5": "5.weight"}
    weights = {names[n]: leaves[n][layer.indices.long()] for n, layer in quantized.layers.items()}
    model = copy.deepcopy(quantized.model).train()
    logits = functional_call(model, weights, (normalize(images.images),))
    functional.cross_entropy(logits, images.labels).backward()
    return {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


@pytest.mark.parametrize("other", [{"gradient": "sum"}, {"vector_learning_rate": 0.0}])
def test_a_resume_file_of_other_settings_is_refused(
    other: dict[str, Any], tmp_path: Path, train_set: ImageSet, validation_set: ImageSet
) -> None:
    sets, state = (train_set, validation_set), tmp_path / "run.resume"
    run: Any = train_centroids(quantized_tiny(), *sets, QUICK, resume=state)
    next(run)
    next(run)
    run.close()
    with pytest.raises(InputError, match="must be of this model, masks"):
        next(train_centroids(quantized_tiny(), *sets, replace(QUICK, **other), resume=state))


@pytest.mark.parametrize("kind", ["mean", "sum"])
@pytest.mark.parametrize("bits", [2, 4])
def test_gradients_equal_autograd_through_the_codebook(
    kind: str, bits: int, train_set: ImageSet
) -> None:
    quantized = quantized_tiny(bits)
    model = copy.deepcopy(quantized.model).train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    config = replace(QUICK, gradient=kind, learning_rate=0.5, vector_learning_rate=0.05)
    tied = TiedWeights(model, quantized, config)
    logits = model(normalize(train_set.images))
    functional.cross_entropy(logits, train_set.labels).backward()
    bias = prunable_layers(model)["5"].bias
    assert bias is not None and bias.grad is not None
    bias_gradient = bias.grad.clone()
    tied.after_backward()
    for name, expected in codebook_gradients(quantized, train_set).items():
        layer, weight = quantized.layers[name], prunable_layers(model)[name].weight
        if kind == "mean":
            expected = expected / torch.bincount(layer.indices.flatten().long())
            # Single weights are moved at 0.01, centroids of many at the learning rate.
            each = weight.numel() / len(layer.codebook)
            expected = expected * min(1.0, 0.01 * each / 0.5)
        if layer.zero_code is not None:
            assert expected[layer.zero_code] != 0  # it would move if it were let
            expected[layer.zero_code] = 0.0
        assert weight.grad is not None
        torch.testing.assert_close(
            weight.grad, expected[layer.indices.long()], rtol=1e-4, atol=1e-7, check_stride=False
        )
    torch.testing.assert_close(bias.grad, bias_gradient * 0.1)


def test_weights_are_tied_again_after_a_step() -> None:
    quantized = quantized_tiny()
    model = copy.deepcopy(quantized.model)
    tied = TiedWeights(model, quantized, QUICK)
    weight, layer = prunable_layers(model)["0"].weight, quantized.layers["0"]
    with torch.no_grad():
        weight.mul_(torch.linspace(1, 1.0001, weight.numel()).view(weight.shape)).add_(1e-3)
    tied.after_step()
    for code in range(len(layer.codebook)):
        values = weight[layer.indices == code].unique()
        assert len(values) == 1
        moved = 0.0 if code == layer.zero_code else float(layer.codebook[code]) + 1e-3
        assert values.item() == pytest.approx(moved, rel=1e-3, abs=0)


def test_training_keeps_clusters_zeros_and_its_input(
    train_set: ImageSet, validation_set: ImageSet
) -> None:
    quantized = quantized_tiny()
    before = state_of(quantized)
    results = list(train_centroids(quantized, train_set, validation_set, QUICK, device="cpu"))
    after = state_of(quantized)
    assert all(torch.equal(after[key], before[key]) for key in before)
    best = results[-1].best
    mask = quantized.masks["0"]
    assert (prunable_layers(best.model)["0"].weight[~mask] == 0).all()
    for name, layer in best.layers.items():
        first = quantized.layers[name]
        assert torch.equal(layer.indices, first.indices)
        assert layer.zero_code == first.zero_code
        assert torch.equal(layer.weight(), prunable_layers(best.model)[name].weight)
        moving = torch.arange(len(layer.codebook)) != (layer.zero_code or -1)
        assert (layer.codebook != first.codebook)[moving].all()
    assert results[-1].train_loss < results[0].train_loss
    state = best.model.state_dict()
    assert not torch.equal(state["1.weight"], before["1.weight"])
    assert not torch.equal(state["5.bias"], before["5.bias"])


def test_the_best_epoch_is_kept(train_set: ImageSet, validation_set: ImageSet) -> None:
    """At this rate accuracy falls after some epoch; `best` stays that epoch's model."""
    config = replace(QUICK, epochs=5, learning_rate=3.0)
    quantized = quantized_tiny()
    results = list(train_centroids(quantized, train_set, validation_set, config))
    accuracies = [accuracy_of(quantized, validation_set), *(r.accuracy for r in results)]
    assert len(set(accuracies)) > 2
    for count, result in enumerate(results, start=2):
        best = max(accuracies[:count])
        assert (result.best_accuracy, result.best_epoch) == (best, accuracies.index(best))
        assert accuracy_of(result.best, validation_set) == best


def test_a_start_that_no_epoch_beats_is_kept(train_set: ImageSet) -> None:
    """Its own answers are the labels, so it starts at 100 %; the rate is absurd."""
    quantized = quantized_tiny()
    with torch.no_grad():
        answers = quantized.model(normalize(train_set.images)).argmax(1)
    own = replace(train_set, labels=answers)
    config = replace(QUICK, epochs=2, learning_rate=30.0)
    for result in train_centroids(quantized, train_set, own, config):
        assert result.accuracy < 1
        assert (result.best_accuracy, result.best_epoch) == (1, 0)
        assert result.best is quantized and result.best_model is quantized.model


def accuracy_of(quantized: QuantizedModel, images: ImageSet) -> float:
    with torch.no_grad():
        logits = quantized.model.cpu()(normalize(images.images))
    return int((logits.argmax(1) == images.labels).sum()) / len(images)


def test_vectors_and_other_weights_can_be_held(
    train_set: ImageSet, validation_set: ImageSet
) -> None:
    quantized = quantized_tiny({"5": 3})
    config = replace(QUICK, epochs=1, vector_learning_rate=0)
    (result,) = train_centroids(quantized, train_set, validation_set, config)
    before, after = quantized.model.state_dict(), result.best.model.cpu().state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    statistics = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert changed == {"5.weight"} | statistics
    assert set(result.best.layers) == {"5"}


def test_the_same_seed_gives_the_same_bits(train_set: ImageSet, validation_set: ImageSet) -> None:
    def run(seed: int) -> CentroidEpoch:
        config = replace(QUICK, epochs=1, seed=seed)
        (result,) = train_centroids(
            quantized_tiny(), train_set, validation_set, config, device="cpu"
        )
        return result

    first, second, other = run(1), run(1), run(2)
    for name, layer in first.best.layers.items():
        assert torch.equal(layer.codebook, second.best.layers[name].codebook)
        assert not torch.equal(layer.codebook, other.best.layers[name].codebook)


def test_a_killed_run_comes_to_the_same_bits(
    train_set: ImageSet, validation_set: ImageSet, tmp_path: Path
) -> None:
    def epochs() -> Iterator[CentroidEpoch]:
        sets = (quantized_tiny(), train_set, validation_set)
        return train_centroids(*sets, QUICK, resume=tmp_path / "x.resume", device="cpu")

    killed = epochs()
    next(killed)
    killed.close()  # after its first epoch
    *_, again = rest = list(epochs())
    assert [result.epoch for result in rest] == [2, 3]
    *_, whole = train_centroids(quantized_tiny(), train_set, validation_set, QUICK, device="cpu")
    assert (again.best_epoch, again.best_accuracy) == (whole.best_epoch, whole.best_accuracy)
    for name, layer in whole.best.layers.items():
        assert torch.equal(layer.codebook, again.best.layers[name].codebook)
    assert not (tmp_path / "x.resume").exists()


def test_the_recipe_has_every_setting_and_no_decay() -> None:
    config = CentroidConfig(
        epochs=7, batch_size=64, learning_rate=0.2, momentum=0.8, warmup=0.2, label_smoothing=0.05,
        translate=2, flip=False, precision="float32", seed=9,
    )  # fmt: skip
    assert config.recipe() == TrainConfig(
        epochs=7, batch_size=64, optimizer="sgd", sgd_lr=0.2, sgd_momentum=0.8,
        sgd_weight_decay=0.0, warmup=0.2, label_smoothing=0.05, translate=2, flip=False,
        precision="float32", seed=9,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be a number from 1e-09 to 100, got 0.0"),
        ({"vector_learning_rate": -1}, "vector_learning_rate must be a number from 0 to 100"),
        ({"gradient": "median"}, "gradient must be one of mean, sum, got 'median'"),
        ({"momentum": 2}, "momentum must be a number from 0 to 1, got 2"),
        ({"epochs": 0}, "epochs must be a whole number from 1 to 1000, got 0"),
        ({"batch_size": 1}, "batch_size must be a whole number from 2 to 50000 images, got 1"),
    ],
)
def test_bad_configs_are_refused(change: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        CentroidConfig(**change)  # pyright: ignore[reportArgumentType]


def test_bad_input_is_refused(train_set: ImageSet, validation_set: ImageSet) -> None:
    with pytest.raises(InputError, match="quantized must hold at least one quantized layer"):
        next(train_centroids(quantized_tiny({}), train_set, validation_set))
    with pytest.raises(InputError, match="train_set must hold at least one image, got none"):
        next(train_centroids(quantized_tiny(), train_set.head(0), validation_set))
