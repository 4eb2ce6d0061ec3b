"""Several networks that answer as one: the mean of their logits.

Networks that were trained apart err on different images, so that their mean may be right more often
than the best of them, and a better teacher (Hinton et al. 2015, arXiv 1503.02531). A sum of logits
is a product of what they hold probable. Left out: weights for the better among them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compression.inputs import InputError


class Ensemble(nn.Module):
    """The mean of the logits of `members`, one or more networks with the same classes.

    Images (B, 3, 32, 32) float32 normalized -> (B, classes). Raises InputError for no member.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise InputError("members must be one network or more, got none.")
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([member(images) for member in self.members]).mean(0)


def as_one(networks: Sequence[nn.Module]) -> nn.Module:
    """The network itself where there is one, an `Ensemble` where there are more.

    Raises InputError for none.
    """
    return networks[0] if len(networks) == 1 else Ensemble(networks)
