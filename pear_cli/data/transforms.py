"""One picture: from any file that Pillow reads to upright RGB."""

import functools
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from pear_cli.errors import DataError

NAMED = 5  # files that a message names
SYSTEM = {"desktop.ini", "ehthumbs.db", "thumbs.db"}
TEXT = {".csv", ".html", ".json", ".jsonl", ".log", ".md", ".tsv", ".txt", ".xml", ".yaml", ".yml"}
UNDECODED = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
"""Formats that Pillow recognises without decoding them itself."""


@functools.cache
def suffixes() -> frozenset[str]:
    """The suffixes, in lower case, of the images that the installed Pillow decodes."""
    Image.init()
    formats = Image.registered_extensions().items()
    return frozenset(s for s, kind in formats if kind in Image.OPEN and kind not in UNDECODED) | {".mpo"}


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix."""
    return os.path.splitext(name)[1].lower() in suffixes()


def is_clutter(name: str) -> bool:
    """Whether nobody takes a file for an image: hidden, a system's own, or text beside the images."""
    base = os.path.basename(name).lower()
    return base.startswith(".") or base in SYSTEM or os.path.splitext(base)[1] in TEXT


def passed_over(names: Sequence[str]) -> str:
    """How many files are passed over as no images, and which, for a message."""
    some = ", ".join(names[:NAMED]) + (", …" if names[NAMED:] else "")
    noun = "file" if len(names) == 1 else "files"
    return f"{len(names)} {noun} without the suffix of an image that Pillow reads passed over: {some}"


def read(path: Path) -> Image.Image:
    """Decode a file to upright RGB at its own size.

    Raises:
        DataError: naming the file, when it is missing or cannot be decoded.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a regular file")  # a pipe would be waited for
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
        ValueError: PostScript, or floating-point values that are not grey levels in 0 to 255.
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


def accept_large() -> None:
    """Let images pass in silence up to the limit: Pillow warns from half of it, and refuses above."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def _above_8_bits(image: Image.Image) -> bool:
    return bool(_array(image).max(initial=0) > 255)


def _array(image: Image.Image) -> np.ndarray[Any, np.dtype[Any]]:
    return np.asarray(image)
