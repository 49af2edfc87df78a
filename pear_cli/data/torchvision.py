"""Datasets that torchvision knows and downloads."""

import contextlib
import inspect
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pear_cli.data import cache
from pear_cli.data.base import Dataset, Labels, Records, digest, divide, draw
from pear_cli.data.pictures import to_rgb
from pear_cli.errors import ConfigError, DataError, near

ARCHIVES = (".tar", ".gz", ".tgz", ".xz", ".bz2", ".zip")
READY = ".ready"  # names the files with which torchvision has found the dataset complete
PATIENCE = 10.0  # seconds without a byte before a download counts as failed


@dataclass(frozen=True)
class Torchvision(Dataset):
    """A dataset of `torchvision.datasets`, kept in a folder of its own.

    Its training images are divided 80/20 into train800 and val200 by `split_seed`, whatever their number.

    Args:
        dataset: class in `torchvision.datasets`, such as CIFAR10 or Flowers102.
        download: fetch the files when they are not below `root`.
        train_images: training images drawn by `split_seed`, each class in its proportion; null takes all.
            With 1000 it is the size of VTAB-1k, though not its selection.
        train_part: name of the training images, for classes that have `split` in place of `train`.
        test_part: name of the test images, likewise.

    Raises:
        ConfigError: no root, a class that torchvision lacks or that has no test images.
        DataError: the files are neither there nor to be had.
    """

    dataset: str = "CIFAR10"
    download: bool = True
    train_images: int | None = None
    train_part: str = "train"
    test_part: str = "test"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.root:
            raise ConfigError(f"dataset.root is not set: name the folder that holds {self.name}")
        if self.train_images is not None and self.train_images < 2:
            raise ConfigError(f"dataset.train_images = {self.train_images} is wrong: null or at least 2")

    def classes(self) -> tuple[str, ...]:
        source = self._source("train")
        names = getattr(source, "classes", None) or range(int(_labels(source).max()) + 1)
        return tuple(str(name) for name in names)

    def fingerprint(self, split: str) -> str:
        """Of all files below `root` but archives; torchvision is asked only until it finds them complete."""
        names, ready = self._files(), self._folder() / READY
        if not (ready.is_file() and ready.read_text().splitlines() == names):
            self._source("train"), self._source("test")
            names = self._files()
            with contextlib.suppress(OSError):
                ready.write_text("\n".join(names))
        contents = cache.content_hashes(self._folder(), names)
        return digest(
            family="torchvision",
            dataset=self.dataset,
            files=[(name, *content) for name, content in zip(names, contents, strict=True)],
            part=self.test_part if split == "test" else self.train_part,
            train_images=self.train_images,
            split=split,
            split_seed=self.split_seed,
        )

    def _folder(self) -> Path:
        return Path(str(self.root))

    def _files(self) -> list[str]:
        return sorted(
            path.relative_to(self._folder()).as_posix()
            for path in self._folder().rglob("*")
            if path.is_file() and path.suffix not in ARCHIVES and not path.name.startswith(".")
        )

    def records(self, split: str) -> "Source":
        source = self._source("test" if split == "test" else "train")
        labels = _labels(source)
        chosen = np.arange(len(labels), dtype=np.int64)
        if split != "test":
            if self.train_images is not None:
                chosen, _ = draw(labels, min(self.train_images, len(labels)), self.split_seed)
            chosen = chosen[divide(labels[chosen], split, self.split_seed)]
        return Source(source, chosen, labels[chosen])

    def _source(self, part: str) -> Any:
        """torchvision's object for `train` or `test`, downloaded where needed and allowed."""
        known = _class(self.dataset)
        parameters = inspect.signature(known).parameters
        if "train" in parameters:
            chosen: dict[str, object] = {"train": part == "train"}
        elif "split" in parameters:
            chosen = {"split": self.train_part if part == "train" else self.test_part}
        else:
            raise ConfigError(f"dataset.dataset = {self.dataset} has no test images; use imagefolder")
        if "download" in parameters:
            chosen["download"] = self.download
        try:
            with _patience(), contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                source = known(root=str(self._folder()), **chosen)
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            raise DataError(self._unavailable(error)) from None
        return source

    def _unavailable(self, error: Exception) -> str:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        expected = getattr(_class(self.dataset), "base_folder", None) or "the unpacked archive"
        remedy = "check the network" if self.download else "set dataset.download=true"
        return (
            f"{self.dataset} is not complete in {self._folder().absolute()} ({reason})\n"
            f"expected there: {expected}; {remedy}, put it there, or point dataset.root to where it is"
        )


@dataclass(frozen=True, eq=False)
class Source(Records):
    """Some of the images of torchvision's object, by their indices there."""

    source: Any
    chosen: NDArray[np.int64]
    labels: Labels

    def name(self, index: int) -> str:
        return f"image {self.chosen[index]} of {type(self.source).__name__}"

    def image(self, index: int) -> Image.Image:
        image = self.source[int(self.chosen[index])][0]
        assert isinstance(image, Image.Image), type(image)
        return to_rgb(image)


def _class(name: str) -> Any:
    from torchvision import datasets

    known = getattr(datasets, name, None)
    if not isinstance(known, type):
        raise ConfigError(f'torchvision has no dataset "{name}"{near(name, datasets.__all__)}')
    return known


def _labels(source: Any) -> Labels:
    """Labels of a torchvision dataset, from its list of them where it keeps one, else image by image."""
    for attribute in ("targets", "_labels", "labels"):
        held = getattr(source, attribute, None)
        if isinstance(held, Sequence | np.ndarray) or hasattr(held, "tolist"):
            found = np.asarray(held)
            if found.shape == (len(source),) and found.dtype.kind in "iu":
                return found.astype(np.int64)
    return np.array([source[index][1] for index in range(len(source))], dtype=np.int64)


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
