"""What torchvision's datasets consist of, as their publishers state it: files, archives, checksums."""

import functools
import hashlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

ARCHIVES = (".tar", ".gz", ".tgz", ".xz", ".bz2", ".zip")


@dataclass(frozen=True)
class Archive:
    """A file that is downloaded.

    Args:
        place: where torchvision keeps it, below the root.
        url: where it comes from.
        md5: of its content, in hex; "" where none is published.
    """

    place: str
    url: str
    md5: str


@dataclass(frozen=True)
class Published:
    """A dataset as torchvision lays it out.

    Args:
        files: the files and folders below the root that hold it.
        archives: what they are made from, in the order of the download.
        images: images by part.
    """

    files: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    images: Mapping[str, int] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """What the addresses of the archives have in common; "" where there are none."""
        urls = [archive.url for archive in self.archives]
        return os.path.commonpath(urls).replace(":/", "://", 1) if urls else ""


@functools.cache
def published() -> Mapping[str, Published]:
    """The datasets of `published.toml`, by torchvision's class."""
    stated = tomllib.loads((resources.files(__package__) / "published.toml").read_text("utf-8"))
    return {
        name: Published(
            tuple(one["files"]), tuple(Archive(**archive) for archive in one["archives"]), one["images"]
        )
        for name, one in stated.items()
    }


def altered(root: Path, expected: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The files that are there with another content than is published: their path, and what differs.

    Args:
        expected: their MD5, by path below the root.
    """
    for place, md5 in expected.items():
        path = root / place
        if path.is_file():
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            if found != md5:
                yield place, f"its MD5 is {found}, where {md5} is published"
