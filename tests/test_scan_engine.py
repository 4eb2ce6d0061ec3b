"""The parts of the fast engine: steps against the model, screening, blocks and memory."""

import pytest
import torch
from torch import nn

from compression import scan_engine
from compression.data import load_cifar10, normalize
from compression.hardware import has_bfloat16
from compression.masks import magnitude_mask
from compression.presets import PRESETS, Preset
from compression.resnet9 import ResNet9, prunable_layers
from compression.scan_engine import FastEngine, PlainEngine, split_rows
from compression.scan_screen import UNKNOWN, Answers, Descent, Evidence, judge, redo_doubtful_
from compression.scan_steps import Network, State, inputs_needed, steps_of

SHAPES = {"plain": Preset(width=4), "extra": Preset(4, extra_stage=True, conv_bias=True, hidden=16)}


@pytest.fixture(scope="module")
def sample():
    return load_cifar10("validation", "sample").head(110)


@pytest.fixture(scope="module", params=list(SHAPES))
def model(request, sample):
    """A small ResNet-9 of random weights, whose batch norms hold the sample's statistics."""
    PRESETS[request.param] = SHAPES[request.param]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        model = ResNet9(request.param)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the mean over the batches seen
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
        for _ in range(2):
            model(normalize(sample.images))
    del PRESETS[request.param]
    return model.eval()


def test_steps_compute_what_the_model_computes(model, sample):
    pixels = normalize(sample.images[:30])
    with torch.no_grad():
        expected = model(pixels)
    inputs: dict[int, State] = {}
    network = Network(steps_of(model), torch.float32)
    got = network.logits(State(pixels), visit=inputs.__setitem__)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    for k in range(len(network.steps)):
        again = network.logits(inputs[k], k)
        torch.testing.assert_close(again, got, rtol=1e-5, atol=1e-5)
        some = network.logits(inputs[k].select(torch.tensor([7, 3])), k)
        torch.testing.assert_close(some, got[[7, 3]], rtol=1e-4, atol=1e-4)


def test_a_masked_step_is_the_pruned_model(model, sample):
    pixels = normalize(sample.images[:30])
    network = Network(steps_of(model), torch.float32)
    for k, (name, layer) in enumerate(prunable_layers(model).items()):
        kept = magnitude_mask(layer.weight, 0.6)
        inputs: dict[int, State] = {}
        network.logits(State(pixels), visit=inputs.__setitem__)
        pristine = layer.weight.detach().clone()
        with torch.no_grad():
            layer.weight.mul_(kept)
            expected = model(pixels)
            layer.weight.copy_(pristine)
        got = network.logits(inputs[k], k, network.masked(k, kept))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4, msg=name)


def test_a_step_inside_a_residual_needs_the_residuals_own_input(model):
    steps = steps_of(model)
    names = [step.name for step in steps]
    needed = inputs_needed(steps, ["res1.second", "linear"])
    assert [names[k] for k in needed] == ["res1.first", "res1.second", "linear"]
    assert [names[k] for k in inputs_needed(steps, ["res1.first"])] == ["res1.first"]


LEVELS = (0.1, 0.4, 0.6, 0.8, 0.9, 1.0)


def tally(engine, layers, first=None) -> dict[tuple[str, float], int]:
    counts: dict[tuple[str, float], int] = {}
    for rows in engine.blocks(first):
        for layer in layers:
            for level, correct in engine.count(layer, LEVELS, rows):
                counts[layer, level] = counts.get((layer, level), 0) + correct
    return counts


@pytest.mark.parametrize("quick", [False, True], ids=["float32 alone", "bfloat16 first"])
def test_screened_counts_are_the_plain_engines(model, sample, quick, monkeypatch):
    """Random weights leave margins near zero, where a doubt that is overlooked shows at once."""
    if quick and not has_bfloat16(torch.device("cpu")):
        pytest.skip("this processor has no bfloat16 in hardware")
    monkeypatch.setattr(scan_engine, "has_bfloat16", lambda device: quick)
    layers = list(prunable_layers(model))[1::3]
    subject = (model, sample.images, sample.labels, "float32")
    plain = tally(PlainEngine(*subject), layers)
    assert len(set(plain.values())) > 5
    engine = FastEngine(*subject, layers=layers)
    assert (engine.quick is not None) == quick
    assert tally(engine, layers) == plain
    assert tally(FastEngine(*subject, layers=layers), layers, first=20) == plain


def test_screening_leaves_images_out_and_exhaustive_does_not(model, sample, monkeypatch):
    """Counts the images that go through the network from the layer on."""
    monkeypatch.setattr(scan_engine, "has_bfloat16", lambda device: False)
    seen: list[int] = []
    original = Network.logits

    def spy(self, state, first=0, weight=None, visit=None):
        seen.append(len(state.x) if weight is not None else 0)
        return original(self, state, first, weight, visit)

    monkeypatch.setattr(Network, "logits", spy)
    subject = (model, sample.images, sample.labels, "float32")
    layer = "res1.second"
    totals = {}
    for exhaustive in (False, True):
        seen.clear()
        engine = FastEngine(*subject, layers=[layer], exhaustive=exhaustive)
        tally(engine, [layer])
        totals[exhaustive] = sum(seen)
    assert totals[True] == len(LEVELS) * len(sample.images)
    assert len(LEVELS) * 48 < totals[False] < 0.95 * totals[True]


def test_removing_zeros_costs_nothing_and_is_the_dense_model(model, sample, monkeypatch):
    """A layer half of whose weights are zero already: up to 0.5 the scan computes nothing."""
    layer = prunable_layers(model)["conv3"]
    pristine = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.mul_(magnitude_mask(pristine, 0.5))
    subject = (model, sample.images, sample.labels, "float32")
    engine = FastEngine(*subject, layers=["conv3"])
    (rows,) = engine.blocks(None)
    counts = dict(engine.count("conv3", (0.5, 0.3, 0.0, 0.9), rows))
    plain = dict(PlainEngine(*subject).count("conv3", (0.5, 0.3, 0.0, 0.9), rows))
    with torch.no_grad():
        layer.weight.copy_(pristine)
    assert counts == plain and counts[0.5] == counts[0.3] == counts[0.0]


def test_rows_are_split_evenly_and_within_the_limit():
    assert split_rows(10, None, 4) == [range(0, 3), range(3, 6), range(6, 10)]
    assert split_rows(10, 3, 4) == [range(3), range(3, 6), range(6, 10)]
    assert split_rows(10, 99, 4) == [range(4), range(4, 7), range(7, 10)]
    assert split_rows(3, 3, 4) == [range(3)]
    assert split_rows(3, 99, 4) == [range(3)]


def test_kept_activations_stay_within_the_limit(sample):
    model = ResNet9("resnet9-s")
    engine = FastEngine(model, sample.images, sample.labels, "float32", layers=["conv2", "conv3"])
    # conv2 sees 32 maps of 32 x 32, conv3 64 maps of 16 x 16, in float32
    assert engine.image_bytes == 4 * (32 * 32 * 32 + 64 * 16 * 16)
    for limit_mib in (1, 4):
        engine = FastEngine(
            model, sample.images, sample.labels, "float32", layers=["conv2"], cache_mib=limit_mib
        )
        most = max(len(rows) for rows in engine.blocks(None))
        assert limit_mib / 2 < most * engine.image_bytes / 2**20 <= limit_mib
        assert sum(len(rows) for rows in engine.blocks(None)) == len(sample.images)


def test_answers_judged_by_hand():
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 1.0, 5.0], [5.0, 1.0, 5.0]])
    answers = judge(logits, torch.tensor([1, 0, 2]))
    assert answers.margins.tolist() == [1.0, 0.0, 0.0]
    assert answers.hits.tolist() == [True, True, False]  # of equal logits, argmax takes the first
    assert answers.done.all()


def computed(margins: torch.Tensor, asked: list[list[int]]):
    """A computation that answers from `margins`, and notes what it was asked for."""

    def compute(rows: torch.Tensor) -> Answers:
        asked.append(rows.tolist())
        return Answers(margins[rows], margins[rows] > 0, torch.ones(len(rows), dtype=torch.bool))

    return compute


def test_doubt_spreads_by_what_is_seen_and_stays_in_its_group():
    """Guesses of which 0.75 was missed before, so 1 is in doubt; its miss of 2.25 puts 2 and -3 in
    doubt, but not 4; theirs are smaller; in the other group, where nothing was missed, only zero
    is."""
    answers = Answers.guessed(torch.tensor([1.0, 2.0, -3.0, 4.0, 0.0, 0.5]))
    truth = torch.tensor([-1.25, 2.1, -3.1, -9.0, 0.0, -9.0])
    misses, asked = torch.tensor([0.75, 0.0]), []
    group = torch.tensor([0, 0, 0, 0, 1, 1])
    redo_doubtful_(answers, group, misses, computed(truth, asked))
    assert asked == [[0, 4], [1, 2]]
    assert misses.tolist() == [2.25, 0.0]
    assert answers.hits.tolist() == [False, True, False, True, False, True]
    assert answers.done.tolist() == [True, True, True, False, True, False]


def test_the_unknown_and_nan_are_always_in_doubt():
    answers = Answers.guessed(torch.tensor([100.0, torch.nan, 100.0]))
    truth = torch.tensor([-1.0, -1.0, -1.0])
    misses, asked = torch.tensor([UNKNOWN, 0.1]), []
    redo_doubtful_(answers, torch.tensor([0, 1, 1]), misses, computed(truth, asked))
    assert asked[0] == [0, 1] and answers.done[:2].all() and not answers.hits[:2].any()
    assert misses[1].isnan() and answers.done[2]  # a NaN was missed: the whole group is redone


def test_a_descent_interpolates_by_energy():
    """Dense margin 4, and 0 at energy 8: on the line, 3 at energy 2, 3.5 at energy 1. The images
    that take every way miss it by 0, so the others are not computed at all below the top."""
    evidence = Evidence.none_yet(torch.tensor([8.0, 2.0, 1.0], dtype=torch.float64))
    dense = Answers.guessed(torch.full((60,), 4.0))
    descent = Descent(evidence, dense)
    assert descent.fresh == 48 and evidence.calibrated == 48
    asked: list[list[int]] = []
    for level, margin in enumerate((0.0, 3.0, 3.5)):
        compute = computed(torch.full((60,), margin), asked)
        answers = descent.answer(level, lambda rows, every_way, compute=compute: compute(rows))
        assert answers.margins.tolist() == pytest.approx([margin] * 60)
    assert [len(rows) for rows in asked] == [48, 12, 48, 48]
    assert evidence.calibration(100) == 0
