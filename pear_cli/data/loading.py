"""From records to pixels at a model's input size: in memory, in a file, or as they are asked for.

The three give the same bytes in the same order. What they are is a `Split`; the engine makes batches of it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from pear_cli.config.choices import Caching
from pear_cli.data import disk_cache
from pear_cli.data.dataset import Dataset
from pear_cli.data.decoding import Streamed, held
from pear_cli.data.images import Indices, Labels, Pixels
from pear_cli.data.preparation import Preparation
from pear_cli.errors import DataError
from pear_cli.store import cache
from pear_cli.system import progress
from pear_cli.system.environment import memory

MEMORY_SHARE = 0.25  # of the machine's memory, for one split; another one is often held beside it
DISK_SHARE = 0.5  # of what is free where the cache lies


class Split(Protocol):
    """The images of a split, ready for a model but for normalisation, with their labels (N,)."""

    @property
    def labels(self) -> Labels: ...

    def read(self, indices: Iterable[Indices]) -> Iterator[Pixels]:
        """The images (B, size, size, 3) of each of these batches of indices, in order."""
        ...


def load(dataset: Dataset, split: str, preparation: Preparation, workers: int = 0) -> Split:
    """Make a split ready, as `dataset.cache` says.

    `ram` decodes it now and holds it in memory; `disk` decodes it once, into a file of the cache that later
    runs map into memory; `none` decodes every image whenever it is asked for. `auto` is `ram` where the split
    takes at most a quarter of the memory, else `disk` where it takes at most half of what is free there, else
    `none`. Where a file cannot be written, a note says so, and `ram` or `none` serves.

    Args:
        split: one of `SPLITS`.
        preparation: what the images become.
        workers: processes that decode ahead for `none`; 0 takes threads of this one.

    Raises:
        DataError: files that are missing, unreadable or altered; the message names them.
    """
    records = dataset.records(split)
    if not len(records):
        raise DataError(
            f"{split} of {dataset.name} has no image: too few are there to be divided; add images, or use "
            "train_split=train800val200 without select=val"
        )
    size = len(records) * 3 * preparation.size**2
    caching = choose(size) if dataset.cache is Caching.auto else dataset.cache
    if caching is Caching.disk:
        try:
            return disk_cache.open_or_build(dataset.fingerprint(split), records, preparation)
        except OSError as error:
            caching = Caching.ram if size <= MEMORY_SHARE * memory() else Caching.none
            reason = error.strerror or str(error)
            progress.say(f"no cache of {split} in {cache.folder()} ({reason}); using {caching.value} instead")
    if caching is Caching.ram:
        return held(records, preparation, dataset.classes())
    if dataset.cache is Caching.auto:
        progress.say(f"{split} takes {progress.size(size)} decoded: it is decoded again in every epoch")
    return Streamed(records, preparation, workers)


def choose(size: int) -> Caching:
    """Where `auto` keeps a split of `size` bytes."""
    if size <= MEMORY_SHARE * memory():
        return Caching.ram
    return Caching.disk if size <= DISK_SHARE * cache.free() else Caching.none


@dataclass(frozen=True, eq=False)
class Repeated:
    """A streamed split that keeps the batches that it has decoded, for those who ask for them again.

    Args:
        kept: the images of a batch by its indices.
    """

    split: Streamed
    kept: dict[bytes, Pixels] = field(default_factory=dict)

    @property
    def labels(self) -> Labels:
        return self.split.labels

    def read(self, indices: Iterable[Indices]) -> Iterator[Pixels]:
        wanted = [(index.tobytes(), index) for index in indices]
        fresh = self.split.read({name: index for name, index in wanted if name not in self.kept}.values())
        for name, _ in wanted:
            if name not in self.kept:
                self.kept[name] = next(fresh)
            yield self.kept[name]


def repeated(split: Split, images: int) -> Split:
    """The split, `images` of which are read several times: streamed ones are decoded once, if they fit."""
    if isinstance(split, Streamed) and images * 3 * split.preparation.size**2 <= MEMORY_SHARE * memory():
        return Repeated(split)
    return split
