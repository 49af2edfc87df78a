"""Checksums that publishers state, and the files that have others."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pear_cli.data.published import Published


@dataclass(frozen=True)
class Altered:
    """A file that is not the published one.

    Args:
        place: its path below the root.
        expected, found: MD5 of the published content and of its own, in hex.
    """

    place: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"its MD5 is {self.found}, where {self.expected} is published"


def stated(family: Any, published: Published) -> Mapping[str, str]:
    """The MD5 of files of a dataset, as far as they are published, by path below the root.

    Args:
        family: torchvision's class; those of CIFAR know the files that their archive consists of.
        published: its archives.
    """
    folder, meta = getattr(family, "base_folder", ""), getattr(family, "meta", None)
    unpacked = [*getattr(family, "train_list", ()), *getattr(family, "test_list", ())]
    unpacked += [(meta["filename"], meta["md5"])] if isinstance(meta, dict) else []
    archives = {archive.place: archive.md5 for archive in published.archives if archive.md5}
    return {f"{folder}/{name}": md5 for name, md5 in unpacked} | archives


def altered(root: Path, expected: Mapping[str, str]) -> Iterator[Altered]:
    """The files that are there with another content than is published."""
    for place, md5 in expected.items():
        path = root / place
        if path.is_file():
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            if found != md5:
                yield Altered(place, md5, found)
