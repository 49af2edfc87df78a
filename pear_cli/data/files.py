"""Images in files: what the families of files have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image

from pear_cli.config.range import Range
from pear_cli.data.condition import Problem, say_once
from pear_cli.data.dataset import Dataset
from pear_cli.data.images import Records
from pear_cli.data.splits import digest
from pear_cli.data.transforms import FULL, accept_large, largest_grey, passed_over, read
from pear_cli.errors import DataError
from pear_cli.store import cache
from pear_cli.system import progress, threads

DEPTHS = (8, 10, 12, 14, 16)  # bits of grey that cameras and scanners have

Listing = list[tuple[str, int]]  # path below the root with "/", label


@dataclass(frozen=True)
class FileDataset(Dataset):
    """Images that are read from files, in the order of their paths.

    Images of any Pillow mode become upright RGB; `transforms.to_rgb` says how.

    Args:
        grey_range: the value of 16-bit grey that is white, such as 255, 4095 or 65535; null takes the
            smallest of 8, 10, 12, 14 or 16 bits that holds all training images, or as many more as they need.
    """

    in_the_fingerprint: ClassVar[tuple[str, ...]] = ("grey_range",)
    grey_range: Annotated[int, Range(1, 2**31 - 1)] | None = None

    def fingerprint(self, split: str) -> str:
        listing = self.listing(split)
        contents = hashed(self.name, self.folder(), [name for name, _ in listing])
        white = self.white()
        return digest(
            family="files",
            classes=self.classes(),
            **({} if white in (None, FULL) else {"grey_range": white}),
            files=sorted(
                (name, size, label, sha256)
                for (name, label), (size, sha256) in zip(listing, contents, strict=True)
            ),
        )

    @abstractmethod
    def folder(self) -> Path:
        """The folder that the paths of a listing start from; DataError where there is none."""

    @abstractmethod
    def scan(self, split: str) -> tuple[Listing, list[Problem]]:
        """The files of a split with their labels, sorted, and what is wrong with how they are listed."""

    def listing(self, split: str) -> Listing:
        """The files of a split with their labels, sorted.

        Raises:
            DataError: the first thing that is wrong, but for files that are listed twice.
        """
        listing, problems = self.scan(split)
        grave = [problem for problem in problems if problem.kind not in ("repeated", "skipped")]
        if grave:
            more = [f"and {len(grave) - 1} more; pear data verify names them all"] if grave[1:] else []
            raise DataError(f"{self.folder() / grave[0].name}: {grave[0].message}", *more)
        if skipped := [problem.name for problem in problems if problem.kind == "skipped"]:
            say_once(f"{self.folder()}: {passed_over(skipped)}")
        return listing

    def records(self, split: str) -> "Files":
        return Files(self.folder(), self.listing(split), self.white())

    def examine(self, split: str) -> tuple[Records, list[Problem]]:
        listing, problems = self.scan(split)
        return Files(self.folder(), listing, self.white()), problems

    def white(self) -> int | None:
        if self.grey_range is not None:
            return self.grey_range
        try:
            root, names = self.folder(), [name for name, _ in self.scan("train800val200")[0]]
            contents = hashed(self.name, root, names)
        except DataError:  # whoever needs these images says so
            return None
        key = digest(family="grey", contents=[content for _, content in contents])
        facts = cache.recall(key)
        if not facts:
            accept_large()
            found = list(threads.each(largest_grey, [root / name for name in names]))
            deep = [largest for largest in found if largest is not None]
            facts = {"images": len(deep), "largest": max(deep, default=0)}
            cache.remember(key, facts)
        if not facts["images"]:
            return None
        largest = int(facts["largest"])
        white = next((2**bits - 1 for bits in DEPTHS if largest < 2**bits), (1 << largest.bit_length()) - 1)
        say_once(
            f"{root}: {facts['images']} of {len(names)} training images are grey of more than 8 bits, with "
            f"values up to {facts['largest']}: {white} is white; dataset.grey_range sets another value"
        )
        return white


def hashed(title: str, folder: Path, names: Sequence[str]) -> list[tuple[int, str]]:
    """Size and SHA-256 of files of a dataset, in their order; see `cache.content_hashes`."""
    with progress.ticker(f"reading {title}", len(names), late=True) as ticker:
        return cache.content_hashes(folder, names, ticker.step)


class Files(Records):
    """Images in files below a folder."""

    def __init__(self, folder: Path, listing: Listing, grey_range: int | None = None) -> None:
        self.grey_range = grey_range
        self.folder, self.names = folder, [name for name, _ in listing]
        self.labels = np.array([label for _, label in listing], dtype=np.int64)

    def name(self, index: int) -> str:
        return self.names[index]

    def image(self, index: int) -> Image.Image:
        return read(self.folder / self.names[index], self.grey_range)

    def check(self, index: int) -> None:
        read(self.folder / self.names[index], self.grey_range, small=True)
