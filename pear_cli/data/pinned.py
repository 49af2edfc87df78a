"""Datasets that come with pear: a training and a test part, whose pixels and labels are pinned by a hash."""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from PIL import Image

from pear_cli.data.dataset import Dataset
from pear_cli.data.images import Labels, Pixels, Records
from pear_cli.data.splits import digest, divide
from pear_cli.errors import ConfigError, near


class Part(NamedTuple):
    """One of the two parts, train and test.

    Args:
        images: their number.
        sha256: of their pixels and labels, see `sha256`.
    """

    images: int
    sha256: str


@dataclass(frozen=True)
class Pinned(Dataset):
    """A dataset whose content is known before it is read, and checked whenever it is.

    Raises:
        ConfigError: a name that is none of `TABLE`.
        DataError: other pixels or labels than those that the fingerprint stands for.
    """

    TABLE: ClassVar[Mapping[str, Mapping[str, Part]]]
    KIND: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name not in self.TABLE:
            raise ConfigError(
                f'no {self.KIND} dataset "{self.name}"{near(self.name, self.TABLE)}; '
                f"{self.KIND}: {', '.join(self.TABLE)}"
            )

    @abstractmethod
    def arrays(self, part: str) -> tuple[Pixels, Labels]:
        """The images (N, H, W or N, H, W, 3) and labels (N,) of a part, which have the hash `content`."""

    def content(self, part: str) -> str:
        """SHA-256 of the pixels and labels of a part, known without them."""
        return self.TABLE[self.name][part].sha256

    def fingerprint(self, split: str) -> str:
        divided = {"split": split, "split_seed": self.split_seed} if split in ("train800", "val200") else {}
        return digest(family="pinned", content=self.content(_part(split)), **divided)

    def count(self, split: str) -> int:
        images = self.TABLE[self.name][_part(split)].images
        return images if split == "test" else len(divide(np.zeros(images, np.int64), split, self.split_seed))

    def records(self, split: str) -> "InMemory":
        pixels, labels = self.arrays(_part(split))
        if split == "test":
            return InMemory(pixels, labels)
        chosen = divide(labels, split, self.split_seed)
        return InMemory(pixels[chosen], labels[chosen])


@dataclass(frozen=True, eq=False)
class InMemory(Records):
    """Images that are in memory already.

    Args:
        pixels: N, H, W or N, H, W, 3, uint8.
    """

    pixels: Pixels
    labels: Labels

    def name(self, index: int) -> str:
        return f"image {index}"

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index]).convert("RGB")


def sha256(pixels: Pixels, labels: Labels) -> str:
    """SHA-256, in hex, of pixels and labels, their types and shapes."""
    facts = f"{pixels.dtype} {pixels.shape} {labels.dtype} {labels.shape}".encode()
    return hashlib.sha256(facts + pixels.tobytes() + labels.tobytes()).hexdigest()


def _part(split: str) -> str:
    return "test" if split == "test" else "train"
