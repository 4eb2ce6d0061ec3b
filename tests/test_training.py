"""Training: masks held, the same bits again, the best epoch, and losses against plain loops."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch.nn import functional

from compression import training
from compression.augmentation import Batches
from compression.data import normalize
from compression.hardware import has_bfloat16
from compression.training import (
    FINE_TUNE,
    GridMaskConfig,
    StepResult,
    TrainConfig,
    fine_tune,
    train,
    train_by_step,
)
from tests import training_cases
from tests.training_cases import GRIDMASK, TINY, numbers, same_bits, tiny_net

images = training_cases.images
validation = training_cases.validation
masks = training_cases.masks


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_masks_hold_after_every_step(images, validation, masks, optimizer):
    seen = []

    def look(module, _):
        seen.append(module.second.weight[~masks["second"]].abs().max().item())
        assert not module.first.weight[~masks["first"]].any()
        assert not module.linear.weight[~masks["linear"]].any()

    model = tiny_net()
    model.register_forward_pre_hook(look)
    config = dataclasses.replace(TINY, optimizer=optimizer)
    results = list(train(model, images, validation, config, masks=masks))
    assert seen == [0.0] * (3 * 3 + 3)  # three epochs of three steps, and a validation each
    trained = results[-1].best_model
    for name, kept in masks.items():
        weight = trained.get_parameter(f"{name}.weight")
        before = model.get_parameter(f"{name}.weight")
        assert not weight[~kept].any()
        assert (weight[kept] != before[kept]).float().mean() > 0.9


def test_without_masks_no_weight_becomes_zero(images, validation):
    trained = list(train(tiny_net(), images, validation, TINY))[-1].best_model
    assert all(bool((p != 0).all()) for name, p in trained.named_parameters() if "weight" in name)


def test_the_model_given_stays_as_it_was(images, validation, masks):
    model = tiny_net().eval()
    before = copy.deepcopy(model)
    list(train(model, images, validation, TINY, masks=masks))
    assert same_bits(model, before)
    assert not model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_the_same_seed_gives_the_same_bits(images, validation):
    config = dataclasses.replace(TINY, gridmask=GRIDMASK)
    first = list(train(tiny_net(), images, validation, config))
    torch.rand(5)
    again = list(train(tiny_net(), images, validation, config))
    assert numbers(first) == numbers(again)
    assert same_bits(first[-1].best_model, again[-1].best_model)
    other = list(train(tiny_net(), images, validation, dataclasses.replace(config, seed=1)))
    assert not same_bits(first[-1].best_model, other[-1].best_model)


@pytest.mark.parametrize(
    ("accuracies", "best_epochs"),
    [
        ([0.5, 0.7, 0.7, 0.6], [1, 2, 2, 2]),  # the earlier one stays the best on a tie
        ([0.9, 0.5, 0.4, 0.8], [1, 1, 1, 1]),
        ([0.0, 0.0, 0.0, 0.1], [1, 1, 1, 4]),
    ],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_the_best_epoch_is_kept(
    monkeypatch, tmp_path, images, validation, accuracies, best_epochs, resumed
):
    script, models = iter(accuracies), []

    def scripted(model, *_):
        models.append(copy.deepcopy(model))
        return 1.0, next(script)

    monkeypatch.setattr(training, "_validate", scripted)
    config = dataclasses.replace(TINY, epochs=4)
    state = tmp_path / "run.resume" if resumed else None
    results = []
    if state:
        run: Any = train(tiny_net(), images, validation, config, resume=state)
        results = [next(run), next(run)]
        run.close()
    results += train(tiny_net(), images, validation, config, resume=state)
    assert [result.accuracy for result in results] == accuracies
    assert [result.best_epoch for result in results] == best_epochs
    for result in results:
        assert result.best_accuracy == max(accuracies[: result.epoch])
        assert same_bits(result.best_model, models[result.best_epoch - 1])
        assert not result.best_model.training
        assert [row["accuracy"] for row in result.history] == accuracies[: result.epoch]
    assert not same_bits(models[0], models[1])


def test_a_result_says_where_the_run_stands(images, validation):
    results = list(train(tiny_net(), images, validation, TINY))
    assert [result.epoch for result in results] == [1, 2, 3]
    for result in results:
        assert result.epochs == 3
        assert result.seconds > 0 and result.inference_seconds > 0
        row = result.history[result.epoch - 1]
        assert row["loss"] == result.loss and row["epoch"] == result.epoch
    shares = [min((s + 1) / 1.35, (9 - s) / (9 - 1.35 + 1)) for s in (2, 5, 8)]
    rates = [result.learning_rate for result in results]
    assert rates == pytest.approx([TINY.muon_lr * share for share in shares])


def test_validation_is_a_plain_loop(validation):
    model = tiny_net()
    loss, accuracy = training._validate(model, validation, torch.device("cpu"))
    losses, correct = [], 0
    with torch.no_grad():
        for image, label in zip(validation.images, validation.labels, strict=True):
            logits = model.eval()(normalize(image[None]))
            losses.append(functional.cross_entropy(logits, label[None]).item())
            correct += int(logits.argmax() == label)
    assert loss == pytest.approx(sum(losses) / 40, rel=1e-5)
    assert accuracy == correct / 40


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gridmask": GridMaskConfig((5, 9), probability=0.9)},
        {"cutout": 6},
        {"small_epochs": 1, "small_side": 16},
    ],
    ids=["plain", "gridmask", "cutout", "small"],
)
def test_the_training_loss_is_the_mean_over_the_images_seen(images, validation, options):
    """With learning rates of 0 the weights stay, so that each batch's loss can be had again."""
    rates: dict[str, Any] = {"muon_lr": 0, "sgd_lr": 0, "cutout": 0}
    config = dataclasses.replace(TINY, epochs=1, **rates | options)
    (result,) = train(tiny_net(), images, validation, config)
    mask = {"gridmask": config.gridmask.transform()} if config.gridmask else {}
    seen: dict[str, Any] = {"translate": 2, "flip": True, "seed": 0} | options | mask
    batches = Batches(images, batch_size=16, **seen)
    model = tiny_net().train()
    losses = [
        functional.cross_entropy(model(batch), labels, label_smoothing=0.1).item()
        for batch, labels in batches.epoch(1)
    ]
    assert len(losses) == 3
    assert result.train_loss == pytest.approx(sum(losses) / 3, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_a_few_images_are_learnt_by_heart(images, optimizer):
    few = images.head(16)
    config = TrainConfig(
        epochs=40,
        batch_size=16,
        optimizer=optimizer,
        sgd_lr=0.1,
        translate=0,
        flip=False,
        label_smoothing=0,
        precision="float32",
    )
    results = list(train(tiny_net(), few, few, config))
    assert results[0].train_loss > 2
    assert results[-1].train_loss < 0.5
    assert results[-1].best_accuracy > 0.9


def test_fine_tuning_is_training_by_the_gentle_recipe(images, validation, masks):
    config = dataclasses.replace(FINE_TUNE, epochs=2, batch_size=16, precision="float32")
    tuned = list(fine_tune(tiny_net(), images, validation, config, masks=masks))
    trained = list(train(tiny_net(), images, validation, config, masks=masks))
    assert numbers(tuned) == numbers(trained)
    assert same_bits(tuned[-1].best_model, trained[-1].best_model)
    first = next(fine_tune(tiny_net(), images, validation))
    assert first.epochs == FINE_TUNE.epochs == 5


def test_a_run_can_be_stopped_between_epochs(images, validation):
    model, seen = tiny_net(), []
    model.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    run: Any = train(model, images, validation, dataclasses.replace(TINY, epochs=1000))
    assert next(run).epoch == 1
    run.close()
    assert seen == [True] * 3 + [False]  # the steps of one epoch, and its validation


def test_every_step_is_told_and_the_run_may_be_left_at_any(images, validation):
    config = dataclasses.replace(TINY, epochs=2)
    results = list(train_by_step(tiny_net(), images, validation, config))
    told = [(r.epoch, r.step) if isinstance(r, StepResult) else r.epoch for r in results]
    assert told == [(1, 1), (1, 2), (1, 3), 1, (2, 1), (2, 2), (2, 3), 2]
    losses = [r.train_loss for r in results if isinstance(r, StepResult) and r.epoch == 1]
    assert results[3].train_loss == pytest.approx(sum(losses) / 3)
    assert same_bits(
        results[-1].best_model, list(train(tiny_net(), images, validation, config))[-1].best_model
    )
    model, seen = tiny_net(), []
    model.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    run: Any = train_by_step(model, images, validation, config)
    next(run)
    run.close()
    assert seen == [True]


def test_parts_of_a_batch_have_their_own_norm_statistics_and_one_step(images, validation):
    """By hand: the two halves of the batch go through the model by themselves; gradients add up."""
    config = TrainConfig(
        epochs=1, batch_size=16, norm_batch=8, optimizer="sgd", sgd_lr=0.1, sgd_momentum=0,
        sgd_weight_decay=0, warmup=0, translate=0, flip=False, precision="float32", seed=3,
    )  # fmt: skip
    few = images.head(16)
    (result,) = train(tiny_net(), few, validation, config)
    model = tiny_net().train()
    model.norm.momentum = 1 - 0.9**0.5
    ((batch, labels),) = Batches(few, batch_size=16, seed=3).epoch(1)
    for part in (slice(0, 8), slice(8, 16)):
        loss = functional.cross_entropy(model(batch[part]), labels[part], label_smoothing=0.1)
        (loss / 2).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    got = dict(result.best_model.state_dict())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-6)


def test_a_constraint_is_bound_to_the_copy_and_called_about_every_step(images, validation):
    calls = []

    class Spy:
        def __init__(self, model):
            self.model = model

        def after_backward(self):
            assert all(p.grad is not None for p in self.model.parameters())
            calls.append("backward")

        def after_step(self):
            calls.append("step")

    model, spies = tiny_net(), []

    def bind(copied):
        spies.append(Spy(copied))
        return spies[0]

    config = dataclasses.replace(TINY, epochs=1)
    list(train(model, images, validation, config, constraint=bind))
    assert calls == ["backward", "step"] * 3
    assert spies[0].model is not model


def test_bfloat16_trains_where_the_processor_has_it(images, validation):
    if not has_bfloat16(torch.device("cpu")):
        pytest.skip("this processor has no bfloat16")
    config = dataclasses.replace(TINY, precision="bfloat16")
    (*_, last) = train(tiny_net(), images, validation, config, device="cpu")
    (*_, plain) = train(tiny_net(), images, validation, TINY, device="cpu")
    assert last.train_loss == pytest.approx(plain.train_loss, rel=0.05)
    assert last.train_loss != plain.train_loss
    assert all(p.dtype == torch.float32 for p in last.best_model.parameters())


def test_momentum_may_be_zero(images, validation):
    config = dataclasses.replace(TINY, epochs=1, sgd_momentum=0, muon_momentum=0)
    (result,) = train(tiny_net(), images, validation, config)
    assert result.train_loss > 0
