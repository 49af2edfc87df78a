"""Labelled images: prepared ones in memory, and those of a split that are decoded when asked for."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one size with their labels, all in memory.

    Args:
        pixels: N, H, W, 3, uint8, C-contiguous.
        labels: N, int64, each an index into `classes`.
        classes: names of the classes, in the order of the classifier's outputs.
    """

    pixels: Pixels
    labels: Labels
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        assert self.pixels.dtype == np.uint8
        assert self.pixels.flags.c_contiguous
        assert self.pixels.shape[1:] == (*self.pixels.shape[1:3], 3), self.pixels.shape
        assert self.labels.dtype == np.int64
        assert self.labels.shape == self.pixels.shape[:1]
        assert not len(self.labels) or 0 <= self.labels.min() <= self.labels.max() < len(self.classes)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Iterable[Indices]) -> Iterator[Pixels]:
        """The images of each of these batches of indices, in order."""
        return (self.pixels[index] for index in indices)


class Records(ABC):
    """The images of a split as they lie, in a fixed order, each decoded when it is asked for.

    It can be sent to another process, and its images can be asked for in any order and by many threads.

    Args:
        labels: N, int64.
    """

    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def name(self, index: int) -> str:
        """How messages call an image: its path, or its number in the source."""

    @abstractmethod
    def image(self, index: int) -> "Image.Image":
        """Decode an image: upright RGB at its own size.

        Raises:
            DataError: naming the image, when it is missing or cannot be decoded.
        """

    def check(self, index: int) -> None:
        """Raise the error of `image`, if there is one, in as little time as finding it takes."""
        self.image(index)
