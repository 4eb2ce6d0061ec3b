"""GridMask over batches: each image's draw is a single mask, seeds, ramps, what is refused."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from compression import gridmask
from compression.gridmask import GridMask, grid_mask
from compression.inputs import InputError


@pytest.mark.parametrize("rotate", [0.0, 360.0])
@pytest.mark.parametrize("invert", [False, True])
def test_the_batch_is_the_single_mask_of_each_images_draw(monkeypatch, rotate, invert):
    drawn = {}

    def spy(height, width, *parameters):
        names = ("d", "stripe", "delta_x", "delta_y", "angle")
        drawn.update(zip(names, parameters, strict=True))
        return in_stripes(height, width, *parameters)

    in_stripes = gridmask._in_stripes
    monkeypatch.setattr(gridmask, "_in_stripes", spy)
    transform = GridMask((3, 18), 0.4, rotate, probability=1.0, invert=invert, seed=3)
    masks = transform.draw(300, 32, 20)
    assert masks.shape == (300, 32, 20)
    for k, mask in enumerate(masks):
        chosen = {name: drawn[name][k].item() for name in ("d", "delta_x", "delta_y")}
        angle = math.degrees(drawn["angle"][k].item())
        single = grid_mask(32, 20, **chosen, ratio=0.4, angle=angle, invert=invert)
        assert torch.equal(mask.float(), single), k
    assert set(drawn["d"].tolist()) == set(range(3, 19))
    assert bool((drawn["delta_x"] < drawn["d"]).all() and (drawn["delta_y"] >= 0).all())
    assert drawn["delta_x"].unique().numel() > 10
    assert 0 <= drawn["angle"].min() and drawn["angle"].max() <= math.radians(rotate)
    assert (drawn["angle"].max() > math.radians(350)) == (rotate == 360)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64]
)
def test_kept_pixels_stay_and_the_rest_is_zero(dtype):
    images = torch.arange(1, 4 * 3 * 16 * 16 + 1).remainder(200).add(1).view(4, 3, 16, 16).to(dtype)
    before = images.clone()
    result = GridMask((5, 9), probability=1.0, seed=1)(images)
    kept = GridMask((5, 9), probability=1.0, seed=1).draw(4, 16, 16)
    assert (result.dtype, result.shape) == (dtype, images.shape)
    assert torch.equal(result, torch.where(kept[:, None], images, torch.zeros_like(images)))
    assert torch.equal(images, before)
    assert 0 < kept.float().mean() < 1


def test_one_image_is_a_batch_of_one():
    image = torch.rand(3, 24, 24) + 1
    single = GridMask(probability=1.0, seed=5)(image)
    batch = GridMask(probability=1.0, seed=5)(image[None])
    assert torch.equal(single, batch[0])
    assert single.shape == (3, 24, 24)


def test_channels_last_memory_is_kept():
    images = torch.rand(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    assert GridMask(probability=1.0)(images).is_contiguous(memory_format=torch.channels_last)


def test_images_in_any_memory_order_are_masked_alike():
    images = torch.rand(3, 40, 24, 8).permute(3, 0, 2, 1)[:, :, ::2]
    expanded = torch.rand(1, 3, 12, 40).expand(8, 3, 12, 40)
    for strided in (images, expanded):
        result = GridMask((5, 9), probability=1.0, seed=2)(strided)
        same = GridMask((5, 9), probability=1.0, seed=2)(strided.contiguous())
        assert torch.equal(result, same)
    result += 1  # the answer is memory of its own, of one value a pixel
    assert float(expanded.max()) <= 1


def test_gradients_pass_where_pixels_are_kept():
    images = torch.rand(4, 3, 16, 16, requires_grad=True)
    GridMask((5, 9), probability=1.0, seed=1)(images).sum().backward()
    kept = GridMask((5, 9), probability=1.0, seed=1).draw(4, 16, 16)
    assert torch.equal(images.grad, kept[:, None].float().expand(4, 3, 16, 16))


def test_an_empty_batch_stays_empty():
    assert GridMask(probability=1.0)(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 8, 8)


def test_it_composes_with_torchvisions_transforms():
    pipeline = v2.Compose([v2.ToDtype(torch.float32, scale=True), GridMask(probability=1.0)])
    result = pipeline(torch.full((3, 32, 32), 255, dtype=torch.uint8))
    assert set(result.unique().tolist()) == {0.0, 1.0}


def test_the_same_seed_draws_the_same_masks():
    def draws(seed):
        transform = GridMask(seed=seed)
        return torch.cat([transform.draw(20, 32, 32), transform.draw(20, 32, 32)])

    assert torch.equal(draws(7), draws(7))
    assert not torch.equal(draws(7), draws(8))
    assert not torch.equal(draws(7)[:20], draws(7)[20:])
    again = GridMask(seed=1)
    again.draw(3, 32, 32)
    again.reseed(7)
    assert torch.equal(again.draw(20, 32, 32), draws(7)[:20])


def test_neither_the_global_generator_counts_nor_is_it_moved():
    state = torch.random.get_rng_state()
    first = GridMask(seed=2).draw(5, 8, 8)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(GridMask(seed=2).draw(5, 8, 8), first)


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_the_share_of_masked_images_is_the_probability(probability, share):
    masks = GridMask(probability=probability, seed=0).draw(2000, 16, 16)
    masked = (~masks).flatten(1).any(1).float().mean().item()
    assert masked == pytest.approx(share, abs=0.03 if 0 < share < 1 else 0)


def test_the_ramp_grows_linearly_and_then_stays():
    transform = GridMask(probability=0.8, ramp_epochs=4)
    assert transform.current_probability == 0.8  # full, until told the epoch
    ramp = []
    for epoch in range(7):
        transform.set_epoch(epoch)
        ramp.append(transform.current_probability)
    assert ramp == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    transform.set_epoch(0)
    assert transform.draw(50, 16, 16).all()


def test_without_a_ramp_every_epoch_is_full():
    transform = GridMask(probability=0.8)
    transform.set_epoch(0)
    assert transform.current_probability == 0.8


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize("invert", [False, True])
def test_extreme_ratios_in_a_batch(ratio, invert):
    transform = GridMask((1, 6), ratio, probability=1.0, invert=invert)
    masks = transform.draw(30, 12, 12)
    everything = (ratio == 1) != invert
    assert bool(masks.all()) == everything
    assert bool(masks.any()) == everything


@pytest.mark.parametrize(
    ("argument", "bad", "text"),
    [
        ("d_range", 14, "d_range must be two whole numbers, got 14."),
        ("d_range", (12, 14, 18), "d_range must be two whole numbers, got (12, 14, 18)."),
        ("d_range", (18, 12), "d_range must go from low to high, got (18, 12)."),
        ("d_range", (0, 5), "d_range must be a whole number from 1 to 4096 pixels, got 0."),
        ("ratio", -0.1, "ratio must be a number from 0 to 1, got -0.1."),
        ("rotate", 400, "rotate must be a number from 0 to 360 degrees, got 400."),
        ("probability", 2, "probability must be a number from 0 to 1, got 2."),
        ("ramp_epochs", 1.5, "ramp_epochs must be a whole number from 0 to 100000, got 1.5."),
        ("seed", -1, "seed must be a whole number from 0 to 9.223372037e+18, got -1."),
    ],
)
def test_a_transform_out_of_range_is_refused(argument, bad, text):
    with pytest.raises(InputError) as caught:
        GridMask(**{argument: bad})
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (torch.zeros(32, 32), "(32, 32)"),
        (torch.zeros(1, 2, 3, 32, 32), "(1, 2, 3, 32, 32)"),
        (np.zeros((3, 32, 32)), "ndarray"),
    ],
)
def test_other_images_are_refused(images, got):
    with pytest.raises(InputError) as caught:
        GridMask()(images)
    expected = f"images must be a (C, H, W) or (B, C, H, W) tensor, got {got}."
    assert str(caught.value) == expected
