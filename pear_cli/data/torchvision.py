"""Datasets that torchvision knows and downloads."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pear_cli.data import by_torchvision, storage
from pear_cli.data.condition import Holding, Problem
from pear_cli.data.files import hashed
from pear_cli.data.images import Records
from pear_cli.data.parts import Parted
from pear_cli.data.published import ARCHIVES, Published, altered, published
from pear_cli.data.splits import digest
from pear_cli.errors import DataError

if TYPE_CHECKING:
    from pear_cli.data.torchvision_parts import TorchvisionParts


@dataclass(frozen=True)
class Torchvision(Parted):
    """A dataset of `torchvision.datasets`, in the layout that torchvision gives its files.

    Several may lie beside each other: of those in `published.toml` it is known which files are theirs;
    any other one needs a root of its own.

    Args:
        dataset: class in `torchvision.datasets`, such as CIFAR10 or Flowers102. Its parts are the values of
            its argument `split`, or `train` and `test`.

    Raises:
        ConfigError: a class that torchvision lacks, a part that it lacks.
        DataError: the files are neither there nor to be had.
    """

    dataset: str = "CIFAR10"

    def holding(self) -> Holding:
        return Holding(self._places, self._published.address or f"torchvision's {self.dataset}")

    def classes(self) -> tuple[str, ...]:
        return tuple(self._facts()["classes"])

    def fingerprint(self, split: str) -> str:
        """Of all files of the dataset but archives; torchvision is asked until it finds them complete."""
        self._facts()
        names = sorted(name for name in self._files() if not name.endswith(ARCHIVES))
        return digest(
            family="torchvision",
            dataset=self.dataset,
            files=[
                (name, *content)
                for name, content in zip(names, hashed(self.name, self.folder(), names), strict=True)
            ],
            split=split,
            **self.division(),
        )

    def part(self, name: str) -> Records:
        return self.opened.part(name)

    def compare(self) -> list[Problem]:
        problems = [
            Problem("checksum", "", place, f"{differs}; {self.opened.remedy}")
            for place, differs in altered(self.folder(), self.opened.checksums)
        ]
        with suppress(DataError):  # what is not there has no number
            for part in self.part_names:
                found, stated = len(self.part(part)), self._published.images.get(part)
                if stated not in (found, None):
                    message = f"{found} images, where {stated} are published"
                    problems.append(Problem("count", part, f"{self.dataset} ({part})", message))
        return problems

    def folder(self) -> Path:
        """The root, as torchvision calls it."""
        if self.root:
            return Path(self.root).expanduser().absolute()
        return storage.home() if self.dataset in published() else storage.home() / self.name

    @property
    def opened(self) -> "TorchvisionParts":
        """Its parts as torchvision has them."""
        return by_torchvision(self.dataset, self.folder(), self.part_names, self.download)

    @cached_property
    def _published(self) -> Published:
        return published().get(self.dataset, Published())

    @cached_property
    def _places(self) -> tuple[Path, ...]:
        return tuple(self.folder() / name for name in self._published.files) or (self.folder(),)

    def _files(self) -> Iterator[str]:
        """Paths of the dataset's files below the root."""
        for place in self._places:
            for file in [place / name for name, _ in storage.files(place)] if place.is_dir() else [place]:
                yield file.relative_to(self.folder()).as_posix()

    def _facts(self) -> dict[str, Any]:
        """The classes, once torchvision has found all parts; remembered until a file changes."""
        key = f"torchvision {self.dataset} {self.folder()} {' '.join(self.part_names)}"
        return storage.recall(key) or storage.remembered(
            key, self._places, lambda: {"classes": list(self.opened.classes())}
        )
