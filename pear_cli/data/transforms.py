"""One picture: from any file that Pillow reads to upright RGB."""

import functools
import os
import re
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from pear_cli.data.condition import say_once
from pear_cli.errors import DataError

NAMED = 5  # files that a message names
RECORDING = threading.Lock()  # catching warnings is for one thread at a time
FULL = 65535  # white in 16 bits
SHALLOW = {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".webp"}  # grey of 8 bits at most
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


def read(path: Path, grey_range: int | None = None, small: bool = False) -> Image.Image:
    """Decode a file to upright RGB at its own size.

    Args:
        grey_range: the value that is white in an image of 16-bit grey, see `to_rgb`.
        small: JPEG at an eighth of its side, which takes less time; all of the file is read nevertheless.

    Raises:
        DataError: naming the file, when it is missing or cannot be decoded.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a regular file")  # a pipe would be waited for
        with Image.open(path) as image:
            if _has_wrong_exif(image):
                say_once(f"image {path} has malformed EXIF data, which may have said how it is turned")
            if small:
                image.draft(None, (1, 1))
            return to_rgb(image, grey_range)
    except FileNotFoundError:
        raise DataError(f"image {path} is missing") from None
    except Exception as error:  # decoders raise anything on damaged files, KeyError and struct.error too
        raise DataError(f"image {path} cannot be read: {reason(error)}; replace or remove it") from None


def reason(error: Exception) -> str:
    """What a decoder says of a damaged image, without the addresses of objects in memory."""
    return re.sub(r" <[^<>]* at 0x[0-9a-fA-F]+>", "", str(error)) or type(error).__name__


def to_rgb(image: Image.Image, grey_range: int | None = None) -> Image.Image:
    """Turn an image of any mode upright (EXIF orientation) and into RGB.

    Modes become RGB as Pillow's `convert` does it: grey is repeated, CMYK is inverted without a colour
    profile, transparency is dropped and the colours under it stay. 16-bit grey g becomes
    floor(256 g / (grey_range + 1)), at most 255, where Pillow's own conversion has clipped it to white in
    some versions.

    Args:
        grey_range: the value of 16-bit grey that is white; null takes 65535, which keeps the upper byte.

    Raises:
        ValueError: PostScript, negative grey, or floating-point values that are not grey levels in 0 to 255.
    """
    if image.format == "EPS":
        raise ValueError("it is PostScript, a program that Pillow would have Ghostscript run")
    if image.mode == "F" and not _is_grey(_array(image)):
        raise ValueError("its values are floating-point numbers, and not in 0 to 255")
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:
        if not _has_wrong_exif(image):
            raise
        upright = image  # how it is turned is not known
    if is_deep(upright):
        values = _array(upright).astype(np.int64)
        if values.min(initial=0) < 0:
            raise ValueError("its grey values are negative")
        levels = values * 256 // ((grey_range or FULL) + 1)
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
    if upright.mode in ("P", "PA", "RGBa", "La"):
        upright = upright.convert("LA" if upright.mode == "La" else "RGBA")
    return upright.convert("RGB")


def _has_wrong_exif(image: Image.Image) -> bool:
    """Whether the EXIF data of an image is malformed; Pillow's own warning does not name the image."""
    if "exif" not in image.info:
        return False
    with RECORDING, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            exif = Image.Exif()
            exif.load(image.info["exif"])
            dict(exif)
        except Exception:  # struct.error, SyntaxError, …
            return True
    return any("EXIF" in str(warning.message) for warning in caught)


def accept_large() -> None:
    """Let images pass in silence up to the limit: Pillow warns from half of it, and refuses above.

    Its warnings of metadata are silent too: they do not name the image, as `read` does.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def is_deep(image: Image.Image) -> bool:
    """Whether an image is grey of more than 8 bits."""
    return image.mode == "I" or image.mode.startswith("I;16")


def largest_grey(path: Path) -> int | None:
    """The largest value of an image of more than 8 bits; None for another one, or none that can be read."""
    if os.path.splitext(path)[1].lower() in SHALLOW or not path.is_file():
        return None
    try:
        with Image.open(path) as image:
            return brightest(image)
    except Exception:  # whoever needs the image names it, see `read`
        return None


def brightest(image: Image.Image) -> int | None:
    """The largest value of an image of more than 8 bits of grey; None for another one."""
    return max(int(_array(image).max(initial=0)), 0) if is_deep(image) else None


def _is_grey(values: np.ndarray[Any, np.dtype[Any]]) -> bool:
    """Whether floating-point values are grey levels in 0 to 255, and not in 0 to 1."""
    largest = values.max(initial=0)
    return bool(
        np.isfinite(values).all() and values.min(initial=0) >= 0 and (largest == 0 or 1 < largest <= 255)
    )


def _array(image: Image.Image) -> np.ndarray[Any, np.dtype[Any]]:
    return np.asarray(image)
