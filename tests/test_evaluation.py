"""Evaluation against plain loops and formulas, Wilson's interval by hand, MACs by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from compression.data import CIFAR10_CLASSES, load_cifar10, normalize
from compression.evaluation import (
    class_report,
    evaluate,
    measure_complexity,
    wilson_interval,
)
from compression.inputs import InputError
from compression.model import build_model, prunable_layers


@pytest.fixture(scope="module")
def sample():
    return load_cifar10("test", "sample").head(90)


@pytest.fixture(scope="module")
def model():
    return build_model(seed=0)


@pytest.fixture(scope="module")
def result(model, sample):
    return evaluate(model, sample.images, sample.labels)


def test_accuracy_loss_and_predictions_are_those_of_a_plain_loop(model, sample, result):
    model.eval()
    correct, losses = 0, []
    with torch.no_grad():
        for image, label, predicted in zip(
            sample.images, sample.labels, result.predictions, strict=True
        ):
            logits = model(normalize(image[None]))
            assert logits.argmax() == predicted
            correct += int(logits.argmax() == label)
            losses.append(functional.cross_entropy(logits, label[None]).item())
    assert (result.correct, result.total) == (correct, 90)
    assert result.accuracy == correct / 90
    assert result.low < result.accuracy < result.high
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert result.classes == CIFAR10_CLASSES
    assert result.inference_seconds > 0
    assert result.precision == "float32"


@pytest.mark.parametrize("spread", [10, 4], ids=["all classes", "four classes occur"])
def test_the_report_follows_from_the_confusion_matrix(spread):
    generator = torch.Generator().manual_seed(spread)
    labels = torch.randint(spread, (200,), generator=generator)
    guesses = torch.randint(spread, (200,), generator=generator)
    predictions = torch.where(torch.rand(200, generator=generator) < 0.5, labels, guesses)
    evaluation = evaluate(Scripted(predictions), scripted_images(200), labels)
    counts = np.zeros((10, 10))
    for truth, said in zip(labels, predictions, strict=True):
        counts[truth, said] += 1
    assert np.array_equal(counts, evaluation.confusion)
    hits, support, claimed = counts.diagonal(), counts.sum(1), counts.sum(0)
    floor = 1e-300  # 0 / 0 is 0
    expected = np.array(
        [hits / (claimed + floor), hits / (support + floor), 2 * hits / (support + claimed + floor)]
    )
    got = [(c.precision, c.recall, c.f1) for c in evaluation.per_class]
    np.testing.assert_allclose(np.array(got).T, expected, rtol=1e-12)
    assert [c.support for c in evaluation.per_class] == support.tolist()
    for averages, shares in (
        (evaluation.macro, (support + claimed > 0) / (support + claimed > 0).sum()),
        (evaluation.weighted, support / support.sum()),
    ):
        got = (averages.precision, averages.recall, averages.f1)
        assert got == pytest.approx(tuple(expected @ shares), rel=1e-12)


class Scripted(nn.Module):
    """Answers what it was told: an image's first two bytes are its number."""

    def __init__(self, predictions: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("answers", functional.one_hot(predictions, 10).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        index = (normalize_back(x[:, :, 0, 0]) @ torch.tensor([1.0, 256.0, 0.0])).round().long()
        return self.get_buffer("answers")[index]


def normalize_back(pixels: torch.Tensor) -> torch.Tensor:
    """(N, 3) normalized -> (N, 3) bytes."""
    from compression.data import CHANNEL_MEAN, CHANNEL_STD  # noqa: PLC0415 (only here)

    return ((pixels * torch.tensor(CHANNEL_STD) + torch.tensor(CHANNEL_MEAN)) * 255).round()


def scripted_images(count: int) -> torch.Tensor:
    images = torch.zeros(count, 32, 32, 3, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count) % 256
    images[:, 0, 0, 1] = torch.arange(count) // 256
    return images


def test_a_class_report_worked_by_hand():
    """Class 0: 2 of 3 found, 1 of 3 claims false; class 1: 3 of 4 found, 1 of 4 claims false."""
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    (first, second, third, *_), macro, _ = class_report(labels, torch.tensor([0, 0, 1, 1, 1, 1, 0]))
    assert (first.precision, first.recall, first.f1, first.support) == (2 / 3, 2 / 3, 2 / 3, 3)
    assert (second.precision, second.recall, second.f1, second.support) == (0.75, 0.75, 0.75, 4)
    assert third == type(first)("bird", 0.0, 0.0, 0.0, 0)
    assert macro.recall == pytest.approx((2 / 3 + 0.75) / 2)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.2775327998628892),  # z^2 / (n + z^2)
        (10, 10, 1 - 0.2775327998628892, 1.0),
        (50, 100, 0.4038315303659956, 0.5961684696340045),
        (9, 10, 0.5958499732047615, 0.9821237869049271),
    ],
)
def test_wilson_intervals_as_published(correct, total, low, high):
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=1e-12)


def test_the_ends_of_wilsons_interval_solve_its_equation():
    """|p - share| = z sqrt(p (1 - p) / n) at both ends: the definition, unsolved."""
    for correct, total in ((1, 7), (13, 64), (930, 1000)):
        for end in wilson_interval(correct, total):
            reach = 1.959963984540054 * (end * (1 - end) / total) ** 0.5
            assert abs(end - correct / total) == pytest.approx(reach, rel=1e-9)


@pytest.mark.parametrize(("correct", "total"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(correct, total):
    with pytest.raises(InputError, match=f"got {correct} of {total}"):
        wilson_interval(correct, total)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(89, dtype=torch.int64), r"shape \(90,\), got int64 \(89,\)"),
        (torch.zeros(90), r"int64 tensor of shape \(90,\), got float32 \(90,\)"),
        (torch.zeros(90, 1, dtype=torch.int64), r"got int64 \(90, 1\)"),
        (torch.full((90,), 10), "labels must be from 0 to 9, got 10 to 10"),
        (torch.full((90,), -1), "labels must be from 0 to 9, got -1 to -1"),
        ([0] * 90, "int64 tensor of shape .*, got list"),
    ],
)
def test_other_labels_are_refused(model, sample, labels, message):
    with pytest.raises(InputError, match=message):
        evaluate(model, sample.images, labels)


def test_no_images_are_refused(model, sample):
    with pytest.raises(InputError, match="at least one image, got none"):
        evaluate(model, sample.images[:0], sample.labels[:0])


def test_a_model_of_other_classes_is_refused(sample):
    other = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))
    with pytest.raises(InputError, match=r"10 logits an image, got shape \(90, 4\)"):
        evaluate(other, sample.images, sample.labels)


def test_macs_and_parameters_by_hand(capsys):
    """Convolutions and the linear layer by their formula; thop adds 4 a batch-norm output."""
    model = build_model(seed=0)
    weight = prunable_layers(model)["conv4"].weight
    weight.data.view(-1)[:1000] = 0.0
    keys = set(model.state_dict())
    got = measure_complexity(model)
    pixels = {
        "conv1": 32**2,
        "conv2": 32**2,
        "res1.first": 16**2,
        "res1.second": 16**2,
        "conv3": 16**2,
        "conv4": 8**2,
        "res2.first": 4**2,
        "res2.second": 4**2,
        "linear": 1,
    }
    layers = prunable_layers(model)
    assert set(layers) == set(pixels)
    macs = sum(layers[name].weight.numel() * count for name, count in pixels.items())
    norms = sum(4 * len(layers[n].weight) * count for n, count in pixels.items() if n != "linear")
    assert got.macs == macs + norms
    biases = sum(int(torch.count_nonzero(p)) for p in model.parameters() if p.dim() == 1)
    weights = sum(layer.weight.numel() for layer in layers.values())
    assert got.parameters == weights + sum(p.numel() for p in model.parameters() if p.dim() == 1)
    assert got.nonzero_parameters == weights - 1000 + biases
    assert set(model.state_dict()) == keys and model.training
    assert capsys.readouterr().out == ""
