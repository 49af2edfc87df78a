"""Everything that is wrong with a dataset, found by decoding every image."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np

from pear_cli import parallel
from pear_cli.data.base import Dataset, Records
from pear_cli.data.condition import Problem
from pear_cli.data.folder import Files
from pear_cli.errors import DataError

Seen = dict[bytes, tuple[str, str]]  # content of a picture: its split and name


class Findings:
    """What is wrong with a dataset; what its lists say is known at once, what its images say by `decoded`.

    Args:
        dataset: any one; it is downloaded where that is needed and allowed.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.parts: list[tuple[str, Records, list[int]]] = []
        found: dict[tuple[str, str, str], Problem] = {}
        names: set[str] = set()

        def note(problem: Problem) -> None:
            found.setdefault((problem.kind, problem.name, problem.message), problem)

        for split in ("train800", "val200", "test", "train800val200"):
            try:
                records, problems = dataset.examine(split)
            except DataError as error:
                note(_missing(split, error))
                continue
            for problem in problems:
                note(problem)
            rows = range(len(records))
            if split == "train800val200":  # the two others, unless a list of its own has further ones
                rows = range(0) if not isinstance(records, Files) else rows
                self.parts.append((split, records, [row for row in rows if records.name(row) not in names]))
                for problem in _without_images(dataset, records, bool(found)):
                    note(problem)
            else:
                self.parts.append((split, records, list(rows)))
                names.update(map(records.name, rows))
        with suppress(DataError):  # it is noted already
            for problem in dataset.compare():
                note(problem)
        self.listed = list(found.values())

    @property
    def images(self) -> int:
        """How many images are decoded."""
        return sum(len(rows) for _, _, rows in self.parts)

    def decoded(self, step: Callable[[], None]) -> Iterator[Problem]:
        """Decode every image; what is wrong with it, or that another split has the same picture.

        Args:
            step: called after each image.
        """
        seen: Seen = {}
        for split, records, rows in self.parts:
            own: Seen = {}
            for row, found in zip(rows, parallel.each(_decoder(split, records), rows), strict=True):
                step()
                name = records.name(row)
                if isinstance(found, Problem):
                    yield found
                elif found in seen:
                    first, other = seen[found]
                    yield Problem("duplicate", split, name, f"the same picture as {other} ({first})")
                else:
                    own.setdefault(found, (split, name))
            seen |= own


def _decoder(split: str, records: Records) -> Callable[[int], bytes | Problem]:
    def decode(row: int) -> bytes | Problem:
        try:
            image = records.image(row)
        except DataError as error:
            name = records.name(row)
            message = str(error).partition(name)[2].strip() or str(error)
            return Problem("missing" if "is missing" in message else "unreadable", split, name, message)
        return hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()

    return decode


def _without_images(dataset: Dataset, records: Records, noted: bool) -> Iterator[Problem]:
    """The classes that no training image has."""
    try:
        classes = dataset.classes()
    except DataError as error:
        if not noted:  # else it may follow from what is
            yield _missing("train800val200", error)
        return
    counts = np.bincount(records.labels[records.labels >= 0], minlength=len(classes))
    for label, name in enumerate(classes):
        if not counts[label]:
            yield Problem("class", "train800val200", name, "no training image has this class")


def _missing(split: str, error: DataError) -> Problem:
    return Problem("missing", split, "", " ".join(str(error).split("\n")))
