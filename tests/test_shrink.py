"""Averaged cycles, distillation, and the whole way down to a packed file, on few images."""

import copy
import dataclasses
import json

import pytest
import torch
from torch.nn import functional
from typer.testing import CliRunner

from compression.__main__ import app
from compression.data import load_cifar10, normalize
from compression.entropy_quantization import fit_entropy
from compression.hardware import machine_record
from compression.inputs import InputError
from compression.model import build_model, load_checkpoint, save_checkpoint
from compression.packing import (
    description_bytes,
    inspect_packed,
    load_packed_parts,
    pack,
    save_packed,
)
from compression.recipes import TrainConfig
from compression.runs import average_checkpoints
from compression.shrink import ShrinkConfig, machines_of, shrink
from compression.training import train_by_step
from compression.training_run import StepResult

FEW = {"compensation_images": 32, "recalibration_images": 64}
SMALL = FEW | {"first_ratio": 1.2}


@pytest.fixture(scope="module")
def sets():
    return {split: load_cifar10(split, "sample").head(64) for split in ("train", "validation")} | {
        "test": load_cifar10("test", "sample").head(64)
    }


@pytest.fixture(scope="module")
def baseline(tiny_network):
    return tiny_network


def test_an_average_is_the_mean_of_the_weights_with_fresh_batch_norm(sets, tmp_path):
    models = [build_model("resnet9-s", seed=k) for k in (1, 2, 3)]
    names = [str(tmp_path / f"{k}.safetensors") for k in range(3)]
    for name, model in zip(names, models, strict=True):
        save_checkpoint(model, name, {"command": f"train {name[-13]}", "curves": [1]})
    record = average_checkpoints(tmp_path / "mean.safetensors", names, sets, images=64)
    found = load_checkpoint(tmp_path / "mean.safetensors")
    weight = sum(model.conv3.conv.weight.double() for model in models) / 3
    assert torch.equal(found.model.conv3.conv.weight, weight.float())
    first = functional.conv2d(
        normalize(sets["train"].images), found.model.conv1.conv.weight, padding=1
    )
    assert torch.allclose(found.model.conv1.norm.running_mean, first.mean((0, 2, 3)), atol=1e-4)
    assert found.metadata["averaged"] == [f"train {k}" for k in range(3)]
    assert found.metadata["curves"] == [1]
    assert record["test_accuracy"] == found.metadata["test_accuracy"]


def test_only_two_or_more_of_one_preset_can_be_averaged(sets, tmp_path):
    for preset in ("resnet9-s", "resnet9"):
        save_checkpoint(build_model(preset), tmp_path / f"{preset}.safetensors", {})
    small, large = (str(tmp_path / f"{p}.safetensors") for p in ("resnet9-s", "resnet9"))
    with pytest.raises(InputError, match="At least two checkpoints of one preset .* got 1 of"):
        average_checkpoints(tmp_path / "m.safetensors", [small], sets)
    with pytest.raises(InputError, match="got 2 of resnet9, resnet9-s"):
        average_checkpoints(tmp_path / "m.safetensors", [small, large], sets)


def test_the_loss_of_distillation_is_hintons(sets, baseline):
    config = TrainConfig(
        epochs=1, batch_size=64, norm_batch=64, translate=0, flip=False, precision="float32",
        optimizer="sgd", sgd_lr=0.0, temperature=3.0,
    )  # fmt: skip
    teacher = build_model(baseline.preset, seed=9).eval()
    step = next(
        step
        for step in train_by_step(
            baseline, sets["train"], sets["validation"], config, teacher=teacher
        )
        if isinstance(step, StepResult)
    )
    pixels = normalize(sets["train"].images)
    with torch.no_grad():
        student = (copy.deepcopy(baseline).train()(pixels) / 3).log_softmax(1)
        target = (teacher(pixels) / 3).softmax(1)
    by_hand = 9 * (target * (target.log() - student)).sum(1).mean().item()
    assert step.train_loss == pytest.approx(by_hand, rel=1e-3)


def test_shrinking_keeps_the_budget_and_says_its_steps(baseline, sets, tmp_path):
    config = ShrinkConfig(30_000, epochs=2, centroid_epochs=1, **SMALL)
    said = []
    small = shrink(baseline, sets, config, folder=tmp_path / "kept", notify=said.append)
    assert [text.split(" of")[0] for text in said] == [
        "rounded, epoch 1", "rounded, epoch 2", "centroids, epoch 1",
    ]  # fmt: skip
    assert small.steps[0] == "2 epochs of distillation through the rounding"
    zeros = sum(int((layer.weight() == 0).sum()) for layer in small.layers.values())
    total = sum(layer.indices.numel() for layer in small.layers.values())
    assert small.steps[1] == f"at most 30,000 bytes, {zeros / total:.1%} zeros"
    assert len(small.steps) == 4 and all(len(step) <= 80 for step in small.steps)
    assert small.steps[3] == "1 epoch of centroid distillation, best on validation"
    assert 0.95 * 30_000 < save_packed(small, tmp_path / "s.safetensors").total_bytes <= 30_000


def test_a_teacher_and_a_compensated_start_are_said(baseline, sets):
    config = ShrinkConfig(30_000, epochs=1, compensate=True, centroid_epochs=0, **SMALL)
    small = shrink(baseline, sets, config, teachers=[build_model("resnet9-s", seed=3).eval()])
    assert small.steps[:2] == (
        "rounding errors made up for on 32 images",
        "1 epoch of distillation from a resnet9-s through the rounding",
    )
    assert 0.95 * 30_000 < len(pack(small)) <= 30_000


def test_several_teachers_answer_as_their_mean(baseline, sets):
    config = ShrinkConfig(30_000, epochs=1, centroid_epochs=0, **SMALL)
    first, second = (build_model("resnet9-s", seed=seed).eval() for seed in (3, 4))
    files = [
        pack(shrink(baseline, sets, config, teachers=teachers, name="s"))
        for teachers in ([first, second], [second, first], [first], [second])
    ]
    assert files[0] == files[1]
    assert len(set(files)) == 3
    small = shrink(baseline, sets, config, teachers=[first, second])
    assert small.steps[0] == (
        "1 epoch of distillation from a resnet9-s and a resnet9-s through the rounding"
    )


def test_convolutions_learn_at_their_own_rate_where_one_is_given():
    rates = [
        ShrinkConfig(30_000, learning_rate=0.02, conv_learning_rate=own).training().sgd_conv_lr
        for own in (0.3, None)
    ]
    assert rates == [0.3, None]


def test_a_second_run_goes_on_from_what_the_first_kept(baseline, sets, tmp_path):
    config = ShrinkConfig(30_000, epochs=1, centroid_epochs=0, **SMALL)
    first, said = shrink(baseline, sets, config, folder=tmp_path / "kept"), []
    other = {"processor": "another"}
    again = shrink(
        baseline, sets, config, folder=tmp_path / "kept", notify=said.append, machine=other
    )
    assert machines_of(tmp_path / "kept") == [machine_record(), other]
    assert machines_of(tmp_path) == []
    assert said == [] and again.steps == first.steps
    assert pack(again) == pack(first)
    for other in ({"learning_rate": 0.1}, {"max_bytes": 30_500}):
        with pytest.raises(InputError, match="kept must be the folder of this run, got one of"):
            shrink(baseline, sets, dataclasses.replace(config, **other), folder=tmp_path / "kept")
    with pytest.raises(InputError, match="kept must be the folder of this run"):
        other_teacher = build_model(baseline.preset, seed=3).eval()
        shrink(baseline, sets, config, teachers=[other_teacher], folder=tmp_path / "kept")


def test_a_size_out_of_reach_keeps_no_folder_from_a_better_one(baseline, sets, tmp_path):
    config = ShrinkConfig(2_000, epochs=1, centroid_epochs=0, **SMALL)
    for kept in (tmp_path / "kept", tmp_path / "fitted"):
        with pytest.raises(InputError, match="max_bytes must be"):
            shrink(baseline, sets, config, folder=kept)
        config = ShrinkConfig(2_000, epochs=0, centroid_epochs=0, **FEW)
    config = ShrinkConfig(30_000, epochs=1, centroid_epochs=0, **SMALL)
    assert len(pack(shrink(baseline, sets, config, folder=tmp_path / "kept"))) <= 30_000


def test_what_was_learned_serves_other_epochs_of_the_levels(baseline, sets, tmp_path):
    config = ShrinkConfig(30_000, epochs=1, centroid_epochs=0, **SMALL)
    shrink(baseline, sets, config, folder=tmp_path / "kept")
    more = dataclasses.replace(config, centroid_epochs=1, centroid_lr=0.01)
    small = shrink(baseline, sets, more, folder=tmp_path / "kept")
    assert len(small.steps) == 4 and len(pack(small)) <= 30_000


def test_a_killed_run_comes_to_the_same_file(baseline, sets, tmp_path):
    config = ShrinkConfig(30_000, epochs=2, centroid_epochs=0, **SMALL)

    def killed(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shrink(baseline, sets, config, folder=tmp_path / "killed", notify=killed)
    said = []
    again = shrink(baseline, sets, config, folder=tmp_path / "killed", notify=said.append)
    assert [text.split(":")[0] for text in said] == ["rounded, epoch 2 of 2"]
    assert pack(again) == pack(shrink(baseline, sets, config, folder=tmp_path / "whole"))


def test_an_earlier_result_is_gone_on_from(baseline, sets):
    config = ShrinkConfig(30_000, epochs=1, learning_rate=1e-9, centroid_epochs=0, **SMALL)
    first = shrink(baseline, sets, dataclasses.replace(config, epochs=3, learning_rate=0.02))
    further = dataclasses.replace(config, first_ratio=1.5)
    again, anew = (shrink(baseline, sets, further, start=start) for start in (first, None))
    assert again.steps[: len(first.steps)] == first.steps
    assert again.steps[len(first.steps)] == "1 epoch of distillation through the rounding"
    assert 0.95 * 30_000 < len(pack(again)) <= 30_000
    before, after, other = (
        torch.cat([layer.weight().flatten() for layer in small.layers.values()])
        for small in (first, again, anew)
    )
    assert (before - after).norm() < 0.3 * (before - other).norm()  # not from the dense weights
    smaller = shrink(baseline, sets, dataclasses.replace(further, max_bytes=29_000), start=first)
    assert len(pack(smaller)) <= 29_000
    with pytest.raises(InputError, match="teachers must be left out where nothing is trained"):
        none = ShrinkConfig(30_000, epochs=0, centroid_epochs=0, **FEW)
        shrink(baseline, sets, none, teachers=[baseline])
    with pytest.raises(InputError, match="compensate must be off where there is a start"):
        shrink(baseline, sets, dataclasses.replace(further, compensate=True), start=first)
    with pytest.raises(InputError, match="first_ratio must be left at 1.5 where there is a start"):
        shrink(baseline, sets, dataclasses.replace(further, first_ratio=2), start=first)
    with pytest.raises(InputError, match="epochs must be at least 1 where there is a start"):
        shrink(baseline, sets, ShrinkConfig(30_000, epochs=0, **FEW), start=first)
    with pytest.raises(InputError, match="start must have all 9 layers .* quantized, got 0 of"):
        other = load_checkpoint("resnet9-s/baseline").model
        shrink(other, sets, dataclasses.replace(further, max_bytes=2e5), start=first)


def test_without_training_it_is_quantized_alone(baseline, sets):
    config = ShrinkConfig(30_000, epochs=0, centroid_epochs=0, **FEW)
    small = shrink(baseline, sets, config)
    assert len(small.steps) == 4
    images = sets["train"].images
    reserved = [*small.steps[:2], "at most 30,000 bytes, 100.0% zeros", small.steps[3]]
    reserved.append("1000 epochs of centroid distillation, best on validation")
    overhead = description_bytes("small", reserved)
    found = fit_entropy(baseline, 30_000, images[:32], overhead=overhead)
    for name, layer in found.layers.items():
        assert torch.equal(layer.weight(), small.layers[name].weight())


def test_the_command_writes_a_file_within_the_size_asked_for(baseline, tmp_path):
    out, start = tmp_path / "small.safetensors", tmp_path / "start.safetensors"
    save_checkpoint(baseline, start, {})
    words = ["shrink", str(start), str(out), "--max-kib", "30", "--epochs", "0"]
    words += ["--centroid-epochs", "0", "--source", "sample", "--json"]
    words += ["--results", str(tmp_path / "r.json")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    info = inspect_packed(out)
    assert 0.98 * 30 * 1024 < info.total_bytes <= 30 * 1024
    recorded = json.loads((tmp_path / "r.json").read_text())
    assert recorded["result"]["packed_bytes"] == info.total_bytes
    command = "python -m compression shrink start.safetensors small.safetensors --max-kib 30 "
    assert recorded["command"].startswith(command)
    parts, about = load_packed_parts(out)
    assert about["recipe"] == list(info.recipe) and parts.layers
    words[words.index("0")] = "1"  # an epoch more, from that file
    words[2] = str(tmp_path / "more.safetensors")
    done = CliRunner().invoke(app, [*words, "--start", str(out)])
    assert done.exit_code == 0, done.output
    again = json.loads((tmp_path / "r.json").read_text())
    assert again["command"].endswith(" --start small.safetensors --results r.json")
    earlier = {"command": recorded["command"], "machine": recorded["machine"]}
    earlier |= {key: recorded["result"][key] for key in ("accuracy", "packed_bytes")}
    assert again["earlier"] == [earlier]
    assert again["result"]["steps"].startswith(recorded["result"]["steps"])
    words[words.index("--centroid-epochs") + 1] = "1"  # the same once more, and its levels too
    done = CliRunner().invoke(app, [*words, "--start", str(out)])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "r.json").read_text())["earlier"] == [earlier]
    (tmp_path / "r.json").write_text("{}")
    done = CliRunner().invoke(app, [*words, "--start", str(out)])
    assert done.exit_code and "r.json must be a result of shrink or not exist" in str(
        done.exception
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_bytes": 0}, "max_bytes must be a number from 1"),
        ({"max_bytes": 1e5, "epochs": -1}, "epochs must be a whole number"),
        ({"max_bytes": 1e5, "conv_learning_rate": -1}, "^conv_learning_rate must be a number"),
        ({"max_bytes": 1e5, "shrinking": 2}, "shrinking must be a number from 0 to 1"),
        ({"max_bytes": 1e5, "first_ratio": 0.5}, "first_ratio must be a number from 1"),
        ({"max_bytes": 1e5, "epochs": 0, "draws": 3}, "draws must be left at 0 without epochs"),
        ({"max_bytes": 1e5, "epochs": 0, "learning_rate": 0.5}, "^learning_rate must be left at"),
        ({"max_bytes": 1e5, "epochs": 0, "worth_power": 0.0}, "worth_power must be left at 0.75"),
        ({"max_bytes": 1e5, "centroid_lr": 0}, "^centroid_lr must be a number from 1e-09"),
    ],
)
def test_bad_settings_are_said(options, text):
    with pytest.raises(InputError, match=text):
        ShrinkConfig(**options)
