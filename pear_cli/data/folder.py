"""Images in files: one folder a class, or VTAB-1k's lists of paths and labels."""

import os
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from pear_cli.data import cache
from pear_cli.data.base import Dataset, Records, digest, divide
from pear_cli.data.pictures import SUFFIXES, read
from pear_cli.errors import ConfigError, DataError, near

Listing = list[tuple[str, int]]  # path below the root with "/", label

# Classes of the 19 tasks of VTAB-1k, by the folder names of the usual archive.
VTAB = {
    "caltech101": 102,
    "cifar": 100,
    "clevr_count": 8,
    "clevr_dist": 6,
    "diabetic_retinopathy": 5,
    "dmlab": 6,
    "dsprites_loc": 16,
    "dsprites_ori": 16,
    "dtd": 47,
    "eurosat": 10,
    "kitti": 4,
    "oxford_flowers102": 102,
    "oxford_iiit_pet": 37,
    "patch_camelyon": 2,
    "resisc45": 45,
    "smallnorb_azi": 18,
    "smallnorb_ele": 9,
    "sun397": 397,
    "svhn": 10,
}


@dataclass(frozen=True)
class FileDataset(Dataset):
    """Images that are read from files below `root`, in the order of their paths.

    Images of any Pillow mode become upright RGB; `pictures.to_rgb` says how.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.root:
            raise ConfigError(f"dataset.root is not set: name the folder that holds {self.name}")

    def fingerprint(self, split: str) -> str:
        listing = self.listing(split)
        contents = cache.content_hashes(self.folder(), [name for name, _ in listing])
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
    def listing(self, split: str) -> Listing:
        """The files of a split with their labels, sorted."""

    def records(self, split: str) -> "Files":
        return Files(self.folder(), self.listing(split))


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
    by `split_seed`. With `root/val` and no test, val is the test set and is never trained on.

    Raises:
        ConfigError: no root.
        DataError: a folder that is missing or empty, fewer than two classes, a class that training lacks,
            an image that cannot be read; the message names it.
    """

    def folder(self) -> Path:
        return _existing(Path(str(self.root)), 'with "train/<class>/" and "test/<class>/" inside')

    def classes(self) -> tuple[str, ...]:
        names = tuple(_folders(_existing(self.folder() / "train", "one folder a class inside")))
        if len(names) < 2:
            found = f"only the class {names[0]!r}" if names else "no class"
            raise DataError(f"{self.folder() / 'train'} has {found}; two class folders or more are needed")
        return names

    def listing(self, split: str) -> Listing:
        root = self.folder()
        has_test, has_val = (root / "test").is_dir(), (root / "val").is_dir()
        if split == "test":
            return self._part("test" if has_test or not has_val else "val")
        if has_test and has_val:
            parts = {"train800": ["train"], "val200": ["val"], "train800val200": ["train", "val"]}[split]
            return sorted(entry for part in parts for entry in self._part(part))
        train = self._part("train")
        labels = np.array([label for _, label in train], dtype=np.int64)
        return [train[index] for index in divide(labels, split, self.split_seed)]

    def _part(self, part: str) -> Listing:
        folder = _existing(self.folder() / part, "one folder a class inside")
        classes = self.classes()
        listing: Listing = []
        for name in _folders(folder):
            if name not in classes:
                train = self.folder() / "train"
                raise DataError(
                    f"{train} has no folder of the class {name!r}, which is in {folder}{near(name, classes)}"
                )
            images = _images(folder / name)
            if not images:
                raise DataError(f"class folder {folder / name} has no image; add some or remove the folder")
            listing += [(f"{part}/{name}/{image}", classes.index(name)) for image in images]
        if not listing:
            raise DataError(f"{folder} has no class folder")
        return sorted(listing)


@dataclass(frozen=True)
class Vtab(FileDataset):
    """A task of VTAB-1k: `root/<task>/train800.txt`, val200.txt, train800val200.txt and test.txt.

    A line of a list is `path label`, the path relative to the task's folder. A list train800val200.txt
    may be missing where its two parts are there, and the parts where it is there (then `split_seed`
    divides it). Where all three are there, each is read as it stands.

    Args:
        task: folder of the task. The classes of VTAB's 19 are known.
        num_classes: classes of another task, at least 2; null takes the largest label of the training
            lists plus one.

    Raises:
        ConfigError: no root, fewer than two classes.
        DataError: a list that is missing, a line that is not `path label`, a label out of range, an image
            that is missing or cannot be read; the message names the file.

    Source: Zhai et al. 2019, arXiv 1910.04867; file lists in the form that the adapter papers' code reads.
    """

    task: str = "cifar"
    num_classes: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.task:
            raise ConfigError("dataset.task is empty: name the folder of a task below dataset.root")
        if self.num_classes is not None and self.num_classes < 2:
            raise ConfigError(f"dataset.num_classes = {self.num_classes} is wrong: null or at least 2")

    def folder(self) -> Path:
        root = _existing(Path(str(self.root)), "with one folder a task inside")
        if not (root / self.task).is_dir():
            found = [name for name in _folders(root) if (root / name / "test.txt").is_file()]
            tasks = ", ".join(found) or "no folder with a test.txt"
            raise DataError(f"no task {self.task!r} in {root}{near(self.task, found) or ';'} found: {tasks}")
        return root / self.task

    def classes(self) -> tuple[str, ...]:
        count = self.num_classes or VTAB.get(self.task)
        if count is None:
            count = 1 + max(label for _, label in self._lines("train800val200"))
        if count < 2:
            raise DataError(f"{self.folder()} has only one class; two or more are needed")
        return tuple(str(label) for label in range(count))

    def listing(self, split: str) -> Listing:
        listing, count = self._lines(split), len(self.classes())
        for name, label in listing:
            if not 0 <= label < count:
                raise DataError(
                    f"label {label} of {self.folder() / name} ({split}) is out of range: 0 to {count - 1}"
                )
        return listing

    def _lines(self, split: str) -> Listing:
        """The entries of a split, sorted, from its own list or from those that make it up."""
        folder = self.folder()
        if split == "test" or (folder / f"{split}.txt").is_file():
            return _parse(folder / f"{split}.txt")
        if split == "train800val200":
            return sorted(_parse(folder / "train800.txt") + _parse(folder / "val200.txt"))
        if not (folder / "train800val200.txt").is_file():
            raise DataError(f"list {folder / f'{split}.txt'} is missing, and so is train800val200.txt")
        both = _parse(folder / "train800val200.txt")
        labels = np.array([label for _, label in both], dtype=np.int64)
        return [both[index] for index in divide(labels, split, self.split_seed)]


def _parse(path: Path) -> Listing:
    """The `path label` lines of a list, sorted; blank lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"list {path} cannot be read: {reason}; its lines are `path label`") from None
    listing: Listing = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.lstrip("-").isdecimal():
            raise DataError(f"{path}, line {number}: {line.strip()!r} is not `path label`")
        inside = PurePosixPath(name.strip())
        if inside.is_absolute() or ".." in inside.parts:
            raise DataError(f"{path}, line {number}: {name} leaves the task's folder; use a path below it")
        listing.append((str(inside), int(label)))
    if not listing:
        raise DataError(f"list {path} is empty; its lines are `path label`")
    return sorted(listing)


def _existing(folder: Path, content: str) -> Path:
    if folder.is_dir():
        return folder
    raise DataError(f"folder {folder} is missing ({content}); set dataset.root or put the files there")


def _folders(folder: Path) -> list[str]:
    return sorted(place.name for place in folder.iterdir() if place.is_dir() and place.name[0] != ".")


def _images(folder: Path) -> list[str]:
    """Paths of the images below a folder, with "/"."""
    found = []
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                found.append((Path(place) / name).relative_to(folder).as_posix())
    return found
