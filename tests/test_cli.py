"""The command line's `train` and `download`: files, output, resumes, and errors on one line."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import compression.cli.download as download_module
import compression.cli.train as train_module
from compression import runs
from compression.__main__ import app, main
from compression.data import load_cifar10
from compression.download import DownloadProgress
from compression.evaluation import evaluate
from compression.inputs import InputError
from compression.model import load_checkpoint, save_checkpoint
from compression.recipes import RECIPES
from tests.training_cases import same_bits, same_images

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"train": 64, "validation": 20, "test": 30}


def small(split, source="auto", root=None):
    """A few images of a split, with the checks of the real one."""
    return load_cifar10(split, "sample" if source == "auto" else source, root).head(SIZES[split])


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(train_module, "load_cifar10", small)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def run_main(monkeypatch, capfd, *words):
    """What `python -m compression WORDS` does: its exit status, output and errors."""
    monkeypatch.setattr(sys, "argv", ["compression", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        main()
    return (caught.value.code, *capfd.readouterr())


def same_weights(one, other):
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_train_writes_a_checkpoint_that_says_how_it_came_about(tmp_path):
    out = tmp_path / "new" / "net.safetensors"
    done = run("train", out, "--recipe", "gridmask", "--epochs", 2, "--seed", 3, "--json")
    assert done.exit_code == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["checkpoint"] == str(out)
    loaded = load_checkpoint(out)
    recorded = loaded.metadata
    assert recorded["preset"] == "resnet9-s"
    assert (recorded["recipe"], recorded["seed"]) == ("gridmask", 3)
    assert recorded["config"]["epochs"] == 2
    assert recorded["config"]["gridmask"]["probability"] == 0.5
    assert recorded["data"] == {"source": "sample", "train": 64, "test": 30}
    assert [row["epoch"] for row in recorded["curves"]] == [1, 2]
    best = recorded["curves"][recorded["best_epoch"] - 1]
    assert best["accuracy"] == recorded["validation_accuracy"] == shown["validation_accuracy"]
    validation = small("validation")
    found = evaluate(loaded.model, validation.images, validation.labels)
    assert found.accuracy == best["accuracy"]
    assert found.loss == pytest.approx(best["loss"], rel=1e-4)
    assert recorded["training_seconds"] == sum(row["seconds"] for row in recorded["curves"])
    words = recorded["command"].split()
    assert words[:5] == ["python", "-m", "compression", "train", "net.safetensors"]
    assert {"gridmask", "resnet9-s", "sample"} <= set(words)
    assert recorded["machine"]["torch"] == torch.__version__
    test = small("test")
    found = evaluate(loaded.model, test.images, test.labels)
    assert found.accuracy == recorded["test_accuracy"] == shown["test_accuracy"]
    assert recorded["test_interval"] == [found.low, found.high]
    assert [file.name for file in out.parent.iterdir()] == ["net.safetensors"]


def test_a_warm_restart_goes_on_from_the_cycle_before_and_keeps_its_record(monkeypatch, tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert run("train", first, "--epochs", 2).exit_code == 0
    train, begun = runs.train, []

    def watched(model, train_set, validation_set, *args, **options):
        assert same_images(train_set, small("train"))
        assert same_images(validation_set, small("validation"))
        begun.append(copy.deepcopy(model))
        return train(model, train_set, validation_set, *args, **options)

    monkeypatch.setattr(runs, "train", watched)
    options = ("--recipe", "baseline-restart", "--epochs", 1, "--seed", 1, "--start", first)
    done = run("train", second, *options)
    assert done.exit_code == 0, done.stderr
    assert len(begun) == 1 and same_bits(begun[0], load_checkpoint(first).model)
    before, after = load_checkpoint(first).metadata, load_checkpoint(second).metadata
    assert before.pop("earlier") == []
    assert after["earlier"] == [before]
    assert [row["epoch"] for row in after["curves"]] == [1, 2, 3]
    assert after["curves"][:2] == before["curves"]
    assert after["best_epoch"] == 3
    assert after["command"].endswith(f"--start {first.name}")
    record = {"curves": [{"epoch": 1}], "earlier": 5, "data": "none"}  # a stranger's
    save_checkpoint(load_checkpoint(first).model, first, record)
    assert run("train", second, *options).exit_code == 0
    assert [row["epoch"] for row in load_checkpoint(second).metadata["curves"]] == [1]
    wrong = run("train", second, "--preset", "resnet9", "--start", first)
    assert str(wrong.exception) == "start must be a resnet9, got a resnet9-s."


def test_a_network_learns_the_mean_answers_of_others(monkeypatch, tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    for seed, out in enumerate((first, second)):
        assert run("train", out, "--epochs", 1, "--seed", seed).exit_code == 0
    taught, seen = tmp_path / "taught.safetensors", []

    def watched(*args, teacher, **options):
        seen.append(teacher)
        return train(*args, teacher=teacher, **options)

    train = runs.train
    monkeypatch.setattr(runs, "train", watched)
    options = ("--epochs", 2, "--draws", 1, "--teacher", first, "--teacher", second)
    done = run("train", taught, *options)
    assert done.exit_code == 0, done.stderr
    members = [load_checkpoint(out) for out in (first, second)]
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = sum(member.model(pixels) for member in members) / 2
        torch.testing.assert_close(seen[0](pixels), expected)
    recorded = load_checkpoint(taught).metadata
    assert recorded["config"]["draws"] == 1
    assert recorded["command"].endswith(f"--teacher {first.name} --teacher {second.name} --draws 1")
    assert not same_weights(load_checkpoint(taught), members[0])


def test_a_killed_run_goes_on_when_the_command_is_given_again(monkeypatch, tmp_path):
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    assert run("train", whole, "--epochs", 2).exit_code == 0

    def interrupted(result):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "epoch_line", interrupted)
        assert run("train", killed, "--epochs", 2).exit_code != 0
    assert not killed.exists()
    assert (tmp_path / "killed.safetensors.resume").is_file()
    done = run("train", killed, "--epochs", 2)
    assert done.exit_code == 0, done.stderr
    assert same_weights(load_checkpoint(killed), load_checkpoint(whole))
    curves = [
        [row["loss"] for row in load_checkpoint(path).metadata["curves"]]
        for path in (whole, killed)
    ]
    assert curves[0] == curves[1]
    assert not (tmp_path / "killed.safetensors.resume").exists()


def test_a_run_that_cannot_be_saved_is_not_lost(monkeypatch, tmp_path):
    out = tmp_path / "net.safetensors"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("compression.runs.save_checkpoint", full)
        assert isinstance(run("train", out, "--epochs", 1).exception, OSError)
    assert (tmp_path / "net.safetensors.resume").is_file()

    def no_training(*_):
        raise AssertionError("it trained again")

    monkeypatch.setattr("compression.training_run.TrainingRun.epoch", no_training)
    done = run("train", out, "--epochs", 1)
    assert done.exit_code == 0, done.stderr
    assert len(load_checkpoint(out).metadata["curves"]) == 1


def test_the_result_in_words(tmp_path):
    done = run("train", tmp_path / "net.safetensors", "--epochs", 1)
    names = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert names == ["checkpoint", "validation accuracy", "test accuracy"]
    assert "epoch 1 of 1" in done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--recipe", "mixup"], f"recipe must be one of {', '.join(RECIPES)}, got 'mixup'."),
        (["--preset", "vgg"], "preset must be one of resnet9-s, resnet9, resnet9-t2g3, got 'vgg'."),
        (["--epochs", "0"], "epochs must be a whole number from 1 to 1000, got 0."),
        (["--seed", "-1"], "seed must be a whole number from 0 to 2147483647, got -1."),
        (["--source", "web"], "source must be one of auto, sample, full, got 'web'."),
        (["--source", "full", "--data", "/nowhere"], "The full CIFAR-10 is expected in /nowhere, "),
        (["--data", "/nowhere"], "The full CIFAR-10 is expected in /nowhere, got an empty place: "),
    ],
)
def test_a_mistake_ends_in_one_line(monkeypatch, capfd, tmp_path, words, text):
    out = tmp_path / "net.safetensors"
    status, output, errors = run_main(monkeypatch, capfd, "train", out, *words)
    assert (status, output) == (2, "")
    assert errors.startswith(f"Error: {text}")
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (f"{'x' * 235}.safetensors", f"{'x' * 235}.safetensors must be writable, got File name"),
        (os.fsdecode(b"caf\xe9.safetensors"), "The checkpoint's name must be text, got 'caf"),
    ],
)
def test_a_name_that_would_fail_after_training_is_refused_before(
    monkeypatch, capfd, tmp_path, name, text
):
    status, _, errors = run_main(monkeypatch, capfd, "train", tmp_path / name)
    assert (status, errors.count("\n")) == (2, 1) and errors.startswith(f"Error: {text}")


@pytest.mark.parametrize("name", ["net.pt", "folder.safetensors", "."])
def test_a_place_where_no_checkpoint_can_be_is_refused_before_training(
    monkeypatch, capfd, tmp_path, name
):
    (tmp_path / "folder.safetensors").mkdir()
    status, _, errors = run_main(monkeypatch, capfd, "train", tmp_path / name)
    assert status == 2
    assert errors.startswith("Error: The checkpoint must be a file NAME.safetensors, got ")


def test_a_folder_that_cannot_be_written_is_refused_before_training(monkeypatch, capfd, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "net.safetensors"
    status, _, errors = run_main(monkeypatch, capfd, "train", out)
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith(f"Error: {tmp_path / 'file'} must be writable, got ")


def test_a_system_error_is_one_line_too(monkeypatch, capfd, tmp_path):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train_module, "train_checkpoint", full)
    status, _, errors = run_main(monkeypatch, capfd, "train", tmp_path / "net.safetensors")
    assert status == 2
    assert errors.endswith("Error: [Errno 28] No space left on device\n")


def scripted(steps):
    """A stand-in for download_cifar10 that yields these steps, and keeps what it was asked."""

    def fetch(root=None):
        fetch.asked = root
        for step in steps:
            if isinstance(step, Exception):
                raise step
            yield step

    return fetch


def test_download_shows_its_progress_and_ends_with_the_folder(monkeypatch, tmp_path):
    fetch = scripted([DownloadProgress("Official archive", 0.43), DownloadProgress("Ready", 1.0)])
    monkeypatch.setattr(download_module, "download_cifar10", fetch)
    done = run("download", "--data", tmp_path, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == {"folder": str(tmp_path)}
    assert fetch.asked == tmp_path
    assert "Ready" in done.stderr and "100/100" in done.stderr


def test_a_failed_download_ends_in_one_line(monkeypatch, capfd):
    fetch = scripted([InputError("CIFAR-10 could not be fetched: no network.")])
    monkeypatch.setattr(download_module, "download_cifar10", fetch)
    status, output, errors = run_main(monkeypatch, capfd, "download")
    assert (status, output) == (2, "")
    assert errors.splitlines()[-1] == "Error: CIFAR-10 could not be fetched: no network."


def test_the_module_runs_and_lists_its_commands():
    command = [sys.executable, "-m", "compression", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for name in ("train", "evaluate", "scan", "prune", "quantize", "compare", "download"):
        assert name in done.stdout
