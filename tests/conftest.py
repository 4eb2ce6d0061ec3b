"""Two processes share the tests (pytest-xdist, a file each at a time): a thread of torch each."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # read by torch when it is imported, after this
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from compression.model import build_model, prunable_layers
from compression.presets import PRESETS, Preset


@pytest.fixture(scope="module")
def tiny_network():
    """A network for tests alone, of a preset that there is while they run: a sixteenth of
    `resnet9-s`, with weights spread as trained ones are, so that codes cost what theirs do.

    What is tested in it are steps that do not depend on the width, and they are soon done.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", Preset(width=8))
        model = build_model("tiny").eval()
        generator = torch.Generator().manual_seed(0)
        for module in prunable_layers(model).values():
            weight = module.weight.data
            spread = weight.square().mean().sqrt()
            weight.copy_(spread * torch.randn(weight.shape, generator=generator))
        yield model
