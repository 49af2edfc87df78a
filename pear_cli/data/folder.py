"""Images in files: what families of files have in common, and the one with a folder a class."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar
from unicodedata import normalize

import numpy as np
from PIL import Image

from pear_cli.config.range import Fraction, Range
from pear_cli.data import places
from pear_cli.data.condition import Holding, Problem, say_once
from pear_cli.data.dataset import Dataset
from pear_cli.data.images import Records
from pear_cli.data.parts import TEST_SEED
from pear_cli.data.splits import digest, divide, draw
from pear_cli.data.transforms import (
    FULL,
    NAMED,
    accept_large,
    is_clutter,
    is_image,
    largest_grey,
    passed_over,
    read,
)
from pear_cli.errors import ConfigError, DataError, near
from pear_cli.store import cache
from pear_cli.system import progress, threads

DEPTHS = (8, 10, 12, 14, 16)  # bits of grey that cameras and scanners have
SPELLINGS = {
    "train": {"train", "training"},
    "val": {"val", "valid", "validation"},
    "test": {"test", "testing"},
}
"""How folders of the splits are called, in lower case."""

Listing = list[tuple[str, int]]  # path below the root with "/", label


@dataclass(frozen=True)
class FileDataset(Dataset):
    """Images that are read from files, in the order of their paths.

    Images of any Pillow mode become upright RGB; `pictures.to_rgb` says how.

    Args:
        grey_range: the value of 16-bit grey that is white, such as 255, 4095 or 65535; null takes the
            smallest of 8, 10, 12, 14 or 16 bits that holds all training images.
    """

    in_the_fingerprint: ClassVar[tuple[str, ...]] = ("grey_range",)
    grey_range: Annotated[int, Range(1, 2**31 - 1)] | None = None

    def fingerprint(self, split: str) -> str:
        listing = self.listing(split)
        contents = hashed(self.name, self.folder(), [name for name, _ in listing])
        white = self.white()
        return digest(
            family="files",
            classes=self.classes(),
            **({} if white in (None, FULL) else {"grey_range": white}),
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
        grave = [problem for problem in problems if problem.kind not in ("repeated", "skipped")]
        if grave:
            more = f"\nand {len(grave) - 1} more; pear data verify names them all" if grave[1:] else ""
            raise DataError(f"{self.folder() / grave[0].name}: {grave[0].message}{more}")
        if skipped := [problem.name for problem in problems if problem.kind == "skipped"]:
            say_once(f"{self.folder()}: {passed_over(skipped)}")
        return listing

    def records(self, split: str) -> "Files":
        return Files(self.folder(), self.listing(split), self.white())

    def examine(self, split: str) -> tuple[Records, list[Problem]]:
        listing, problems = self.scan(split)
        return Files(self.folder(), listing, self.white()), problems

    def white(self) -> int | None:
        if self.grey_range is not None:
            return self.grey_range
        try:
            root, names = self.folder(), [name for name, _ in self.scan("train800val200")[0]]
            contents = hashed(self.name, root, names)
        except DataError:  # whoever needs these images says so
            return None
        key = digest(family="grey", contents=[content for _, content in contents])
        facts = cache.recall(key)
        if not facts:
            accept_large()
            found = list(threads.each(largest_grey, [root / name for name in names]))
            deep = [largest for largest in found if largest is not None]
            facts = {"images": len(deep), "largest": max(deep, default=0)}
            cache.remember(key, facts)
        if not facts["images"]:
            return None
        white = next((2**bits - 1 for bits in DEPTHS if facts["largest"] < 2**bits), 2**31 - 1)
        say_once(
            f"{root}: {facts['images']} of {len(names)} training images are grey of more than 8 bits, with "
            f"values up to {facts['largest']}: {white} is white; dataset.grey_range sets another value"
        )
        return white


def hashed(title: str, folder: Path, names: Sequence[str]) -> list[tuple[int, str]]:
    """Size and SHA-256 of files of a dataset, in their order; see `cache.content_hashes`."""
    with progress.ticker(f"reading {title}", len(names), late=True) as ticker:
        return cache.content_hashes(folder, names, ticker.step)


class Files(Records):
    """Images in files below a folder."""

    def __init__(self, folder: Path, listing: Listing, grey_range: int | None = None) -> None:
        self.grey_range = grey_range
        self.folder, self.names = folder, [name for name, _ in listing]
        self.labels = np.array([label for _, label in listing], dtype=np.int64)

    def name(self, index: int) -> str:
        return self.names[index]

    def image(self, index: int) -> Image.Image:
        return read(self.folder / self.names[index], self.grey_range)

    def check(self, index: int) -> None:
        read(self.folder / self.names[index], self.grey_range, small=True)


@dataclass(frozen=True)
class ImageFolder(FileDataset):
    """One folder a class: `root/train/<class>/**/*.jpg` and `root/test/<class>/**/*.jpg`.

    The classes are the folder names below train, in sorted order; two Unicode spellings of a name
    are one class. With `root/val` beside train and test,
    train800 is train, val200 is val, and the two together are train800val200; without it, train is divided
    by `split_seed`. With `root/val` and no test, val is the test set and is never trained on. Test and val
    may lack classes. Other usual spellings (`SPELLINGS`, in upper or lower case) are found too. Hidden files
    are passed over in silence, those that are not images by their suffix with a note.

    Args:
        test_share: the share of each class of the training images that is the test set, where no folder is;
            the classes may then lie directly in the root. The draw has a fixed seed.

    Raises:
        ConfigError: a test share beside a test folder.
        DataError: a folder that is missing or cannot be read, fewer than two classes, a class folder that is
            empty or that training lacks, an image that cannot be read; the message names it.
    """

    in_the_fingerprint: ClassVar[tuple[str, ...]] = ("grey_range", "test_share")
    test_share: Fraction | None = None

    def folder(self) -> Path:
        return existing(self._root(), 'with "train/<class>/" and "test/<class>/" inside')

    def holding(self) -> Holding:
        return Holding((self._root(),), "your own images: set dataset.root")

    def _root(self) -> Path:
        return Path(self.root) if self.root else places.home() / self.name

    def classes(self) -> tuple[str, ...]:
        train = self._training()
        names = tuple(sorted({normalize("NFC", name) for name in folders(train)}))
        if len(names) < 2:
            found = f"only the class {names[0]!r}" if names else "no class"
            raise DataError(f"{train} has {found}; two class folders or more are needed")
        return names

    def scan(self, split: str) -> tuple[Listing, list[Problem]]:
        parts = self._parts()
        if self.test_share is not None and "test" in parts:
            raise ConfigError(
                f"dataset.test_share = {self.test_share} has no use: {parts['test']} is the test set; "
                "leave it out"
            )
        if split == "test" and self.test_share is None:
            return self._part(parts.get("test") or parts.get("val") or self._untested())
        if "val" in parts and ("test" in parts or self.test_share is not None) and split == "val200":
            return self._part(parts["val"])
        train, problems = self._part(self._training())
        labels = np.array([label for _, label in train], dtype=np.int64)
        if self.test_share is not None:
            test, rest = draw(labels, round(self.test_share * len(labels)), TEST_SEED)
            train, labels = [train[i] for i in (test if split == "test" else rest)], labels[rest]
            if split == "test":
                return train, problems
        if "val" in parts and ("test" in parts or self.test_share is not None):
            val, wrong = self._part(parts["val"]) if split == "train800val200" else ([], [])
            return sorted(train + val), problems + wrong
        return [train[index] for index in divide(labels, split, self.split_seed)], problems

    def _parts(self) -> dict[str, Path]:
        """The folders of train, val and test that are there, however they are spelled."""
        root = self.folder()
        found: dict[str, Path] = {}
        for name in folders(root):
            part = next((part for part, names in SPELLINGS.items() if name.lower() in names), None)
            if part in found:
                raise DataError(f"{root} has both {found[part].name!r} and {name!r}; keep one of them")
            if part is not None:
                found[part] = root / name
        return found

    def _training(self) -> Path:
        """The folder with the classes that train."""
        root, parts = self.folder(), self._parts()
        if "train" in parts:
            return parts["train"]
        classes = [] if parts else folders(root)
        if len(classes) > 1 and self.test_share is not None:
            return root
        if len(classes) > 1:
            raise DataError(
                f"folder {root / 'train'} is missing; if the folders of {root} are classes "
                f"({', '.join(classes[:NAMED])}{', …' if classes[NAMED:] else ''}), dataset.test_share=0.2 "
                "tests on a fifth of each and trains on the others"
            )
        return existing(root / "train", "one folder a class inside")

    def _untested(self) -> Path:
        """Refuse images without a test set."""
        train = self._training()
        raise DataError(
            f"folder {train.parent / 'test'} is missing (one folder a class inside); put it there, or set "
            f"dataset.test_share=0.2 to test on a fifth of {train.name}"
        )

    def _part(self, folder: Path) -> tuple[Listing, list[Problem]]:
        root, classes = self.folder(), self.classes()
        part = "" if folder == root else folder.name
        prefix = f"{part}/" if part else ""
        index = {name: label for label, name in enumerate(classes)}
        listing: Listing = []
        problems = []
        skipped = [f"{prefix}{name}" for name in _loose(folder)]
        for name in folders(folder):
            images, others = _files(folder / name, root)
            skipped += [f"{prefix}{name}/{other}" for other in others]
            label = index.get(normalize("NFC", name))
            if label is None:
                hint = near(name, classes)
                message = f"{self._training()} has no folder of this class{hint}"
                problems.append(Problem("class", part, f"{prefix}{name}", message))
            elif not images:
                message = "class folder has no image; add some or remove the folder"
                if others:
                    message += f"; {passed_over(others)}"
                problems.append(Problem("class", part, f"{prefix}{name}", message))
            else:
                listing += [(f"{prefix}{name}/{image}", label) for image in images]
        if not listing and not problems:
            raise DataError(f"{folder} has no class folder")
        for name in sorted(skipped):
            remedy = "convert it to PNG or JPEG, or move it away"
            if is_image(name):
                remedy = "it lies in no class folder; move it into one"
            problems.append(Problem("skipped", part, name, f"passed over: {remedy}"))
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


def _loose(folder: Path) -> list[str]:
    """Names of the images that lie beside the folders in a folder."""
    names = (e.name for e in os.scandir(folder) if not e.is_dir() and not e.name.startswith("."))
    return sorted(name for name in names if is_image(name))


def _files(folder: Path, root: Path) -> tuple[list[str], list[str]]:
    """Paths, with "/", of the images below the folder of a class, and of the other files there.

    A link back to the folder of all classes would give this class the images of the others.
    """
    images: list[str] = []
    others: list[str] = []
    around = (root,) if folder.parent == root else (folder.parent, root)
    for name, _ in places.files(folder, *around):
        if is_image(name):
            images.append(name)
        elif not is_clutter(name):
            others.append(name)
    return images, others
