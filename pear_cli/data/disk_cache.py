"""Decoded images in a file of the cache, mapped into memory: decoded once, read by every later run.

A file is the pixels (N, size, size, 3), then a CRC-32 an image, then the SHA-256 of these and of the shape.
The end is checked when a file is opened, an image when it is first used: a bit that flipped is found, and
a hundred epochs check each image once. A damaged image is decoded again, and its file made anew next time.
A few images, others each time, are decoded again and compared when a file is opened: where they differ, other
code or decoders have made the file, and it is made again.
"""

import hashlib
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import __version__, features

from pear_cli.data.decoding import decode, prepared
from pear_cli.data.images import Indices, Labels, Pixels, Records
from pear_cli.data.preparation import Preparation
from pear_cli.data.splits import digest
from pear_cli.data.transforms import accept_large
from pear_cli.store import cache
from pear_cli.system import progress
from pear_cli.system.files import replacing

FORMAT = 1
SAMPLE = 8  # images that are decoded again whenever a file is opened, others each time
STALE = 86400  # seconds after which an unfinished file is one of a process that was killed

Sums = NDArray[np.uint32]


def open_or_build(fingerprint: str, records: Records, preparation: Preparation) -> "Stored":
    """The decoded images of a split from the cache, decoded into it where they are not there.

    Args:
        fingerprint: of the split.

    Raises:
        OSError: the file is not there and cannot be written.
        DataError: an image that cannot be decoded; nothing is kept then.
    """
    place = cache.folder() / "pixels" / name(fingerprint, preparation)
    with suppress(FileNotFoundError):
        try:
            return Stored(place, records, preparation)
        except ValueError as error:
            progress.say(f"{place} is not used: {error}; it is made again")
    _build(place, records, preparation)
    try:
        return Stored(place, records, preparation)
    except ValueError as error:
        raise OSError(f"{place} is damaged as soon as it is written: {error}") from None


def name(fingerprint: str, preparation: Preparation) -> str:
    """Of the file: all that decides its content, the versions of the decoders too."""
    decoders = [features.version(part) for part in ("jpg", "libjpeg_turbo", "zlib", "webp")]
    made_of = digest(
        format=FORMAT,
        fingerprint=fingerprint,
        size=preparation.size,
        resize=preparation.resize.value,
        crop_pct=preparation.crop_pct,
        interpolation=preparation.interpolation.value,
        pillow=[__version__, *decoders],
    )
    return f"{made_of[:32]}.pixels"


class Stored:
    """Decoded images that lie in a file.

    Raises:
        OSError: no such file.
        ValueError: it is not whole, its end is damaged, or it has other pixels than are decoded now.
    """

    def __init__(self, place: Path, records: Records, preparation: Preparation) -> None:
        self.place, self.records, self.preparation = place, records, preparation
        count, side = len(records), preparation.size
        shape = (count, side, side, 3)
        self.sums = _read_sums(place, shape)
        # copy on write: what is decoded anew stays in this process
        self.pixels: Pixels = np.asarray(np.memmap(place, np.uint8, "c", shape=shape))
        self.checked = np.zeros(count, dtype=bool)
        accept_large()
        for index in np.random.default_rng().permutation(count)[:SAMPLE].tolist():
            self._compare(index)

    @property
    def labels(self) -> Labels:
        return self.records.labels

    def read(self, indices: Iterable[Indices]) -> Iterator[Pixels]:
        for index in indices:
            for unknown in index[~self.checked[index]].tolist():
                self._check(unknown)
            yield self.pixels[index]

    def _compare(self, index: int) -> None:
        """Raise ValueError where a whole image is not what its file is decoded to now."""
        whole = _sum(self.pixels[index]) == self.sums[index]
        if whole and not np.array_equal(self.pixels[index], prepared(self.records, index, self.preparation)):
            raise ValueError(f"{self.records.name(index)} is decoded to other pixels now")

    def _check(self, index: int) -> None:
        if _sum(self.pixels[index]) != self.sums[index]:
            with suppress(OSError):
                self.place.unlink()
                progress.say(f"{self.place} is damaged; the next run makes it again")
            self.pixels[index] = prepared(self.records, index, self.preparation)
        self.checked[index] = True


def _read_sums(place: Path, shape: tuple[int, ...]) -> Sums:
    """The check sums of a file."""
    size = int(np.prod(shape, dtype=np.int64))
    with place.open("rb") as file:
        if os.fstat(file.fileno()).st_size != size + 4 * shape[0] + 32:
            raise ValueError("it has another size")
        file.seek(size)
        end = file.read()
    sums: Sums = np.frombuffer(end[:-32], dtype="<u4")
    if _seal(sums, shape) != end[-32:]:
        raise ValueError("its check sums are damaged")
    return sums


def _sum(image: Pixels) -> int:
    return zlib.crc32(image.data)


def _seal(sums: Sums, shape: tuple[int, ...]) -> bytes:
    return hashlib.sha256(f"{shape}".encode() + sums.tobytes()).digest()


def _build(place: Path, records: Records, preparation: Preparation) -> None:
    """Decode a split into a file that appears whole, by one rename; others may build it at the same time."""
    shape = (len(records), preparation.size, preparation.size, 3)
    size = int(np.prod(shape, dtype=np.int64))
    _sweep(place.parent)
    progress.say(f"{len(records)} decoded images go to {place} ({progress.size(size)})")
    with replacing(place) as file:
        if hasattr(os, "posix_fallocate") and len(records):  # a full disk is known before the work
            os.posix_fallocate(file.fileno(), 0, size + 4 * len(records) + 32)
        sums = np.zeros(len(records), dtype="<u4")
        for index, image in enumerate(decode(records, preparation)):
            file.write(image.data)
            sums[index] = _sum(image)
        file.write(sums.tobytes() + _seal(sums, shape))


def _sweep(folder: Path) -> None:
    """Remove what killed processes began."""
    for begun in folder.glob(".tmp-*"):
        with suppress(OSError):
            if time.time() - begun.stat().st_mtime > STALE:
                begun.unlink()
