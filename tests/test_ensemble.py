import pytest
import torch
from torch import nn

from compression.ensemble import Ensemble
from compression.inference import fold_batch_norm
from compression.inputs import InputError
from compression.model import build_model


def test_an_ensemble_answers_the_mean_of_its_members_with_batch_norm_folded_too():
    members = [build_model("resnet9-s", seed=seed).eval() for seed in (1, 2, 3)]
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = sum(member(images) for member in members) / 3
        torch.testing.assert_close(Ensemble(members)(images), expected)
        folded = fold_batch_norm(Ensemble(members))
        torch.testing.assert_close(folded(images), expected, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


def test_an_ensemble_has_a_member():
    with pytest.raises(InputError, match="one network or more, got none"):
        Ensemble([])
