"""One picture: from any file that Pillow reads to RGB bytes of the wanted size."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from pear_cli.config.choices import Interpolation, Resize
from pear_cli.data.images import Pixels
from pear_cli.errors import DataError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def read(path: Path) -> Image.Image:
    """Decode a file to upright RGB at its own size.

    Raises:
        DataError: naming the file, when it is missing or cannot be decoded.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")  # a pipe would be waited for
        with Image.open(path) as image:
            return to_rgb(image)
    except FileNotFoundError:
        raise DataError(f"image {path} is missing") from None
    except Exception as error:  # decoders raise anything on damaged files, KeyError and struct.error too
        reason = str(error) or type(error).__name__
        raise DataError(f"image {path} cannot be read: {reason}; replace or remove it") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image of any mode upright (EXIF orientation) and into RGB.

    Modes become RGB as Pillow's `convert` does it: grey is repeated, CMYK is inverted without a colour
    profile, transparency is dropped and the colours under it stay. 16-bit grey keeps its upper byte,
    where Pillow's own conversion has clipped it to white in some versions.

    Raises:
        ValueError: PostScript, or floating-point values that are no grey levels in 0 to 255.
    """
    if image.format == "EPS":
        raise ValueError("it is PostScript, a program that Pillow would have Ghostscript run")
    if image.mode == "F" and (0 < (white := _array(image).max(initial=0)) <= 1 or white > 255):
        raise ValueError("its values are floating-point numbers, and not in 0 to 255")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or (upright.mode == "I" and _above_8_bits(upright)):
        return Image.fromarray((_array(upright) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if upright.mode in ("P", "PA", "RGBa", "La"):
        upright = upright.convert("LA" if upright.mode == "La" else "RGBA")
    return upright.convert("RGB")


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

    def __call__(self, image: Image.Image) -> Pixels:
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


KERNELS = {
    Interpolation.bicubic: Image.Resampling.BICUBIC,
    Interpolation.bilinear: Image.Resampling.BILINEAR,
}
CROP_PCT = 0.875
"""Where neither the dataset nor the backbone states one: timm's default."""
LARGEST = 2 * 89_478_485
"""Pixels of an image, as Pillow limits them against decompression bombs."""


def accept_large() -> None:
    """Let images pass in silence up to the limit: Pillow warns from half of it, and refuses above."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def _above_8_bits(image: Image.Image) -> bool:
    return bool(_array(image).max(initial=0) > 255)


def _array(image: Image.Image) -> np.ndarray[Any, np.dtype[Any]]:
    return np.asarray(image)
