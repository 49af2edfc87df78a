"""VTAB-1k: lists of paths and labels, one folder a task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from pear_cli.config.range import Range
from pear_cli.data import storage
from pear_cli.data.condition import Holding, Problem
from pear_cli.data.files import FileDataset, Listing
from pear_cli.data.lists import Line, read
from pear_cli.data.splits import divide
from pear_cli.data.storage import existing, folders
from pear_cli.errors import ConfigError, DataError, near

# Classes of the 19 tasks of VTAB-1k, by the folder names of the usual archive.
TASKS = {
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
class Vtab(FileDataset):
    """A task of VTAB-1k: `root/<task>/train800.txt`, val200.txt, train800val200.txt and test.txt.

    A line of a list is `path label`, the path relative to the task's folder; it may have spaces in it. A list
    train800val200.txt may be missing where its two parts are there, and the parts where it is there (then
    `split_seed` divides it). Where all three are there, each is read as it stands, with lines that repeat
    others, as the papers' code reads them. Labels count from 0.

    Args:
        task: folder of the task. The classes of VTAB's 19 are known.
        num_classes: classes of another task. With null they are the labels of the training
            lists, which must then be 0, 1, … without gaps.

    Raises:
        ConfigError: fewer than two classes.
        DataError: a list that is missing, a line that is not `path label`, a label out of range, an image
            with two labels, one that is missing or cannot be read; the message names list and line, or file.

    Source: Zhai et al. 2019, arXiv 1910.04867; file lists in the form that the adapter papers' code reads.
    """

    task: str = "cifar"
    num_classes: Annotated[int, Range(2, 100_000)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.task:
            raise ConfigError("dataset.task is empty: name the folder of a task below dataset.root")

    def _root(self) -> Path:
        return Path(self.root) if self.root else storage.home() / "vtab-1k"

    def holding(self) -> Holding:
        return Holding((self._root() / self.task,), "your own copy of the VTAB-1k lists and images")

    def folder(self) -> Path:
        root = existing(self._root(), "with one folder a task inside")
        if not (root / self.task).is_dir():
            found = _tasks(root)
            tasks = ", ".join(found) or "no folder with a test.txt"
            raise DataError(f"no task {self.task!r} in {root}{near(self.task, found) or ';'} found: {tasks}")
        return root / self.task

    def tasks(self) -> Sequence["Vtab"]:
        """This dataset for every task below the root; this one where there is none."""
        root = self._root()
        found = _tasks(root) if root.is_dir() else []
        return [replace(self, name=f"{self.name}/{task}", task=task) for task in found] or [self]

    def classes(self) -> tuple[str, ...]:
        count, wrong = self._count()
        if not count:
            self.listing("train800val200")  # raises the first of its problems
        if wrong:
            raise DataError(f"{self.folder()}: {wrong}")
        return tuple(str(label) for label in range(count))

    def _count(self) -> tuple[int, str]:
        """The number of classes, and what is wrong with it; 0 where the training list has other faults."""
        count = self.num_classes or TASKS.get(self.task)
        if count is None:
            lines, problems = self._lines("train800val200")
            if problems:
                return 0, ""
            labels = {line.label for line in lines}
            count = 1 + max(labels)
            if min(labels) < 0 or len(labels) < count:
                gap = next(label for label in range(len(labels) + 1) if label not in labels)
                without = f" without {gap}" if gap < count else ""
                return count, (
                    f"the training labels go from {min(labels)} to {max(labels)}{without}; "
                    "number the classes from 0 without gaps, or set dataset.num_classes"
                )
        return count, "" if count >= 2 else "there is only one class; two or more are needed"

    def scan(self, split: str) -> tuple[Listing, list[Problem]]:
        lines, problems = self._lines(split)
        count = self.num_classes or TASKS.get(self.task) or 0
        if not problems and not count:
            count, wrong = self._count()
            if wrong:
                problems.append(Problem("label", split, "", wrong))
                count = 0
        seen: dict[str, Line] = {}
        for line in lines:
            if count and not 0 <= line.label < count:
                message = f"label {line.label} of {line.name} is out of range: 0 to {count - 1}"
                problems.append(Problem("label", split, line.place, message))
            first = seen.setdefault(line.name, line)
            if first is not line and first.label != line.label:
                message = f"{line.name} has label {line.label} here and {first.label} in {first.place}"
                problems.append(Problem("label", split, line.place, message))
            elif first is not line:
                problems.append(Problem("repeated", split, line.place, f"repeats {first.place}: {line.name}"))
        return [(line.name, line.label) for line in lines], problems

    def _lines(self, split: str) -> tuple[list[Line], list[Problem]]:
        """The lines of a split, sorted, from its own list or from those that make it up."""
        folder = self.folder()
        if split == "test" or (folder / f"{split}.txt").is_file():
            return read(folder / f"{split}.txt", split)
        if split == "train800val200":
            parts = [read(folder / f"{part}.txt", split) for part in ("train800", "val200")]
            return sorted(parts[0][0] + parts[1][0]), parts[0][1] + parts[1][1]
        if not (folder / "train800val200.txt").is_file():
            raise DataError(f"list {folder / f'{split}.txt'} is missing, and so is train800val200.txt")
        both, problems = read(folder / "train800val200.txt", split)
        labels = np.array([line.label for line in both], dtype=np.int64)
        return [both[index] for index in divide(labels, split, self.split_seed)], problems


def _tasks(root: Path) -> list[str]:
    return [name for name in folders(root) if (root / name / "test.txt").is_file()]
