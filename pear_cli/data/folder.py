"""Image folders: one folder a class."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from unicodedata import normalize

import numpy as np

from pear_cli.config.range import Fraction
from pear_cli.data import storage
from pear_cli.data.condition import Holding, Problem
from pear_cli.data.files import FileDataset, Listing
from pear_cli.data.parts import TEST_SEED
from pear_cli.data.splits import divide, draw
from pear_cli.data.storage import existing, folders
from pear_cli.data.transforms import NAMED, is_clutter, is_image, passed_over
from pear_cli.errors import ConfigError, DataError, near

PRESET = "imagefolder"
"""The name that says nothing."""
SPELLINGS = {
    "train": {"train", "training"},
    "val": {"val", "valid", "validation"},
    "test": {"test", "testing"},
}
"""How folders of the splits are called, in lower case."""


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

    @property
    def title(self) -> str:
        """The name that was given, else that of the folder."""
        return self.name if self.name != PRESET or not self.root else Path(self.root).resolve().name

    def folder(self) -> Path:
        return existing(self._root(), 'with "train/<class>/" and "test/<class>/" inside')

    def holding(self) -> Holding:
        return Holding((self._root(),), "your own images: set dataset.root")

    def _root(self) -> Path:
        return Path(self.root) if self.root else storage.home() / self.name

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
    for name, _ in storage.files(folder, *around):
        if is_image(name):
            images.append(name)
        elif not is_clutter(name):
            others.append(name)
    return images, others
