"""What tests of the page's steps share: a visit to a tiny network, and images that are noted.

A file of tests takes the fixtures by their names: `start = visit_cases.start`.
"""

import pytest

from compression.recalibration import recalibrate_batch_norm
from compression.report import make_variant
from compression.ui.prune_steps import fill_uniform, prune_layers
from compression.ui.session import Session
from tests.few_images import FewImages

TO_CHOOSE = {"full train", "full validation"}  # what such a visit may look at for a choice
TO_MEASURE = {"full test"}


class NotedImages(FewImages):
    """Few images of the sample for either source; notes what was asked for, as `full test`."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def images(self, split, source):
        self.asked.append(f"{source} {split}")
        return super().images(split, "sample")

    def told(self, steps):
        """All that a step says; what it asked for until the last thing but one, and after that."""
        self.asked.clear()
        said, counts = [], [0]
        for each in steps:
            said.append(each)
            counts.append(len(self.asked))
        return said, set(self.asked[: counts[-2]]), set(self.asked[counts[-2] :])


@pytest.fixture(scope="module")
def explorer(tiny_network):
    """After the network, whose preset it needs."""
    return NotedImages()


@pytest.fixture(scope="module")
def start(explorer, tiny_network):
    """A visit on the full images, where the server's own are the sample."""
    model = recalibrate_batch_norm(tiny_network, explorer.images("train", "full").images)
    dense = make_variant("tiny", ("made up",), model, explorer.images("test", "full"))
    return Session(explorer.put(dense), "full")


@pytest.fixture(scope="module")
def pruned(explorer, start):
    """The visit after 60 % of each layer were pruned."""
    *_, (session, *_) = prune_layers(explorer, start, fill_uniform(explorer, start, 60))
    return session
