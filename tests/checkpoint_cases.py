"""What the tests of checkpoints share: a good file, and the same with something changed.

A file of tests takes the fixtures by their names: `whole = checkpoint_cases.whole`.
"""

import pytest
from safetensors.torch import load_file, save_file

from compression.checkpoint import save_checkpoint
from compression.model import build_model

METADATA = {"recipe": "baseline", "curves": [{"epoch": 1, "accuracy": 0.25}], "note": "é\n"}


@pytest.fixture(scope="module")
def model():
    return build_model(seed=5)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """A good checkpoint file; tests copy what they change."""
    path = tmp_path_factory.mktemp("whole") / "good.safetensors"
    save_checkpoint(model, path, METADATA)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sent.safetensors"


def rewrite(whole, path, change=None, metadata=None):
    """The good file with its tensors changed in place, and this metadata (texts) instead."""
    tensors = load_file(whole)
    if change:
        change(tensors)
    save_file(tensors, path, {"preset": '"resnet9-s"'} if metadata is None else metadata)
    return path
