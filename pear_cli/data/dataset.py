"""What every dataset gives: labelled images as arrays, and the hash of what they are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, ClassVar

from pear_cli.config.choices import Augment, Caching, Interpolation, Metric, Resize
from pear_cli.config.range import Checked, Range, Seed
from pear_cli.data.condition import Holding, Problem
from pear_cli.data.images import Records
from pear_cli.data.preparation import CROP_PCT, Preparation
from pear_cli.errors import ConfigError, near


class Normalization(Enum):
    """Channel statistics that pixels in [0, 1] are normalised with; papers differ silently."""

    imagenet = "imagenet"
    half = "half"
    none = "none"
    backbone = "backbone"

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of R, G, B; None for `backbone`, which states its own."""
        return {
            Normalization.imagenet: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            Normalization.half: ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            Normalization.none: ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        }.get(self)


SPOKEN = {
    "train800": "train",
    "val200": "validation",
    "train800val200": "train and validation",
    "test": "test",
}
"""What a reader is told of a split, whose name counts the images of VTAB-1k."""


@dataclass(frozen=True)
class Dataset(Checked, ABC, group="dataset"):
    """Labelled images in four splits: train800, val200, train800val200 (the two together) and test.

    The names are those of VTAB-1k. For other sizes they mean 80%, 20% and all of the training images.

    Args:
        name: how results call the dataset; bundled and generated ones are found by it.
        train_split: what training reads, `train800val200`, or `train800` to keep val200 for selection.
        test_split: what evaluation reads, `test`, or `val200` while tuning on train800.
        split_seed: of the division into train800 and val200. It is never the seed of a run,
            so runs with different seeds learn from the same images, and it never moves the test set.
        normalization: channel statistics.
        resize: straight to the input's square, or the shorter side first and then the centre.
        crop_pct: of `resize=crop`, the share of the shorter side that is kept; null takes what the
            backbone states.
        interpolation: of the resizing; `backbone` takes what that states.
        augment: what training does to its images; nothing else sees it.
        cache: where decoded images are kept, see `loading.load`; no result depends on it.
        metric: the accuracy that the benchmark reports; both are measured.
        root: folder of the files, for the families that read some; null is `storage.home()`, or one in it.

    Raises:
        ConfigError: a value out of its range, or a test split that training sees.
    """

    in_the_fingerprint: ClassVar[tuple[str, ...]] = ()  # settings that keys need not name
    name: str
    train_split: str = "train800val200"
    test_split: str = "test"
    split_seed: Seed = 0
    normalization: Normalization = Normalization.backbone
    resize: Resize = Resize.direct
    crop_pct: Annotated[float, Range(0, 1, above=True)] | None = None
    interpolation: Interpolation = Interpolation.bicubic
    augment: Augment = Augment.none
    cache: Caching = Caching.auto
    metric: Metric = Metric.accuracy
    root: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name:
            raise ConfigError("dataset.name is empty: give the dataset a name")
        _one_of("train_split", self.train_split, ("train800val200", "train800"))
        _one_of("test_split", self.test_split, ("test", "val200"))
        if self.test_split == "val200" and self.train_split == "train800val200":
            raise ConfigError(
                "dataset.test_split = val200 is part of dataset.train_split = train800val200; "
                "set dataset.train_split=train800"
            )

    @property
    def title(self) -> str:
        """What tables and reports call it; no key depends on it."""
        return self.name

    @property
    def is_drawn(self) -> bool:
        """Whether `split_seed` decides which images train."""
        return self.train_split == "train800"

    def preparation(self, size: int, stated: Mapping[str, Any] | None = None) -> Preparation:
        """How images become `size` × `size`.

        Args:
            size: side in pixels, at least 1.
            stated: what the backbone says of its images, by timm's names; without it, timm's defaults.

        Raises:
            ConfigError: the backbone states an interpolation that is not offered.
        """
        known = stated or {}
        interpolation = self.interpolation.value
        if self.interpolation is Interpolation.backbone:
            interpolation = str(known.get("interpolation") or Interpolation.bicubic.value)
        if interpolation not in (Interpolation.bicubic.value, Interpolation.bilinear.value):
            raise ConfigError(
                f"dataset.interpolation = backbone: it states {interpolation}, which is not offered; "
                "set bicubic or bilinear"
            )
        crop_pct = 1.0
        if self.resize is Resize.crop:
            crop_pct = float(self.crop_pct or known.get("crop_pct") or CROP_PCT)
        return Preparation(size, self.resize, crop_pct, Interpolation(interpolation))

    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in label order; two or more."""

    @abstractmethod
    def fingerprint(self, split: str) -> str:
        """SHA-256, in hex, of what determines the images, labels and order of a split at any size."""

    @abstractmethod
    def records(self, split: str) -> Records:
        """The images of a split, not decoded yet, in the order that the fingerprint fixes.

        Raises:
            DataError: files that are missing or altered; the message names them.
        """

    def examine(self, split: str) -> tuple[Records, list[Problem]]:
        """The images of a split that can be looked for, and all that is wrong with the lists of them."""
        return self.records(split), []

    def white(self) -> int | None:
        """The value that is white in its images of more than 8 bits of grey; None where none is decided."""
        return None

    def compare(self) -> list[Problem]:
        """What differs from the numbers and checksums that the publisher states."""
        return []

    def count(self, split: str) -> int:
        """How many images a split has."""
        return len(self.records(split))

    def tasks(self) -> "Sequence[Dataset]":
        """The datasets that it stands for: itself, but for a folder of many tasks."""
        return [self]

    def holding(self) -> Holding:
        """Where the files are kept, known without reading them."""
        return Holding(None, "comes with pear")


def _one_of(key: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        choices = " or ".join(options)
        raise ConfigError(f'dataset.{key} = "{value}" is unknown{near(value, options)}; use {choices}')
