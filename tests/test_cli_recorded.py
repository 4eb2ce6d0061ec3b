"""What commands record and say of how they were asked: commands to be given again, by a shell, and
which images were taken."""

import importlib
import shlex

import pytest
from typer.testing import CliRunner

from compression import runs
from compression.__main__ import app
from compression.cli import allocate, reproduce, study
from compression.model import load_checkpoint, save_checkpoint
from compression.runs import train_checkpoint
from compression.scan_records import load_scan
from tests import cli_cases
from tests.cli_cases import few, run

few_images = cli_cases.few_images
ODD = "my net (2).safetensors"
PYTHON = ["python", "-m", "compression"]


@pytest.fixture
def odd(tiny_network, tmp_path):
    """A checkpoint whose name a shell takes for more than one word."""
    save_checkpoint(tiny_network, tmp_path / ODD, {})
    return tmp_path / ODD


@pytest.fixture
def recorded(monkeypatch):
    """Replaces a module's worker; gives the `command` that it was called with, last of all where it
    has no name."""

    def watch(module, worker):
        seen = []

        def work(*asked, **options):
            seen.append(options.get("command", asked[-1]))
            raise KeyboardInterrupt

        monkeypatch.setattr(module, worker, work)
        return seen

    return watch


def test_train(odd, monkeypatch):
    seen = []
    monkeypatch.setattr(runs, "_epochs", lambda *asked: seen.append(asked))
    sets = {split: few(split) for split in ("train", "validation", "test")}
    out, options = odd.with_name("a b.safetensors"), {"preset": "tiny", "epochs": 2}
    train_checkpoint(out, sets, start=str(odd), teachers=[str(odd)], **options)
    assert shlex.split(seen[0][5]["command"]) == [
        *PYTHON, "train", out.name, "--recipe", "baseline", "--preset", "tiny", "--epochs", "2",
        "--seed", "0", "--source", "sample", "--start", ODD, "--teacher", ODD,
    ]  # fmt: skip


def test_average_and_shard(odd):
    mean, half = odd.with_name("a mean.safetensors"), odd.with_name("a half.safetensors")
    run("average", mean, odd, odd)
    command = load_checkpoint(mean).metadata["command"]
    asked = [*PYTHON, "average", mean.name, ODD, ODD, "--source", "sample"]
    assert shlex.split(command) == asked
    run("shard", odd, half)
    asked = [*PYTHON, "shard", ODD, half.name, "--source", "sample"]
    assert shlex.split(load_checkpoint(half).metadata["sharded"]) == asked


def test_scan(odd):
    out = odd.with_name("my points.json")
    words = ("--levels", "0.5", "--layers", "conv2, linear", "--precision", "float32")
    run("scan", odd, *words, "--images", 30, "--out", out)
    about = load_scan(out).about
    assert about["model"] == ODD
    assert shlex.split(about["command"]) == [
        *PYTHON, "scan", ODD, "--images", "30", "--levels", "0.5", "--layers", "conv2,linear",
        "--source", "sample", "--precision", "float32", "--out", out.name,
    ]  # fmt: skip


def test_allocate(odd, recorded):
    seen = recorded(allocate, "measured_settings")
    kept = odd.with_name("kept (1).json")
    words = ["allocate", str(odd), "--max-kib", "30", "--settings", str(kept), "--images", "60"]
    CliRunner().invoke(app, [*words, "--source", "sample"])
    asked = [
        ODD if word == str(odd) else kept.name if word == str(kept) else word for word in words
    ]
    assert shlex.split(seen[0]) == [*PYTHON, *asked, "--source", "sample"]


def test_study(recorded, tmp_path):
    seen = recorded(study, "run_study")
    words = ["study", str(tmp_path / "a study.json"), "--seeds", "0, 2.0", "--source", "sample"]
    CliRunner().invoke(app, words)
    assert shlex.split(seen[0]) == [
        *PYTHON, "study", "a study.json", "--preset", "resnet9-s", "--epochs", "8",
        "--small-epochs", "3", "--seeds", "0,2", "--source", "sample",
    ]  # fmt: skip


def test_reproduce(recorded, tmp_path):
    seen, config = recorded(reproduce, "Reproduction"), tmp_path / "my config.toml"
    config.touch()
    CliRunner().invoke(app, ["reproduce", str(tmp_path / "a run"), "--config", str(config)])
    assert shlex.split(seen[0]) == [*PYTHON, "reproduce", "a run", "--config", config.name]


@pytest.mark.parametrize(
    ("command", "worker", "more"),
    [("train", "train_checkpoint", ()), ("study", "run_study", ()),
     ("shrink", "shrink", ("--max-kib", "30"))],
)  # fmt: skip
def test_what_trains_says_that_it_takes_the_sample_unless_asked_to(
    odd, monkeypatch, command, worker, more
):
    module = importlib.import_module(f"compression.cli.{command}")
    monkeypatch.setattr(module, "load_cifar10", lambda split, *asked: few(split))
    monkeypatch.setattr(module, worker, lambda *asked, **options: iter(()))
    start = [str(odd)] if command == "shrink" else []
    words = [command, *start, str(odd.with_name("out.safetensors")), *more]
    told = (
        "Using the bundled sample, 64 training images; `python -m compression download` fetches "
        "the full set.\n"
    )
    for source, said in ((), True), (("--source", "auto"), True), (("--source", "sample"), False):
        assert (told in CliRunner().invoke(app, [*words, *source]).stderr) == said
