"""Images that another library keeps in rows: their bytes, and what is known of them without that library."""

import hashlib
import io
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pear_cli.data import storage
from pear_cli.data.images import Labels, Records
from pear_cli.data.parts import Parted
from pear_cli.data.splits import digest
from pear_cli.data.transforms import FULL, brightest, reason, to_rgb
from pear_cli.errors import DataError
from pear_cli.store import cache
from pear_cli.system import progress, threads

DIM = (FULL + 1) // 2
"""Below it the largest value of images in 16 bits is not that of white: they hold fewer bits."""


class Rows(Records):
    """A part of a dataset as another library has it.

    Args:
        title: of the part, for messages.
        get: the encoded bytes of the image of a row, or a decoded image; it can be pickled.
        labels: N, the number of the class of each row.
        classes: their names; None where they are only numbered.
        files: the files and folders on this machine that hold the rows; none where nobody knows.
        file: the file of a row, for messages; None where rows have no files of their own.
    """

    def __init__(
        self,
        title: str,
        get: Callable[[int], "bytes | Image.Image"],
        labels: Labels,
        classes: Sequence[str] | None,
        files: Sequence[Path] = (),
        file: Callable[[int], str] | None = None,
    ) -> None:
        end = labels.max(initial=0) + 1 if classes is None else len(classes)
        wrong = np.flatnonzero((labels < 0) | (labels >= end))
        if len(wrong):
            raise DataError(
                f"{title}: row {wrong[0]} has label {labels[wrong[0]]}, outside 0 to {end - 1}, as have "
                f"{len(wrong)} of {len(labels)} rows; -1 stands for none"
            )
        self.title, self.get, self.labels, self.file = title, get, labels, file
        self.classes = None if classes is None else tuple(classes)
        self.files = tuple(files)

    def name(self, index: int) -> str:
        return f"row {index} of {self.title}" + (f", {self.file(index)}" if self.file else "")

    def image(self, index: int) -> Image.Image:
        try:
            content = self.get(index)
            return to_rgb(_opened(content))
        except Exception as error:  # decoders and other people's readers raise anything
            raise DataError(
                f"{self.name(index)} cannot be read: {reason(error)}; replace or remove it"
            ) from None

    def content(self, step: Callable[[], None]) -> str:
        """SHA-256, in hex, of all labels and of what the rows hold.

        Args:
            step: called after each row.
        """
        whole, greys = hashlib.sha256(), list[int]()
        contents = threads.each(self._content, range(len(self)))
        for label, (sha256, grey) in zip(self.labels, contents, strict=True):
            whole.update(f"{label} {sha256}\n".encode())
            greys += [] if grey is None else [grey]
            step()
        if greys and max(greys) < DIM:
            raise DataError(
                f"{self.title}: {len(greys)} of {len(self)} images are grey of 16 bits with values up to "
                f"{max(greys)}, and would be nearly black",
                "save them as files: dataset=imagefolder finds their range, and dataset.grey_range sets it",
            )
        return whole.hexdigest()

    def _content(self, index: int) -> tuple[str, int | None]:
        """SHA-256 of the image of a row, and its largest value where it is grey of more than 8 bits."""
        try:
            held = self.get(index)
        except Exception as error:
            raise DataError(f"{self.name(index)} cannot be read: {reason(error)}") from None
        grey = None
        with suppress(Exception):  # whoever needs a damaged image names it, see `image`
            grey = brightest(_opened(held))
        if isinstance(held, Image.Image):
            held = f"{held.mode} {held.size} ".encode() + held.tobytes()
        return hashlib.sha256(held).hexdigest(), grey


def _opened(content: bytes | Image.Image) -> Image.Image:
    return content if isinstance(content, Image.Image) else Image.open(io.BytesIO(content))


@dataclass(frozen=True)
class RowDataset(Parted):
    """A dataset in the rows of another library.

    Its fingerprint is of the content of all rows. It is remembered until a file that holds them changes, and
    the library is asked again only then.
    """

    @abstractmethod
    def part(self, name: str) -> Rows: ...

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What, beside the name of a part, determines which rows the library is asked for."""

    def classes(self) -> tuple[str, ...]:
        return tuple(self._facts()["classes"])

    def fingerprint(self, split: str) -> str:
        facts = self._facts()
        return digest(
            family="rows",
            classes=facts["classes"],
            content=facts["content"],
            split=split,
            **self.division(),
        )

    def known_files(self) -> tuple[Path, ...]:
        """The files that held the rows when they were last read; none where that is not remembered."""
        return tuple(map(Path, cache.recall(self._key()).get("files", ())))

    def _key(self) -> str:
        # "grey": what was remembered before 16-bit grey was checked is read again
        return digest(family=type(self).__name__, parts=self.part_names, grey="checked", **self.identity())

    def _facts(self) -> dict[str, Any]:
        return storage.recall(self._key()) or self._read()

    def _read(self) -> dict[str, Any]:
        parts = [self.part(name) for name in self.part_names]
        if any(part.classes != parts[0].classes for part in parts):
            raise DataError(f"{self.name}: the classes of its parts differ: {', '.join(self.part_names)}")
        largest = max(int(part.labels.max(initial=0)) for part in parts)
        classes = list(parts[0].classes or map(str, range(largest + 1)))

        def read() -> dict[str, Any]:
            with progress.ticker(f"reading {self.name}", sum(map(len, parts)), late=True) as ticker:
                return {"classes": classes, "content": [part.content(ticker.step) for part in parts]}

        return storage.remembered(self._key(), sorted({file for part in parts for file in part.files}), read)
