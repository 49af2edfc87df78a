"""Images in files: what families of files have in common, and the one with a folder a class."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pear_cli.data import places
from pear_cli.data.condition import Holding, Problem
from pear_cli.data.dataset import Dataset
from pear_cli.data.images import Records
from pear_cli.data.splits import digest, divide
from pear_cli.data.transforms import SUFFIXES, read
from pear_cli.errors import DataError, near
from pear_cli.store import cache
from pear_cli.system import progress

Listing = list[tuple[str, int]]  # path below the root with "/", label


@dataclass(frozen=True)
class FileDataset(Dataset):
    """Images that are read from files, in the order of their paths.

    Images of any Pillow mode become upright RGB; `pictures.to_rgb` says how.
    """

    def fingerprint(self, split: str) -> str:
        listing = self.listing(split)
        contents = hashed(self.name, self.folder(), [name for name, _ in listing])
        return digest(
            family="files",
            classes=self.classes(),
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
        grave = [problem for problem in problems if problem.kind != "repeated"]
        if grave:
            more = f"\nand {len(grave) - 1} more; pear data verify names them all" if grave[1:] else ""
            raise DataError(f"{self.folder() / grave[0].name}: {grave[0].message}{more}")
        return listing

    def records(self, split: str) -> "Files":
        return Files(self.folder(), self.listing(split))

    def examine(self, split: str) -> tuple[Records, list[Problem]]:
        listing, problems = self.scan(split)
        return Files(self.folder(), listing), problems


def hashed(title: str, folder: Path, names: Sequence[str]) -> list[tuple[int, str]]:
    """Size and SHA-256 of files of a dataset, in their order; see `cache.content_hashes`."""
    with progress.ticker(f"reading {title}", len(names), late=True) as ticker:
        return cache.content_hashes(folder, names, ticker.step)


class Files(Records):
    """Images in files below a folder."""

    def __init__(self, folder: Path, listing: Listing) -> None:
        self.folder, self.names = folder, [name for name, _ in listing]
        self.labels = np.array([label for _, label in listing], dtype=np.int64)

    def name(self, index: int) -> str:
        return self.names[index]

    def image(self, index: int) -> Image.Image:
        return read(self.folder / self.names[index])


@dataclass(frozen=True)
class ImageFolder(FileDataset):
    """One folder a class: `root/train/<class>/**/*.jpg` and `root/test/<class>/**/*.jpg`.

    The classes are the folder names below train, in sorted order. With `root/val` beside train and test,
    train800 is train, val200 is val, and the two together are train800val200; without it, train is divided
    by `split_seed`. With `root/val` and no test, val is the test set and is never trained on. Test and val
    may lack classes. Hidden files, and those that are no images by their suffix, are passed over.

    Raises:
        DataError: a folder that is missing or cannot be read, fewer than two classes, a class folder that is
            empty or that training lacks, an image that cannot be read; the message names it.
    """

    def folder(self) -> Path:
        return existing(self._root(), 'with "train/<class>/" and "test/<class>/" inside')

    def holding(self) -> Holding:
        return Holding((self._root(),), "your own images: set dataset.root")

    def _root(self) -> Path:
        return Path(self.root) if self.root else places.home() / self.name

    def classes(self) -> tuple[str, ...]:
        train = existing(self.folder() / "train", "one folder a class inside")
        names = tuple(folders(train))
        if len(names) < 2:
            found = f"only the class {names[0]!r}" if names else "no class"
            raise DataError(f"{train} has {found}; two class folders or more are needed")
        return names

    def scan(self, split: str) -> tuple[Listing, list[Problem]]:
        root = self.folder()
        has_test, has_val = (root / "test").is_dir(), (root / "val").is_dir()
        if split == "test":
            return self._part("test" if has_test or not has_val else "val")
        if has_test and has_val:
            parts = {"train800": ["train"], "val200": ["val"], "train800val200": ["train", "val"]}[split]
            scans = [self._part(part) for part in parts]
            return sorted(e for found, _ in scans for e in found), [p for _, wrong in scans for p in wrong]
        train, wrong = self._part("train")
        labels = np.array([label for _, label in train], dtype=np.int64)
        return [train[index] for index in divide(labels, split, self.split_seed)], wrong

    def _part(self, part: str) -> tuple[Listing, list[Problem]]:
        root, classes = self.folder(), self.classes()
        folder = existing(root / part, "one folder a class inside")
        index = {name: label for label, name in enumerate(classes)}
        listing: Listing = []
        problems = []
        for name in folders(folder):
            found = [f"{part}/{name}/{image}" for image in _images(folder / name, root)]
            if name not in index:
                hint = near(name, classes)
                message = f"{root / 'train'} has no folder of this class{hint}"
                problems.append(Problem("class", part, f"{part}/{name}", message))
            elif not found:
                message = "class folder has no image; add some or remove the folder"
                problems.append(Problem("class", part, f"{part}/{name}", message))
            else:
                listing += [(image, index[name]) for image in found]
        if not listing and not problems:
            raise DataError(f"{folder} has no class folder")
        return sorted(listing), problems


def existing(folder: Path, content: str) -> Path:
    """The folder, if it is one.

    Args:
        content: what it should have, for the message.
    """
    try:
        if os.path.isdir(folder):
            return folder
        os.stat(folder)
    except PermissionError:
        raise DataError(f"folder {folder} cannot be read: Permission denied") from None
    except OSError:
        raise DataError(
            f"folder {folder} is missing ({content}); set dataset.root or put the files there"
        ) from None
    raise DataError(f"{folder} is a file; a folder is needed there ({content})")


def folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    try:
        return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise DataError(f"folder {folder} cannot be read: {error.strerror}") from None


def _images(folder: Path, root: Path) -> list[str]:
    """Paths of the images below the folder of a class, with "/".

    A link back to the folder of all classes would give this class the images of the others.
    """
    found = places.files(folder, folder.parent, root)
    return [name for name, _ in found if os.path.splitext(name)[1].lower() in SUFFIXES]
