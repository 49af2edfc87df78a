"""One picture: from any file that Pillow reads to RGB bytes of the wanted size."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from pear_cli.data.base import Pixels
from pear_cli.errors import DataError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def read(path: Path) -> Image.Image:
    """Decode a file to upright RGB at its own size.

    Raises:
        DataError: naming the file, when it is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except FileNotFoundError:
        raise DataError(f"image {path} is missing") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"image {path} cannot be read: {error}; replace or remove it") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image of any mode upright (EXIF orientation) and into RGB.

    Modes become RGB as Pillow's `convert` does it: grey is repeated, CMYK is inverted without a colour
    profile, transparency is dropped and the colours under it stay. 16-bit grey keeps its upper byte,
    where Pillow's own conversion has clipped it to white in some versions.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or (upright.mode == "I" and _above_8_bits(upright)):
        return Image.fromarray((_array(upright) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if upright.mode in ("P", "PA", "RGBa", "La"):
        upright = upright.convert("LA" if upright.mode == "La" else "RGBA")
    return upright.convert("RGB")


def resize(image: Image.Image, size: int) -> Pixels:
    """Resize to size, size, 3 directly, bicubic, whatever the aspect; grey is repeated over the channels."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _above_8_bits(image: Image.Image) -> bool:
    return bool(_array(image).max(initial=0) > 255)


def _array(image: Image.Image) -> np.ndarray[Any, np.dtype[Any]]:
    return np.asarray(image)
