"""Training: masks held, resumes to the same bits, the best epoch, schedule and Muon by oracle."""

import copy
import dataclasses
import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from compression import training
from compression.augmentation import Batches
from compression.data import load_cifar10, normalize
from compression.hardware import has_bfloat16
from compression.inputs import InputError
from compression.optimizer import (
    Schedule,
    build_optimizers,
    orthogonalized,
    restore_optimizers,
    save_optimizers,
)
from compression.training import (
    FINE_TUNE,
    GridMaskConfig,
    StepResult,
    TrainConfig,
    fine_tune,
    train,
    train_by_step,
)

TINY = TrainConfig(epochs=3, batch_size=16, precision="float32", translate=2, cutout=6)
GRIDMASK = GridMaskConfig((5, 9), ramp_epochs=2)


class TinyNet(nn.Module):
    """Two small convolutions with batch norm and a linear layer: milliseconds an epoch."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 12, 3, stride=2)
        self.linear = nn.Linear(12, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.linear(torch.relu(self.second(x)).amax((2, 3)))


def tiny_net(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyNet()


@pytest.fixture(scope="module")
def images():
    """50 images: three batches of 16, and 2 left over."""
    return load_cifar10("train", "sample").head(50)


@pytest.fixture(scope="module")
def validation():
    return load_cifar10("validation", "sample").head(40)


@pytest.fixture
def masks():
    generator = torch.Generator().manual_seed(2)
    shapes = {"first": (8, 3, 3, 3), "second": (12, 8, 3, 3), "linear": (10, 12)}
    return {name: torch.rand(s, generator=generator) < 0.4 for name, s in shapes.items()}


def same_bits(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def numbers(results):
    """The rows without what a clock measured."""
    rows = [dict(row) for row in results[-1].history]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


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


# Resuming.


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bits(
    tmp_path, monkeypatch, images, validation, masks, optimizer, killed_after
):
    last = {}

    def remember(model, *rest):
        last["model"] = copy.deepcopy(model)
        return validate(model, *rest)

    validate = training._validate
    monkeypatch.setattr(training, "_validate", remember)
    config = dataclasses.replace(TINY, optimizer=optimizer, gridmask=GRIDMASK)
    whole = list(train(tiny_net(), images, validation, config, masks=masks))
    whole_last = last["model"]
    state = tmp_path / "run.resume"
    run: Any = train(tiny_net(), images, validation, config, masks=masks, resume=state)
    for result in run:
        if result.epoch == killed_after:
            break
    run.close()
    assert [file.name for file in tmp_path.iterdir()] == ["run.resume"]
    rest = list(train(tiny_net(), images, validation, config, masks=masks, resume=state))
    assert [result.epoch for result in rest] == list(range(killed_after + 1, 4))
    assert numbers(rest) == numbers(whole)
    assert (rest[-1].best_epoch, rest[-1].best_accuracy) == (
        whole[-1].best_epoch,
        whole[-1].best_accuracy,
    )
    assert same_bits(rest[-1].best_model, whole[-1].best_model)
    assert same_bits(last["model"], whole_last)
    assert list(tmp_path.iterdir()) == []


def interrupted(path, images, validation, config=TINY, after=1, **options):
    """Leave the state of a run at `path` that was stopped after an epoch."""
    for result in train(tiny_net(), images, validation, config, resume=path, **options):
        if result.epoch == after:
            break


def test_killed_after_its_last_epoch_it_gives_that_epoch_again(tmp_path, images, validation):
    state = tmp_path / "run.resume"
    interrupted(state, images, validation, after=3)
    assert state.exists()
    (again,) = train(tiny_net(), images, validation, TINY, resume=state)
    whole = list(train(tiny_net(), images, validation, TINY))
    assert again.epoch == again.epochs == 3
    assert numbers([again]) == numbers(whole)
    assert same_bits(again.best_model, whole[-1].best_model)
    assert not state.exists()


def test_a_kill_while_writing_leaves_the_epoch_before(tmp_path, images, validation):
    state = tmp_path / "run.resume"
    interrupted(state, images, validation)
    (tmp_path / "run.resume.part").write_bytes(state.read_bytes()[:100])
    rest = list(train(tiny_net(), images, validation, TINY, resume=state))
    assert [result.epoch for result in rest] == [2, 3]


@pytest.mark.parametrize("content", [b"", b"{}", bytes(100)])
def test_a_damaged_resume_file_is_refused(tmp_path, images, validation, content):
    state = tmp_path / "run.resume"
    state.write_bytes(content)
    with pytest.raises(InputError, match=r"run.resume must be whole, got .*: remove it to start"):
        list(train(tiny_net(), images, validation, TINY, resume=state))
    assert state.read_bytes() == content


def test_another_safetensors_file_is_no_resume_file(tmp_path, images, validation):
    state = tmp_path / "run.resume"
    save_file(tiny_net().state_dict(), state)
    expected = "must be the state of a run, got another safetensors file: remove it"
    with pytest.raises(InputError, match=expected):
        list(train(tiny_net(), images, validation, TINY, resume=state))


@pytest.mark.parametrize("change", [{"epochs": 4}, {"seed": 1}, {"gridmask": GRIDMASK}])
def test_a_resume_file_of_another_recipe_is_refused(tmp_path, images, validation, change):
    state = tmp_path / "run.resume"
    interrupted(state, images, validation)
    config = dataclasses.replace(TINY, **change)
    with pytest.raises(InputError, match="must be of this recipe, got another one: remove it"):
        list(train(tiny_net(), images, validation, config, resume=state))


@pytest.mark.parametrize("what", ["model", "masks", "train", "validation"])
def test_a_resume_file_of_another_start_is_refused(tmp_path, images, validation, masks, what):
    state = tmp_path / "run.resume"
    interrupted(state, images, validation)
    model = tiny_net(seed=1 if what == "model" else 0)
    sets = (images.head(49 if what == "train" else 50), validation.head(39 if "v" in what else 40))
    held = masks if what == "masks" else None
    expected = "must be of this model, masks and images, got another one: remove it to start anew"
    with pytest.raises(InputError, match=expected):
        list(train(model, *sets, TINY, masks=held, resume=state))


def test_the_resume_file_holds_weights_momenta_and_progress(tmp_path, images, validation):
    state = tmp_path / "run.resume"
    interrupted(state, images, validation)
    tensors = load_file(state)
    owners = {name.split(".")[0] for name in tensors}
    assert owners == {"model", "best", "optimizer0", "optimizer1"}
    length = int.from_bytes(state.read_bytes()[:8], "little")
    header = json.loads(state.read_bytes()[8 : 8 + length])["__metadata__"]
    assert json.loads(header["progress"])["epoch"] == 1
    assert json.loads(header["recipe"])["muon_lr"] == TINY.muon_lr


# The best epoch.


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


def test_the_training_loss_is_the_mean_over_the_images_seen(images, validation):
    """With learning rates of 0 the weights stay, so that each batch's loss can be had again."""
    config = dataclasses.replace(TINY, epochs=1, muon_lr=0, sgd_lr=0, cutout=0)
    (result,) = train(tiny_net(), images, validation, config)
    batches = Batches(images, batch_size=16, translate=2, flip=True, seed=0)
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
    run: Any = train(tiny_net(), images, validation, dataclasses.replace(TINY, epochs=1000))
    assert next(run).epoch == 1
    run.close()
    assert list(run) == []


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
    run: Any = train_by_step(tiny_net(), images, validation, config)
    next(run)
    run.close()
    assert list(run) == []


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


# Optimizers and schedule.


@pytest.mark.parametrize(
    ("steps", "warmup", "shares"),
    [
        (10, 0.3, [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (4, 0.0, [1, 3 / 4, 2 / 4, 1 / 4]),
        (4, 1.0, [1 / 4, 2 / 4, 3 / 4, 1]),
        (1, 0.15, [1]),
    ],
)
def test_the_schedule_by_hand(steps, warmup, shares):
    weight = nn.Parameter(torch.zeros(2))
    groups = [{"params": [weight], "lr": 0.5}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 2}]
    optimizer = torch.optim.SGD(groups)
    schedule = Schedule([optimizer], steps, warmup)
    for step, share in enumerate(shares):
        schedule.set_step(step)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.5 * share, 2 * share])


def channels_last(model):
    return model.to(memory_format=torch.channels_last)


def test_newton_schulz_keeps_the_singular_vectors_and_evens_out_the_values():
    generator = torch.Generator().manual_seed(1)
    for shape in ((12, 72), (72, 12), (16, 16)):
        matrix = torch.randn(shape, generator=generator)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        inside = u.T @ orthogonalized(matrix) @ v.T  # nearly diagonal, as U S V^T would be
        assert inside.diagonal().sub(0.95).abs().max() < 0.4
        assert (inside - inside.diagonal().diag()).abs().max() < 0.05
    assert torch.equal(orthogonalized(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_a_muon_step_is_torchs_on_the_matrix():
    """torch.optim.Muon orthogonalizes in bfloat16, whose rounding is the tolerance."""
    model = channels_last(tiny_net())
    muon, _ = build_optimizers(model, TINY)
    matrix = nn.Parameter(model.second.weight.detach().permute(0, 2, 3, 1).reshape(12, -1).clone())
    oracle = torch.optim.Muon([matrix], lr=0.06, momentum=0.9, weight_decay=0.025)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        gradient = torch.randn(12, 8, 3, 3, generator=generator)
        model.first.weight.grad = torch.zeros_like(model.first.weight)
        model.second.weight.grad = gradient.clone()
        matrix.grad = gradient.permute(0, 2, 3, 1).reshape(12, -1).clone()
        muon.step()
        oracle.step()
        got = model.second.weight.detach().permute(0, 2, 3, 1).reshape(12, -1)
        torch.testing.assert_close(got, matrix.detach(), atol=0.06 * 0.05, rtol=0)


def test_a_weight_without_gradient_is_not_moved_by_an_old_one():
    model = channels_last(tiny_net())
    muon, _ = build_optimizers(model, TINY)
    for convolution in (model.first, model.second):
        convolution.weight.grad = torch.ones_like(convolution.weight)
    muon.step()
    before = model.first.weight.detach().clone()
    model.first.weight.grad = None
    muon.step()
    assert torch.equal(model.first.weight, before)


@pytest.mark.parametrize(("optimizer", "kinds"), [("muon", ["ConvMuon", "SGD"]), ("sgd", ["SGD"])])
def test_every_parameter_has_one_optimizer_and_vectors_no_decay(optimizer, kinds):
    model = channels_last(tiny_net())
    config = dataclasses.replace(TINY, optimizer=optimizer, sgd_weight_decay=0.01)
    optimizers = build_optimizers(model, config)
    assert [type(owner).__name__ for owner in optimizers] == kinds
    groups = [group for owner in optimizers for group in owner.param_groups]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for group in optimizers[-1].param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.01 if parameter.dim() > 1 else 0)
    if optimizer == "sgd":
        held = {id(p) for group in groups for p in group["params"]}
        assert held == {id(p) for p in model.parameters()}


def test_an_sgd_step_by_hand():
    """Nesterov: v = g, then the step is lr * (g + momentum * v), with decay in g for matrices."""
    model = channels_last(tiny_net())
    config = TrainConfig(optimizer="sgd", sgd_lr=0.5, sgd_momentum=0.8, sgd_weight_decay=0.1)
    (sgd,) = build_optimizers(model, config)
    weight, bias = model.linear.weight.detach().clone(), model.linear.bias.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    sgd.step()
    torch.testing.assert_close(model.linear.weight, weight - 0.5 * 1.8 * (1 + 0.1 * weight))
    torch.testing.assert_close(model.linear.bias, bias - 0.5 * 1.8)


def test_momenta_come_back_in_the_memory_of_their_weights():
    """So that a resumed step runs through the same vectorized loops, and rounds alike."""
    config = dataclasses.replace(TINY, optimizer="sgd")
    first, again = channels_last(tiny_net()), channels_last(tiny_net())
    (sgd,), (resumed,) = build_optimizers(first, config), build_optimizers(again, config)
    for parameter in first.parameters():
        parameter.grad = torch.rand_like(parameter)
    sgd.step()
    tensors = save_optimizers([sgd])
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    restore_optimizers([resumed], tensors)
    for mine, theirs in zip(first.parameters(), again.parameters(), strict=True):
        kept, back = sgd.state[mine]["momentum_buffer"], resumed.state[theirs]["momentum_buffer"]
        assert torch.equal(kept, back)
        assert back.stride() == theirs.stride()


def test_momentum_may_be_zero(images, validation):
    config = dataclasses.replace(TINY, epochs=1, sgd_momentum=0, muon_momentum=0)
    (result,) = train(tiny_net(), images, validation, config)
    assert result.train_loss > 0


# What is refused.


@pytest.mark.parametrize(
    ("name", "bad", "text"),
    [
        ("epochs", 0, "epochs must be a whole number from 1 to 1000, got 0."),
        ("epochs", None, "epochs must be a whole number from 1 to 1000, got nothing."),
        ("batch_size", 1, "batch_size must be a whole number from 2 to 50000 images, got 1."),
        ("optimizer", "adam", "optimizer must be one of muon, sgd, got 'adam'."),
        ("muon_lr", -1, "muon_lr must be a number from 0 to 100, got -1."),
        ("sgd_lr", float("nan"), "sgd_lr must be a number from 0 to 100, got NaN (not a number)."),
        ("muon_momentum", 1.1, "muon_momentum must be a number from 0 to 1, got 1.1."),
        ("sgd_momentum", "0.9", "sgd_momentum must be a number from 0 to 1, got '0.9'."),
        ("muon_weight_decay", 11, "muon_weight_decay must be a number from 0 to 10, got 11."),
        ("sgd_weight_decay", -1, "sgd_weight_decay must be a number from 0 to 10, got -1."),
        ("warmup", 2, "warmup must be a number from 0 to 1, got 2."),
        ("label_smoothing", -0.1, "label_smoothing must be a number from 0 to 1, got -0.1."),
        ("translate", 17, "translate must be a whole number from 0 to 16 pixels, got 17."),
        ("cutout", 33, "cutout must be a whole number from 0 to 32 pixels, got 33."),
        ("precision", "half", "precision must be one of auto, float32, bfloat16, got 'half'."),
        ("seed", -1, "seed must be a whole number from 0 to 2147483647, got -1."),
    ],
)
def test_a_recipe_out_of_range_is_refused(name, bad, text):
    with pytest.raises(InputError) as caught:
        TrainConfig(**{name: bad})
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"d_range": (18, 12)}, "d_range must go from low to high"),
        ({"ratio": 1.5}, "ratio must be a number from 0 to 1, got 1.5"),
        ({"probability": -1}, "probability must be a number from 0 to 1, got -1"),
    ],
)
def test_gridmask_in_a_recipe_is_checked_at_once(change, text):
    with pytest.raises(InputError, match=f"^{text}"):
        GridMaskConfig(**change)


@pytest.mark.parametrize("name", ["train_set", "validation_set"])
def test_an_empty_set_is_refused(images, validation, name):
    sets = {"train_set": images, "validation_set": validation}
    sets[name] = sets[name].head(0)
    with pytest.raises(InputError, match=f"^{name} must hold at least one image, got none"):
        next(train(tiny_net(), **sets, config=TINY))


def test_masks_of_unknown_layers_and_other_shapes_are_refused(images, validation, masks):
    with pytest.raises(
        InputError, match="^layer must be one of first, second, linear, got 'conv1'"
    ):
        next(train(tiny_net(), images, validation, TINY, masks={"conv1": masks["first"]}))
    with pytest.raises(InputError, match="^mask of first must be a bool tensor of shape "):
        next(train(tiny_net(), images, validation, TINY, masks={"first": masks["second"]}))
