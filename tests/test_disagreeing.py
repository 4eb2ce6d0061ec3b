"""The Compare tab's images on which variants disagree: who said what, the right answer first."""

import re
from types import SimpleNamespace

import pytest
import torch

from compression.data import CIFAR10_CLASSES, ImageSet
from compression.ui.disagreeing import disagreeing

SAID = {"a": [0, 3, 5], "b": [0, 5, 5], "c <d>": [0, 4, 4]}  # cat and horse are 3 and 7


@pytest.fixture
def test_set():
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    return ImageSet(images, torch.tensor([0, 3, 7]), CIFAR10_CLASSES, "sample", torch.arange(3))


@pytest.fixture
def variants():
    return [
        SimpleNamespace(
            name=name, evaluation=SimpleNamespace(predictions=torch.tensor(said), total=3)
        )
        for name, said in SAID.items()
    ]


def test_captions_tell_who_said_what_with_the_right_answer_first(variants, test_set):
    shown = disagreeing(variants, test_set)
    captions = re.findall("<figcaption>(.*?)</figcaption>", shown, re.DOTALL)
    assert captions == [
        "cat\n\u2713 1\ndog: 2\ndeer: 3",
        "horse\n\u2713 nobody\ndog: 1 2\ndeer: 3",
    ]
    assert "Models by number: 1 a, 2 b, 3 c &lt;d&gt;." in shown


def test_where_all_agree_it_says_so(variants, test_set):
    assert "same answer to every" in disagreeing(variants[:1], test_set)
