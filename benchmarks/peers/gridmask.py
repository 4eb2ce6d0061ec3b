"""GridMask as its published code works (Chen et al. 2020, arXiv 2001.04086), written anew.

A Python loop over the images of a batch: a mask of one and a half times the image's side is drawn
stripe by stripe in NumPy, turned by PIL, cropped to the image, made a tensor and multiplied. The
stripes are kept here, as ours keeps them (the published code's mode 1).
"""

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class PublishedGridMask:
    """(B, C, H, W) float32 -> the same with a grid deleted from each image."""

    def __init__(
        self,
        d_range: tuple[int, int],
        ratio: float,
        rotate: int,
        probability: float = 1.0,
        *,
        seed: int = 0,
    ) -> None:
        self._d_range, self._ratio, self._rotate = d_range, ratio, rotate
        self._probability, self._random = probability, np.random.default_rng(seed)

    def __call__(self, images: Tensor) -> Tensor:
        return torch.stack([self._masked(image) for image in images])

    def _masked(self, image: Tensor) -> Tensor:
        if self._random.random() > self._probability:
            return image
        return image * self.mask(*image.shape[-2:]).expand_as(image)

    def mask(self, height: int, width: int) -> Tensor:
        """(height, width) float32: 1 where the pixel is kept."""
        side = int(1.5 * max(height, width))
        d = int(self._random.integers(self._d_range[0], self._d_range[1] + 1))
        stripe = math.ceil(d * self._ratio)
        large = np.zeros((side, side), np.float32)
        for axis in (large, large.T):
            offset = int(self._random.integers(d))
            for k in range(-1, side // d + 1):
                start = d * k + offset
                axis[max(start, 0) : max(start + stripe, 0)] = 1
        turned = Image.fromarray(large.astype(np.uint8)).rotate(
            int(self._random.integers(self._rotate))
        )
        top, left = (side - height) // 2, (side - width) // 2
        cropped = np.asarray(turned)[top : top + height, left : left + width]
        return torch.from_numpy(cropped.copy()).float()
