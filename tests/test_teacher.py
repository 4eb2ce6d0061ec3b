"""A teacher: its answers in place of the labels wherever networks learn, and asked once."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from compression.centroids import CentroidConfig, train_centroids
from compression.code_training import CODE_TRAINING, train_codes
from compression.constraints import HeldMasks
from compression.inputs import InputError
from compression.quantization import quantize
from compression.training import FINE_TUNE, TrainConfig, fine_tune, train
from compression.training_run import TrainingRun
from tests import training_cases
from tests.training_cases import GRIDMASK, TINY, numbers, same_bits, tiny_net

images = training_cases.images
validation = training_cases.validation

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 16, "precision": "float32"}


def rounded():
    return quantize(tiny_net().eval(), 2)


WAYS = {
    "train": lambda *sets, **taught: train(tiny_net(), *sets, TINY, **taught),
    "fine_tune": lambda *sets, **taught: fine_tune(
        tiny_net(), *sets, dataclasses.replace(FINE_TUNE, **QUICK), **taught
    ),
    "train_centroids": lambda *sets, **taught: train_centroids(
        rounded(), *sets, CentroidConfig(**QUICK), **taught
    ),
    "train_codes": lambda *sets, **taught: train_codes(
        rounded(), tiny_net(), *sets, dataclasses.replace(CODE_TRAINING, **QUICK), **taught
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_with_a_teacher_the_training_labels_are_not_looked_at(images, validation, way):
    def rows(train_set, teacher):
        return numbers(list(WAYS[way](train_set, validation, teacher=teacher)))

    others = dataclasses.replace(images, labels=(images.labels + 1) % 10)
    teacher = tiny_net(1)
    assert rows(images, teacher) == rows(others, teacher)
    assert rows(images, None) != rows(others, None)
    assert rows(images, teacher) != rows(images, tiny_net(2))


def test_a_network_that_answers_as_its_teacher_has_nothing_to_learn(images, validation):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    still: dict[str, Any] = {"optimizer": "sgd", "sgd_lr": 1e-3, "sgd_weight_decay": 0.0}
    config = TrainConfig(**QUICK, **still)
    (*_, last) = train(model, images, validation, config, teacher=model)
    assert last.train_loss == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(last.best_model.state_dict(), dict(model.state_dict()))
    (*_, other) = train(model, images, validation, config)
    assert other.train_loss > 0.1 and not same_bits(other.best_model, model)


def test_a_teacher_is_asked_once_about_each_draw(images, validation):
    asked, seen = [], []
    teacher, model = tiny_net(1), tiny_net()
    config = dataclasses.replace(TINY, epochs=5, draws=2, cutout=0, optimizer="sgd", norm_batch=8)
    run = TrainingRun(model, images, config, lambda m: HeldMasks(m, {}), torch.device("cpu"))
    run.set_teacher(teacher)
    run._teacher.register_forward_hook(lambda *_: asked.append(1))  # pyright: ignore
    run.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    for epoch in range(1, 6):
        list(run.epoch(epoch))
    assert len(asked) == 2 * 6 and len(seen) == 5 * 6  # two parts of each of three batches
    assert all(torch.equal(*pair) for pair in zip(seen[:12], seen[12:24], strict=True))
    assert all(torch.equal(*pair) for pair in zip(seen[:6], seen[24:], strict=True))
    assert not torch.equal(seen[0], seen[6])
    # What is remembered is what a teacher asked each time would have said.
    told = [r.train_loss for r in train(model, images, validation, config, teacher=teacher)]
    losses = []
    each = TrainingRun(model, images, config, lambda m: HeldMasks(m, {}), torch.device("cpu"))
    each.set_teacher(teacher)
    for epoch in range(1, 6):
        each._answered.clear()
        steps = list(each.epoch(epoch))
        losses.append(sum(step.train_loss for step in steps) / len(steps))
    assert told == pytest.approx(losses, rel=1e-6)


@pytest.mark.parametrize("changes", [{"small_epochs": 1}, {"gridmask": GRIDMASK}])
def test_draws_that_differ_cannot_come_again(changes):
    with pytest.raises(InputError, match="draws must be 0 where epochs differ in size or masks"):
        dataclasses.replace(TINY, draws=2, **changes)
