"""GridMask augmentation (Chen et al. 2020, arXiv 2001.04086): delete a regular grid of squares.

A unit of the grid is d pixels; of each unit, stripes of l = ceil(d * ratio) pixels along both axes
are kept and the square of d - l pixels between them is deleted. `grid_mask` evaluates that rule
analytically at the pixel centres of a turned grid, so no corner is lost to an image rotation.
`GridMask` draws one mask an image for a whole batch at once: a position on the grid is held as a
32-bit phase of its unit, so that the modulo is the integers' own overflow and costs nothing.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from compression.inputs import InputError, real, shown, whole

MAX_SIDE = 4096
# A position this close below a boundary, in pixels, counts as on it: sines and cosines of right
# angles are not exact.
GUARD = 1e-6
_TURN = 2.0**32  # one unit of the grid in phase steps


def stripe_width(d: int, ratio: float) -> int:
    """l = ceil(d * ratio) in pixels, in 0..d; 100 * 0.07 = 7.000000000000001 gives 7.

    Raises InputError for a d outside 1..4096 or a ratio outside 0..1.
    """
    d, ratio = whole("d", d, 1, MAX_SIDE, "pixels"), real("ratio", ratio, 0, 1)
    return min(math.ceil(d * ratio * (1 - 1e-12)), d)


def kept_fraction(d: int, ratio: float) -> float:
    """The formula's kept share of a large image, 1 - (1 - l/d)^2, in 0..1."""
    return 1.0 - (1.0 - stripe_width(d, ratio) / d) ** 2


def grid_mask(
    height: int,
    width: int,
    *,
    d: int,
    ratio: float,
    delta_x: float = 0,
    delta_y: float = 0,
    angle: float = 0.0,
    invert: bool = False,
) -> Tensor:
    """One mask, (height, width) float32 of 0 (deleted) and 1 (kept).

    d: unit in pixels, 1..4096; ratio: stripe width over d, 0..1; delta_x, delta_y: offsets in
    pixels along the grid, right and down before it is turned; angle: degrees counter-clockwise
    about the image's centre ((height-1)/2, (width-1)/2). At angle 0, pixel (i, j) is kept if
    (i - delta_y) mod d < l or (j - delta_x) mod d < l. `invert` keeps the squares instead.
    Raises InputError out of range.
    """
    height = whole("height", height, 1, MAX_SIDE, "pixels")
    width = whole("width", width, 1, MAX_SIDE, "pixels")
    d = whole("d", d, 1, MAX_SIDE, "pixels")
    ratio = real("ratio", ratio, 0, 1)
    delta_x = real("delta_x", delta_x, -MAX_SIDE, MAX_SIDE, "pixels")
    delta_y = real("delta_y", delta_y, -MAX_SIDE, MAX_SIDE, "pixels")
    turn = math.radians(real("angle", angle, -360, 360, "degrees"))
    down = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2
    right = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    row = down * math.cos(turn) + right * math.sin(turn) + (height - 1) / 2 - delta_y
    column = right * math.cos(turn) - down * math.sin(turn) + (width - 1) / 2 - delta_x
    stripe = stripe_width(d, ratio)
    kept = ((row + GUARD) % d < stripe) | ((column + GUARD) % d < stripe)  # (height, width)
    return (kept ^ bool(invert)).float()


class GridMask(nn.Module):
    """Delete a random grid from each image: a transform on (C, H, W) or (B, C, H, W) tensors.

    Each image draws its own d (uniform over the integers of `d_range`, ends included), offsets
    (uniform over the unit), and angle (uniform in [0, rotate) degrees), and is masked with
    `probability`. Any dtype and device; deleted pixels become 0, so apply it after normalization
    to delete to the mean colour. Over the first `ramp_epochs` epochs the probability grows
    linearly from 0, as in the paper; tell it the epoch with `set_epoch`. Same seed, same draws.
    """

    def __init__(
        self,
        d_range: tuple[int, int] = (12, 18),
        ratio: float = 0.4,
        rotate: float = 360.0,
        probability: float = 0.7,
        *,
        ramp_epochs: int = 0,
        invert: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(d_range, tuple | list) or len(d_range) != 2:
            raise InputError(f"d_range must be two whole numbers, got {shown(d_range)}.")
        low, high = (whole("d_range", d, 1, MAX_SIDE, "pixels") for d in d_range)
        if low > high:
            raise InputError(f"d_range must go from low to high, got {shown(tuple(d_range))}.")
        self.d_range = (low, high)
        self.ratio = real("ratio", ratio, 0, 1)
        self.rotate = real("rotate", rotate, 0, 360, "degrees")
        self.probability = real("probability", probability, 0, 1)
        self.ramp_epochs = whole("ramp_epochs", ramp_epochs, 0, 100_000)
        self.invert = bool(invert)
        self.reseed(whole("seed", seed, 0, 2**63 - 1))
        self.set_epoch(self.ramp_epochs)

    def reseed(self, seed: int) -> None:
        """Start the draws anew from `seed`, as a resumed epoch must."""
        self._generator = torch.Generator().manual_seed(seed)

    def set_epoch(self, epoch: int) -> None:
        """Set the probability for `epoch` (from 0): the linear ramp, full after `ramp_epochs`."""
        ramp = min(1.0, epoch / self.ramp_epochs) if self.ramp_epochs else 1.0
        self.current_probability = self.probability * ramp

    def draw(self, count: int, height: int, width: int) -> Tensor:
        """`count` random masks, (count, height, width) bool, True where the pixel is kept."""
        low, high = self.d_range
        units = torch.arange(low, high + 1, dtype=torch.float64)
        stripes = torch.tensor([stripe_width(d, self.ratio) for d in range(low, high + 1)])
        pick = (self._uniform(count) * len(units)).long()
        d, stripe = units[pick], stripes[pick].double()
        delta_x, delta_y = (self._uniform(2, count) * d).floor()
        angle = self._uniform(count) * math.radians(self.rotate)
        masked = self._uniform(count) < self.current_probability
        kept = _in_stripes(height, width, d, stripe, delta_x, delta_y, angle)
        if self.invert:
            kept.logical_not_()
        return kept.index_fill_(0, (~masked).nonzero().flatten(), True)

    def forward(self, images: Tensor) -> Tensor:
        """Images with their grids deleted, of the same shape, dtype and device."""
        if not isinstance(images, Tensor) or images.dim() not in (3, 4):
            got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise InputError(f"images must be a (C, H, W) or (B, C, H, W) tensor, got {got}.")
        count = images.shape[0] if images.dim() == 4 else 1
        kept = self.draw(count, images.shape[-2], images.shape[-1]).to(images.device)
        kept = kept.view(torch.uint8)  # multiplied as it is: no mask of the images' type is made
        kept = kept[:, None] if images.dim() == 4 else kept
        needs_gradient = images.requires_grad and torch.is_grad_enabled()
        ordinary = needs_gradient or not images.is_floating_point() or not images.numel()
        if ordinary or images.device.type != "cpu":
            return images * kept
        return torch.mul(images, kept, out=_on_huge_pages(images))

    def extra_repr(self) -> str:
        return (
            f"d_range={self.d_range}, ratio={self.ratio}, rotate={self.rotate}, "
            f"probability={self.probability}, ramp_epochs={self.ramp_epochs}"
        )

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64, generator=self._generator)


def _in_stripes(
    height: int,
    width: int,
    d: Tensor,
    stripe: Tensor,
    delta_x: Tensor,
    delta_y: Tensor,
    angle: Tensor,
) -> Tensor:
    """The rule of `grid_mask` for a batch: parameters (B,) float64 -> (B, height, width) bool."""
    down = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    right = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    cosine, sine = (angle.cos() / d)[:, None], (angle.sin() / d)[:, None]
    row_start = (((height - 1) / 2 - delta_y + GUARD) / d)[:, None]
    column_start = (((width - 1) / 2 - delta_x + GUARD) / d)[:, None]
    # Phases are unsigned; shifting both sides by half a turn compares them as signed integers.
    row_down = _phase(down * cosine + row_start)[:, :, None] + _HALF_TURN
    row_right = _phase(right * sine)[:, None, :]
    column_down = _phase(column_start - down * sine)[:, :, None] + _HALF_TURN
    column_right = _phase(right * cosine)[:, None, :]
    last = (stripe / d * _TURN).round().long() - 1 - 2**31
    below = last.clamp(-(2**31), 2**31 - 1).int()[:, None, None]
    kept = torch.empty(len(d), height, width, dtype=torch.bool)
    step = max(1, _PART_PIXELS // (height * width))
    phases = torch.empty(2, min(step, len(d)), height, width, dtype=torch.int32)
    for start in range(0, len(d), step):
        part = slice(start, min(start + step, len(d)))
        row, column = phases[:, : part.stop - start]
        torch.add(row_down[part], row_right[part], out=row)
        torch.add(column_down[part], column_right[part], out=column)
        torch.le(torch.minimum(row, column, out=row), below[part], out=kept[part])
    return kept.index_fill_(0, (stripe == 0).nonzero().flatten(), False)


def _on_huge_pages(images: Tensor) -> Tensor:
    """An unset tensor of the images' shape, dtype and order, in memory that numpy allocates.

    From 4 MiB on numpy asks Linux for huge pages (madvise) and torch does not: a fresh result of
    64 images of 224 x 224 otherwise costs more in its 9,400 page faults than in arithmetic.
    """
    memory = np.empty(images.numel() * images.element_size(), np.uint8)
    strides = torch.empty_like(images, device="meta").stride()
    return torch.from_numpy(memory).view(images.dtype).as_strided(images.shape, strides)


_HALF_TURN = torch.tensor(-(2**31), dtype=torch.int32)
_PART_PIXELS = 160_000  # masks of so many at a time: their phases stay in cache


def _phase(units: Tensor) -> Tensor:
    """Positions in units of the grid (float64) -> their fractional part as a wrapping int32."""
    steps = ((units - units.floor()) * _TURN).long()  # 0 .. 2^32 - 1, or 2^32 from rounding
    return steps.int()  # keeps the lower 32 bits
