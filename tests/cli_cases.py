"""What the tests of commands share: a tiny network in a file, a few images, and what a run prints.

A file of tests takes the fixtures by their names: `start = cli_cases.start`.
"""

import functools

import pytest
from typer.testing import CliRunner

from compression.__main__ import app
from compression.cli import compress, measure, train
from compression.data import load_cifar10
from compression.evaluation import evaluate
from compression.model import load_checkpoint, prunable_layers, save_checkpoint
from compression.stored import load_stored

SIZES = {"train": 64, "validation": 40, "test": 50}


@functools.cache
def few(split, source="sample", root=None):
    assert (source, root) == ("sample", None)
    return load_cifar10(split, source).head(SIZES[split])


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    for module in (compress, measure, train):
        monkeypatch.setattr(module, "load_cifar10", few)


@pytest.fixture
def start(tiny_network, tmp_path):
    path = tmp_path / "start.safetensors"
    save_checkpoint(tiny_network, path, {})
    return path


def run(command, *words):
    asked = [command, *map(str, words), "--source", "sample"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def weights_of(path):
    layers = prunable_layers(load_checkpoint(path).model)
    return {name: module.weight.detach() for name, module in layers.items()}


def measured(path, split):
    images = few(split)
    return evaluate(load_stored(path).model, images.images, images.labels)
