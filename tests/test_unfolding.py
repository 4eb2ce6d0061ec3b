"""Batch norm out of a packed file, under a batch's own statistics: training and recalibration."""

import copy

import pytest
import torch

import compression
from compression.data import load_cifar10, normalize
from compression.inputs import InputError
from compression.packing import load_packed
from compression.recalibration import recalibrate_batch_norm
from compression.training import TrainConfig, train
from compression.unfolding import is_folded, unfold_batch_norm
from tests.few_images import FewImages


@pytest.fixture(scope="module")
def train_set():
    return load_cifar10("train", "sample").head(512)


@pytest.fixture(scope="module")
def dense():
    return compression.load_checkpoint("resnet9-s/baseline").model


@pytest.fixture(scope="module")
def packed(dense, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "small.safetensors"
    compression.save_packed(compression.quantize(dense, 6), path)
    return load_packed(path)


def logits(model, images):
    with torch.no_grad():
        return torch.cat([model(normalize(part)) for part in images.split(128)])


def test_eval_mode_stays_and_batches_give_nearly_the_same(packed, train_set):
    images = train_set.images
    unfolded = unfold_batch_norm(packed, images)
    expected, scale = logits(packed, images), logits(packed, images).std()
    assert is_folded(packed) and not is_folded(unfolded) and not unfolded.training
    assert (logits(unfolded, images) - expected).abs().max() < 1e-4 * scale
    by_batch = logits(copy.deepcopy(unfolded).train(), images)
    assert (by_batch - expected).std() < 0.2 * scale
    assert (logits(copy.deepcopy(packed).train(), images) - expected).std() > scale


def test_statistics_are_those_of_what_passes(packed, train_set):
    unfolded = unfold_batch_norm(packed, train_set.images)
    seen = []
    first = next(m for m in packed.modules() if isinstance(m, torch.nn.BatchNorm2d))
    with first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double())):
        logits(packed, train_set.images)
    values = torch.cat(seen).transpose(0, 1).flatten(1)
    norm = next(m for m in unfolded.modules() if isinstance(m, torch.nn.BatchNorm2d))
    torch.testing.assert_close(norm.running_mean, values.mean(1).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        norm.running_var, values.var(1, correction=0).float(), rtol=1e-4, atol=1e-6
    )


def test_other_models_are_left_alone(dense, train_set):
    fresh = compression.build_model("resnet9-s")
    assert unfold_batch_norm(dense, train_set.images) is dense
    assert unfold_batch_norm(fresh, train_set.images) is fresh
    assert unfold_batch_norm(torch.nn.Linear(2, 2), train_set.images).in_features == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_packed_model_stored_in_half_precision_is_known(packed, train_set, dtype):
    """Its variance of 1 - eps is 1 there: as it is, a batch's statistics would ruin it."""
    half = copy.deepcopy(packed)
    for tensor in half.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(dtype))
    assert is_folded(half)
    unfolded = unfold_batch_norm(half, train_set.images)
    expected = logits(half, train_set.images)
    assert not is_folded(unfolded)
    assert (logits(unfolded, train_set.images) - expected).abs().max() < 1e-4 * expected.std()


def test_statistics_that_were_reset_are_measured_as_any_other(dense, train_set):
    """Mean 0 and variance 1 with weights that no half precision made: nothing was folded."""
    reset = copy.deepcopy(dense)
    for module in reset.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.weight.data.mul_(torch.pi)
    assert not is_folded(reset) and unfold_batch_norm(reset, train_set.images) is reset


def test_no_images_are_refused(packed, train_set):
    with pytest.raises(InputError, match="images"):
        unfold_batch_norm(packed, train_set.images[:0])


def test_a_packed_model_can_be_recalibrated_and_trained(packed, train_set):
    test = load_cifar10("test", "sample").head(300)
    right = compression.evaluate(packed, test.images, test.labels).accuracy
    again = recalibrate_batch_norm(packed, train_set.images)
    config = TrainConfig(epochs=1, batch_size=128, optimizer="sgd", sgd_lr=1e-4)
    *_, last = train(packed, train_set, test, config)
    assert compression.evaluate(again, test.images, test.labels).accuracy > right - 0.03
    assert last.accuracy > right - 0.03


def test_an_uploaded_packed_file_recovers_from_pruning_as_its_dense_model_does(
    dense, packed, train_set, tmp_path
):
    path = tmp_path / "small.safetensors"
    compression.save_packed(compression.quantize(dense, 6), path)
    explorer = FewImages()
    uploaded = explorer.model(explorer.upload(str(path), "sample"))
    assert not is_folded(uploaded)
    test = load_cifar10("test", "sample").head(500)
    sparsities = dict.fromkeys(["conv3", "conv4", "res2.first", "res2.second"], 0.8)

    def right(model, recalibrated):
        found = compression.prune(model, sparsities).model
        if recalibrated:
            found = recalibrate_batch_norm(found, train_set.images)
        return compression.evaluate(found, test.images, test.labels).accuracy

    assert right(uploaded, True) > right(uploaded, False) + 0.02
    assert right(uploaded, True) == pytest.approx(right(dense, True), abs=0.02)
    # Pruned before its batch norm was taken apart there is nothing to recover by, but no harm.
    assert right(packed, True) == pytest.approx(right(packed, False), abs=0.02)
