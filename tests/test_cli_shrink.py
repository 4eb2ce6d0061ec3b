"""The command that shrinks: every option goes where it belongs, and its record says them all."""

import functools
import json
import shlex
from dataclasses import asdict

import pytest
from typer.testing import CliRunner

from compression.__main__ import app
from compression.cli import shrink as command
from compression.data import load_cifar10
from compression.evaluation import evaluate
from compression.model import build_model, load_checkpoint, save_checkpoint
from compression.packing import load_packed, save_packed
from compression.quantization import quantize
from compression.shrink import ShrinkConfig
from compression.stored import StoredModel
from tests.training_cases import same_bits

OPTIONS = {
    "--max-kib": 20.5, "--epochs": 7, "--learning-rate": 0.03, "--conv-lr": 0.2,
    "--shrinking": 0.25, "--first-ratio": 2, "--worth-power": 0.5, "--centroid-epochs": 4,
    "--centroid-lr": 0.1, "--draws": 3, "--seed": 5, "--source": "sample",
}  # fmt: skip
CONFIG = ShrinkConfig(
    20.5 * 1024, epochs=7, learning_rate=0.03, conv_learning_rate=0.2, shrinking=0.25,
    first_ratio=2, worth_power=0.5, compensate=True, centroid_epochs=4, centroid_lr=0.1, draws=3,
    seed=5,
)  # fmt: skip
loaded = functools.cache(load_cifar10)


@pytest.fixture
def asked(tiny_network, monkeypatch):
    """What shrink was called with; in its place a model quantized to 4 bits comes back."""
    calls = []

    def shrunk(dense, sets, config, **options):
        calls.append(options | {"dense": dense, "sets": sets, "config": config})
        return StoredModel(options["name"], ("as trained",), quantize(tiny_network, 4))

    def few(split, source="auto", root=None):
        return loaded(split, source, root).head(50)

    monkeypatch.setattr(command, "shrink", shrunk)
    monkeypatch.setattr(command, "load_cifar10", few)
    return calls


def test_every_option_reaches_the_shrinking(asked, tiny_network, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny_network, "dense (1).safetensors", {})
    teachers = ["first one.safetensors", "second.safetensors"]
    for seed, name in enumerate(teachers, start=1):
        save_checkpoint(build_model("tiny", seed=seed), name, {})
    save_packed(
        StoredModel("", ("as trained",), quantize(tiny_network, 3)), "its start.safetensors"
    )
    words = ["shrink", "dense (1).safetensors", "a small.safetensors", "--compensate"]
    words += [str(word) for pair in OPTIONS.items() for word in pair]
    words += [word for name in teachers for word in ("--teacher", name)]
    words += ["--start", "its start.safetensors", "--results", "my record.json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (done.output, done.exception)
    record = json.loads((tmp_path / "my record.json").read_text())
    assert record["config"] == asdict(CONFIG)
    again = shlex.split(record["command"])
    assert again[:3] == ["python", "-m", "compression"]
    assert sorted(again[3:]) == sorted(words)
    done = CliRunner().invoke(app, again[3:])
    assert done.exit_code == 0, (done.output, done.exception)
    assert len(asked) == 2
    for call in asked:
        assert call["config"] == CONFIG
        assert {split: len(found) for split, found in call["sets"].items()} == {
            "train": 50, "validation": 50, "test": 50,
        }  # fmt: skip
        assert same_bits(call["dense"], tiny_network)
        assert same_bits(call["start"].model, load_packed("its start.safetensors"))
        for teacher, name in zip(call["teachers"], teachers, strict=True):
            assert same_bits(teacher, load_checkpoint(name).model)
        assert call["name"] == "a small"
        assert call["folder"].resolve() == (tmp_path / "a small").resolve()


def test_without_options_nothing_is_begun_from_or_taught(asked, tiny_network, tmp_path):
    save_checkpoint(tiny_network, tmp_path / "dense.safetensors", {})
    out = tmp_path / "small.safetensors"
    words = ["shrink", str(tmp_path / "dense.safetensors"), str(out)]
    done = CliRunner().invoke(app, [*words, "--max-kib", "30", "--source", "sample", "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    shown, test = json.loads(done.stdout), loaded("test", "sample", None).head(50)
    dense, small = (evaluate(m, test.images, test.labels) for m in (tiny_network, load_packed(out)))
    assert (shown["file"], shown["packed_bytes"]) == (str(out), out.stat().st_size)
    assert (shown["accuracy"], shown["loss"]) == (small.accuracy, small.loss)
    assert (shown["dense_accuracy"], shown["test_images"]) == (dense.accuracy, 50)
    (call,) = asked
    assert call["config"] == ShrinkConfig(30 * 1024)
    assert (call["start"], list(call["teachers"])) == (None, [])


def test_the_help_says_where_the_state_is_kept():
    told = " ".join(CliRunner().invoke(app, ["shrink", "--help"]).stdout.split())
    assert "a folder beside OUT, named as OUT without its suffix, keeps its state." in told
