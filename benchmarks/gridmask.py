"""GridMask beside the published way and bare multiplication; training with and without it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks import fresh
from benchmarks.limits import Rates
from benchmarks.pairs import Timed, Work, compared, in_turn, often
from benchmarks.peers.gridmask import PublishedGridMask
from benchmarks.results import Comparison, Figure, Row
from benchmarks.training import our_steps
from compression.gridmask import GridMask
from compression.recipes import BASELINE, GridMaskConfig

OURS, PUBLISHED, BARE = "GridMask", "the published way", "multiplication by ready masks"
ROUNDS, STEP_ROUNDS = 7, 11
RATIO, ROTATE = 0.4, 360


@dataclass(frozen=True)
class Batch:
    """So many images of a side, and the range of the grid's unit."""

    count: int
    side: int
    d_range: tuple[int, int]

    def images(self) -> Tensor:
        """(count, 3, side, side) float32, contiguous."""
        shape = (self.count, 3, self.side, self.side)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def run(self, name: str) -> Callable[[], Tensor]:
        """A call that masks the batch by one of the three ways, every image of it."""
        images = self.images()
        ours = GridMask(self.d_range, RATIO, ROTATE, 1.0)
        if name == OURS:
            return lambda: ours(images)
        if name == PUBLISHED:
            published = PublishedGridMask(self.d_range, RATIO, ROTATE)
            return lambda: published(images)
        masks = ours.draw(self.count, self.side, self.side)[:, None].float()
        return lambda: images * masks


SMALL, LARGE = Batch(512, 32, (12, 18)), Batch(64, 224, (96, 224))


def run(quick: bool, rates: Rates) -> Iterator[Row]:
    """Both batches, then training."""
    for batch in (SMALL, LARGE):
        yield from _masking(batch, quick, rates)
    yield from _epoch(quick)


def _masking(batch: Batch, quick: bool, rates: Rates) -> Iterator[Comparison]:
    works = [
        Work(name, *often(batch.run(name), 0.05 if quick else 0.3))
        for name in (OURS, PUBLISHED, BARE)
    ]
    ours, published, bare = in_turn(works, 2 if quick else ROUNDS, f"GridMask {batch.side}")
    held = {name: fresh.peak_mib("benchmarks.gridmask", f"{name}, {batch.side}", quick)
            for name in (OURS, PUBLISHED, BARE)}  # fmt: skip
    pixels = batch.count * batch.side**2
    limit = {
        "ours_mib": held[OURS],
        "limit_s": rates.traffic_seconds(pixels * (2 * 3 * 4 + 1)),
        "limit_from": "images read and written once, masks of a byte read",
    }
    work = f"{batch.count} images of {batch.side} x {batch.side}, rotated"
    small = batch is SMALL
    kept = [float((answer != 0).float().mean()) for answer in (ours.answers[-1],
            published.answers[-1])]  # fmt: skip
    speed = {
        name: batch.count / min(t.seconds) for name, t in ((OURS, ours), (PUBLISHED, published))
    }
    yield compared(
        "gridmask", work, ours, published, at_least=10 if small else None,
        peer_mib=held[PUBLISHED],
        agreement=f"kept {kept[0]:.1%}, published {kept[1]:.1%}",
        note=", ".join(f"{name} {rate:,.0f} images/s at best" for name, rate in speed.items()),
        **limit,
    )  # fmt: skip
    yield compared(
        "gridmask", work, ours, bare, at_least=None if small else 1 / 1.3,
        aim="" if small else "at most 1.3 times the bare multiplication",
        peer_mib=held[BARE], **limit,
    )  # fmt: skip


def prepare(name: str, quick: bool) -> Callable[[], object]:
    """The work whose peak memory is measured, its inputs made."""
    way, side = name.rsplit(", ", 1)
    return (SMALL if int(side) == SMALL.side else LARGE).run(way)


def _epoch(quick: bool) -> Iterator[Row]:
    """Steps of training with and without GridMask, in turn; every image is masked."""
    masked = replace(BASELINE, gridmask=GridMaskConfig(probability=1.0))
    if quick:
        masked = replace(masked, batch_size=128)
    plain = replace(masked, gridmask=None)
    works = [
        _step(name, config) for name, config in (("with GridMask", masked), ("without", plain))
    ]
    with_it, without = in_turn(works, 2 if quick else STEP_ROUNDS, "training step")
    yield compared(
        "gridmask", f"a training step of {masked.batch_size} images", with_it, without,
        at_least=1 / 1.02, aim="an epoch at most 2 % slower", note="every image masked",
    )  # fmt: skip
    yield _share_of_a_step(masked.batch_size, without, quick)


def _step(name: str, config) -> Work:
    steps = our_steps(config)
    next(steps)
    return Work(name, lambda _: next(steps))


def _share_of_a_step(count: int, step: Timed, quick: bool) -> Figure:
    """GridMask alone over a step, which a difference of two long times does not show as sharply."""
    images = Batch(count, SMALL.side, SMALL.d_range).images()
    images = images.contiguous(memory_format=torch.channels_last)
    transform = GridMask(SMALL.d_range, RATIO, ROTATE, 1.0)
    (alone,) = in_turn([Work("GridMask", *often(lambda: transform(images), 0.2))], ROUNDS)
    share = 100 * min(alone.seconds) / min(step.seconds)
    return Figure(
        "gridmask",
        "GridMask's own time over that of a training step",
        share,
        "%",
        aim="at most 2 %",
        holds=share <= 2,
        note=f"{1000 * min(alone.seconds):.2f} ms of {1000 * min(step.seconds):.0f} ms",
    )
