"""A teacher in training: asked once about batches that come again, with the same answers."""

import dataclasses

import pytest
import torch

from compression.constraints import HeldMasks
from compression.inputs import InputError
from compression.training import train
from compression.training_run import TrainingRun
from tests import training_cases
from tests.training_cases import GRIDMASK, TINY, tiny_net

images = training_cases.images
validation = training_cases.validation


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
