"""Batches of augmented training images: flip, translation, Cutout, GridMask, all a batch at once.

Translation by up to t pixels pads by reflection; flip and translation are one gather of uint8
pixels. Cutout (DeVries & Taylor 2017, arXiv 1708.04552) deletes one square around a random centre.
Deleted pixels become 0 after normalization, which is the data's mean colour.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from compression.data import ImageSet, normalize
from compression.gridmask import GridMask


class Batches:
    """Shuffled, augmented batches of normalized images; an epoch depends on (seed, epoch) only."""

    def __init__(
        self,
        images: ImageSet,
        *,
        batch_size: int,
        translate: int = 0,
        flip: bool = False,
        cutout: int = 0,
        gridmask: GridMask | None = None,
        small_epochs: int = 0,
        small_side: int = 24,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.images = len(images)
        self.batch_size = min(batch_size, self.images)
        self.translate, self.flip, self.cutout = translate, flip, cutout
        self.small_epochs, self.small_side = small_epochs, small_side
        self.gridmask, self.seed, self.device = gridmask, seed, torch.device(device)
        self._labels = images.labels
        self._side = images.images.shape[1]
        self._padded = _reflect_pad(images.images, translate)

    def __len__(self) -> int:
        """Batches an epoch; a last one of fewer images is left out, as batch norm wants it."""
        return self.images // self.batch_size

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(B, 3, 32, 32) float32 channels-last images, (B,) int64 labels; counted from 1.

        In the first `small_epochs` the images are reduced to `small_side` pixels a side.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        if self.gridmask:
            self.gridmask.reseed(self.seed * 1_000_003 + epoch)
            self.gridmask.set_epoch(epoch - 1)
        order = torch.randperm(self.images, generator=generator)
        for chosen in order.split(self.batch_size)[: len(self)]:
            pixels = self._crop(chosen, generator).to(self.device, non_blocking=True)
            batch = normalize(pixels)
            if self.cutout:
                batch = batch * self._holes(len(chosen), generator).to(self.device)
            if self.gridmask:
                batch = self.gridmask(batch)
            if epoch <= self.small_epochs:
                batch = _reduced(batch, self.small_side)
            yield batch, self._labels[chosen].to(self.device, non_blocking=True)

    def _crop(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """(B,) image numbers -> (B, 32, 32, 3) uint8, shifted and flipped."""
        count, side = len(chosen), self._side
        shifts = torch.randint(2 * self.translate + 1, (2, count), generator=generator)
        rows = shifts[0, :, None] + torch.arange(side)
        columns = shifts[1, :, None] + torch.arange(side)
        if self.flip:
            flipped = torch.rand(count, generator=generator) < 0.5
            columns = torch.where(flipped[:, None], columns.flip(1), columns)
        return self._padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]

    def _holes(self, count: int, generator: torch.Generator) -> Tensor:
        """(B, 1, 32, 32) float32 masks: 0 in one square of side `cutout` around a random centre."""
        centres = torch.randint(self._side, (2, count, 1), generator=generator)
        low = centres - self.cutout // 2
        place = torch.arange(self._side)
        inside = (place >= low) & (place < low + self.cutout)  # (2, B, 32)
        return (~(inside[0][:, :, None] & inside[1][:, None, :]))[:, None].float()


def _reduced(images: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side) by linear interpolation with antialiasing."""
    small = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


def _reflect_pad(images: Tensor, margin: int) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, H + 2 margin, W + 2 margin, 3), mirrored at the borders."""
    if margin == 0:
        return images
    side = images.shape[1]
    place = torch.arange(-margin, side + margin).abs()
    place = torch.where(place >= side, 2 * (side - 1) - place, place)
    return images[:, place][:, :, place].contiguous()
