"""The condition of a dataset: where it is kept, and what is wrong with it."""

import functools
from dataclasses import dataclass
from pathlib import Path

from pear_cli.system import progress

KINDS = (
    "missing",  # a file, a list or the whole dataset
    "unreadable",  # an image that cannot be decoded
    "list",  # a line that is not `path label`
    "repeated",  # a line that is in the list already
    "label",  # one out of range, or a second one for the same image
    "class",  # a class without images, or that training does not have
    "skipped",  # a file that is passed over, as no image by its suffix
    "duplicate",  # one picture in two splits
    "count",  # another number of images than published
    "checksum",  # another content than published
)


@dataclass(frozen=True)
class Holding:
    """Where a dataset is kept.

    Args:
        places: the files and folders that hold it; none where they are not known yet, null for a dataset
            that comes with pear.
        source: where it comes from, in words or as an address.
    """

    places: tuple[Path, ...] | None
    source: str

    @property
    def present(self) -> bool:
        """Whether all places are there; what is in them is another question."""
        return self.places is None or (bool(self.places) and all(place.exists() for place in self.places))


@dataclass(frozen=True)
class Problem:
    """Something wrong with a dataset.

    Args:
        kind: one of `KINDS`.
        split: where it was found; "" for the dataset as a whole.
        name: the file, class or line.
        message: what is wrong with it, in one line that does not repeat the name.
    """

    kind: str
    split: str
    name: str
    message: str


@functools.cache
def say_once(text: str) -> None:
    """Say something of a dataset on stderr, the first time that this process comes upon it."""
    progress.say(text)
