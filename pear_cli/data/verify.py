"""Everything that is wrong with a dataset, found by decoding every image."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np

from pear_cli.data import transforms
from pear_cli.data.condition import Problem
from pear_cli.data.dataset import Dataset
from pear_cli.data.files import Files
from pear_cli.data.images import Records
from pear_cli.data.parts import Parted
from pear_cli.errors import AlteredFile, DataError
from pear_cli.system import threads

NAMED = 20  # things that are wrong, in one error

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
            except AlteredFile:  # `compare` names every such file
                continue
            except DataError as error:
                note(_missing(split, error))
                if isinstance(dataset, Parted):  # a download is tried once
                    dataset = replace(dataset, download=False)
                continue
            for problem in problems:
                note(problem)
            rows = range(len(records))
            if split == "train800val200":  # the two others, unless a list of its own has further ones
                rows = range(0) if not isinstance(records, Files) else rows
                self.parts.append((split, records, [row for row in rows if records.name(row) not in names]))
                for problem in self._without_images(dataset, records, bool(found)):
                    note(problem)
            else:
                self.parts.append((split, records, list(rows)))
                names.update(map(records.name, rows))
        with suppress(DataError):  # it is noted already
            for problem in dataset.compare():
                note(problem)
        self.listed = list(found.values())

    def _without_images(self, dataset: Dataset, training: Records, noted: bool) -> Iterator[Problem]:
        """The classes that no training image has, and those of the others that no test image has."""
        try:
            classes = dataset.classes()
        except DataError as error:
            if not noted:  # else it may follow from what is
                yield _missing("train800val200", error)
            return
        tested = next((records for split, records, _ in self.parts if split == "test"), None)
        counts = [
            np.bincount(records.labels[records.labels >= 0], minlength=len(classes))
            for records in (training, tested or training)
        ]
        for label, name in enumerate(classes):
            if not counts[0][label]:
                yield Problem("class", "train800val200", name, "no training image has this class")
            elif not counts[1][label]:
                yield Problem("class", "test", name, "no test image has this class, which training has")

    @property
    def images(self) -> int:
        """How many images are decoded."""
        return sum(len(rows) for _, _, rows in self.parts)

    def absent(self) -> Iterator[Problem]:
        """The files of images that are not there, known without decoding any."""
        for split, records, rows in self.parts:
            if isinstance(records, Files):
                for name in (records.names[row] for row in rows):
                    if not (records.folder / name).is_file():
                        yield Problem("missing", split, name, "there is no such file")

    def decoded(self, step: Callable[[], None]) -> Iterator[Problem]:
        """Decode every image; what is wrong with it, or that another split has the same picture.

        Args:
            step: called after each image.
        """
        transforms.accept_large()
        seen: Seen = {}
        for split, records, rows in self.parts:
            own: Seen = {}
            for row, found in zip(rows, threads.each(_decoder(split, records), rows), strict=True):
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


def all_at_once(dataset: Dataset, error: DataError) -> DataError:
    """The error that names all that is wrong with a dataset, in place of one that names the first thing.

    Nothing is downloaded or decoded for it.
    """
    if isinstance(dataset, Parted):
        dataset = replace(dataset, download=False)
    findings = Findings(dataset)
    problems = [problem for problem in (*findings.listed, *findings.absent()) if problem.name]
    if len(problems) < 2:
        return error
    lines = [f"{problem.name}: {problem.message}" for problem in problems[:NAMED]]
    if problems[NAMED:]:
        lines.append(f"and {len(problems) - NAMED} more; pear data verify names them all")
    return DataError(f"{len(problems)} things are wrong with {dataset.name}", *lines)


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


def _missing(split: str, error: DataError) -> Problem:
    return Problem("missing", split, "", " ".join(str(error).split("\n")))
