"""How an image becomes the input of a model."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pear_cli.config.choices import Interpolation, Resize
from pear_cli.data.images import Pixels

if TYPE_CHECKING:
    from PIL import Image

KERNELS = {Interpolation.bilinear: 2, Interpolation.bicubic: 3}
"""Members of `PIL.Image.Resampling`; keys, which need a `Preparation`, do without Pillow."""
CROP_PCT = 0.875
"""Where neither the dataset nor the backbone states one: timm's default."""
LARGEST = 2 * 89_478_485
"""Pixels of an image, as Pillow limits them against decompression bombs."""


@dataclass(frozen=True)
class Preparation:
    """How an image of any shape becomes a model's input, before normalisation.

    `direct` resizes to the square whatever the aspect: all of the image is seen, distorted. `crop` resizes
    the shorter side to floor(size / crop_pct), keeps the aspect, and cuts the square out of the centre.

    Args:
        size: side of the square in pixels, at least 1.
        resize: one of the two.
        crop_pct: in (0, 1]; 1 where nothing is cropped.
        interpolation: bicubic or bilinear, with Pillow's antialiasing.

    Source: timm's evaluation transform, crop modes `squash` and `center`.
    """

    size: int
    resize: Resize = Resize.direct
    crop_pct: float = 1.0
    interpolation: Interpolation = Interpolation.bicubic

    def __post_init__(self) -> None:
        assert self.size >= 1, self.size
        assert 0 < self.crop_pct <= 1, self.crop_pct
        assert self.interpolation is not Interpolation.backbone

    def __call__(self, image: "Image.Image") -> Pixels:
        """Pixels (size, size, 3) of an image; grey is repeated over the channels.

        Raises:
            ValueError: an image so long and thin that its shorter side cannot be enlarged.
        """
        wanted = self.size, self.size
        resized = wanted if self.resize is Resize.direct else self._by_shorter_side(*image.size)
        if image.size != resized:
            image = image.resize(resized, KERNELS[self.interpolation])
        if resized != wanted:
            left, top = (round((side - self.size) / 2) for side in resized)
            image = image.crop((left, top, left + self.size, top + self.size))
        return np.array(image.convert("RGB"), dtype=np.uint8)

    def _by_shorter_side(self, width: int, height: int) -> tuple[int, int]:
        short = math.floor(self.size / self.crop_pct)
        long = int(short * max(width, height) / min(width, height))
        if short * long > LARGEST:
            raise ValueError(f"{width}×{height} is too long and thin to crop; use dataset.resize=direct")
        return (short, long) if width <= height else (long, short)
