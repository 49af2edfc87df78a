"""Datasets that others have divided into named parts, and how the four splits are made of them."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from pear_cli.config.range import Fraction, Range
from pear_cli.data.dataset import Dataset
from pear_cli.data.images import Labels, Records
from pear_cli.data.splits import divide, draw
from pear_cli.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

TEST_SEED = 0  # which images test, where the publisher does not say: never varied, so all have the same


@dataclass(frozen=True)
class Parted(Dataset):
    """A dataset in parts, such as train and test, of its publisher's making.

    Without a part for validation the training images are divided 80/20 into train800 and val200 by
    `split_seed`, whatever their number; with one, train800 is the training part and val200 the other.

    Args:
        download: fetch the files when they are not there.
        train_images: training images drawn by `split_seed`, from all parts but the test, each class in its
            proportion, and divided 80/20; null takes all. With 1000 it is the size of VTAB-1k, though not its
            selection.
        train_part: name of the part with the training images.
        val_part: name of the one for validation; null where there is none.
        test_part: name of the test images; null where there are none.
        test_share: the share of the training part that is the test set where there is none, each
            class in its proportion. The draw has a fixed seed.

    Raises:
        ConfigError: a value out of its range; a test part and a share, or neither.
    """

    download: bool = True
    train_images: Annotated[int, Range(2, 10**9)] | None = None
    train_part: str = "train"
    val_part: str | None = None
    test_part: str | None = "test"
    test_share: Fraction | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.test_part is None) == (self.test_share is None):
            raise ConfigError(
                f"dataset.test_part = {self.test_part} and dataset.test_share = {self.test_share}: name the "
                "part with the test images, or set it to null and say which share of the training part tests"
            )

    @property
    def is_drawn(self) -> bool:
        return self.train_images is not None or (self.val_part is None and super().is_drawn)

    @abstractmethod
    def part(self, name: str) -> Records:
        """The images of a part, not decoded yet, always in the same order.

        Raises:
            DataError: it is neither there nor to be had.
        """

    @property
    def part_names(self) -> tuple[str, ...]:
        """The parts that are used: training first, then validation and test, where there are some."""
        return tuple(name for name in (self.train_part, self.val_part, self.test_part) if name)

    def records(self, split: str) -> Records:
        if split == "test" and self.test_part is not None:
            return self.part(self.test_part)
        if self.val_part is not None and self.train_images is None and split in ("train800", "val200"):
            return self.part(self.train_part if split == "train800" else self.val_part)
        parts = [self.part(name) for name in self.part_names if name != self.test_part]
        labels = np.concatenate([part.labels for part in parts])
        chosen = np.arange(len(labels), dtype=np.int64)
        if self.test_share is not None:
            test, chosen = draw(labels, round(self.test_share * len(labels)), TEST_SEED)
            if split == "test":
                return Chosen(parts, test)
        if self.train_images is not None:
            drawn, _ = draw(labels[chosen], min(self.train_images, len(chosen)), self.split_seed)
            chosen = chosen[drawn]
        return Chosen(parts, chosen[divide(labels[chosen], split, self.split_seed)])

    def division(self) -> dict[str, Any]:
        """What, beside the images, determines the splits; for fingerprints."""
        return {
            "parts": [self.train_part, self.val_part, self.test_part],
            "test_share": self.test_share,
            "train_images": self.train_images,
            "split_seed": self.split_seed,
        }


class Chosen(Records):
    """Some images of one or several parts.

    Args:
        parts: in their order.
        chosen: indices into all of them, one part after the other.
    """

    def __init__(self, parts: Sequence[Records], chosen: NDArray[np.int64]) -> None:
        self.parts, self.chosen = tuple(parts), chosen
        self.ends = np.cumsum([len(part) for part in parts])
        self.labels: Labels = np.concatenate([part.labels for part in parts])[chosen]

    def name(self, index: int) -> str:
        part, within = self._place(index)
        return part.name(within)

    def image(self, index: int) -> "Image.Image":
        part, within = self._place(index)
        return part.image(within)

    def check(self, index: int) -> None:
        part, within = self._place(index)
        part.check(within)

    def _place(self, index: int) -> tuple[Records, int]:
        place = int(self.chosen[index])
        number = int(np.searchsorted(self.ends, place, side="right"))
        return self.parts[number], place - int(self.ends[number - 1] if number else 0)
