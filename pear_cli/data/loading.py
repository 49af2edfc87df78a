"""From records to pixels at a model's input size: in memory, in a file, or as they are asked for.

The three give the same bytes in the same order. What they are is a `Split`; the engine makes batches of it.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pear_cli.config.choices import Caching
from pear_cli.data import transforms as pictures
from pear_cli.data.dataset import Dataset, Images, Indices, Labels, Pixels, Records
from pear_cli.data.transforms import Preparation
from pear_cli.errors import DataError
from pear_cli.store import cache as hashes
from pear_cli.system import progress
from pear_cli.system.environment import memory as _memory

MEMORY_SHARE = 0.25  # of the machine's memory, for one split; another one is often held beside it
DISK_SHARE = 0.5  # of what is free where the cache lies
AT_ONCE = 16  # images a thread decodes before it says so


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
    from pear_cli.data import disk_cache as stored

    records = dataset.records(split)
    size = len(records) * 3 * preparation.size**2
    caching = choose(size) if dataset.cache is Caching.auto else dataset.cache
    if caching is Caching.disk:
        try:
            return stored.open_or_build(dataset.fingerprint(split), records, preparation)
        except OSError as error:
            caching = Caching.ram if size <= MEMORY_SHARE * _memory() else Caching.none
            reason = error.strerror or str(error)
            progress.say(
                f"no cache of {split} in {hashes.folder()} ({reason}); going on with {caching.value}"
            )
    if caching is Caching.ram:
        return held(records, preparation, dataset.classes())
    if dataset.cache is Caching.auto:
        progress.say(f"{split} takes {progress.size(size)} decoded: it is decoded again in every epoch")
    return Streamed(records, preparation, workers)


def choose(size: int) -> Caching:
    """Where `auto` keeps a split of `size` bytes."""
    if size <= MEMORY_SHARE * _memory():
        return Caching.ram
    return Caching.disk if size <= DISK_SHARE * hashes.free() else Caching.none


def held(records: Records, preparation: Preparation, classes: tuple[str, ...]) -> Images:
    """All images in memory."""
    side = preparation.size
    try:
        pixels = np.empty((len(records), side, side, 3), dtype=np.uint8)
    except MemoryError as error:
        raise DataError(f"{str(error).rstrip('.')}; set dataset.cache=disk, or none") from None

    def put(index: int, image: Pixels) -> None:
        pixels[index] = image

    decode(records, preparation, put)
    return Images(pixels, records.labels, classes)


def decode(records: Records, preparation: Preparation, put: Callable[[int, Pixels], None]) -> None:
    """Decode every image once; threads give them to `put` in any order."""
    pictures.accept_large()
    starts = range(0, len(records), AT_ONCE)

    def some(start: int) -> int:
        end = min(start + AT_ONCE, len(records))
        for index in range(start, end):
            put(index, prepared(records, index, preparation))
        return end

    with ThreadPoolExecutor(cores()) as pool, progress.ticker("decode", len(records)) as ticker:
        for end in pool.map(some, starts):
            ticker.step(to=end)


def prepared(records: Records, index: int, preparation: Preparation) -> Pixels:
    """One image (size, size, 3).

    Raises:
        DataError: it cannot be decoded or resized; the message names it.
    """
    image = records.image(index)
    try:
        return preparation(image)
    except (ValueError, MemoryError) as error:
        raise DataError(f"image {records.name(index)}: {error or 'it is too large'}") from None


@dataclass(frozen=True, eq=False)
class Streamed:
    """A split whose images are decoded whenever they are asked for, two batches ahead.

    Args:
        workers: processes that decode; 0 takes threads of this one.
    """

    records: Records
    preparation: Preparation
    workers: int = 0

    @property
    def labels(self) -> Labels:
        return self.records.labels

    def read(self, indices: Iterable[Indices]) -> Iterator[Pixels]:
        pictures.accept_large()
        return self._by_processes(indices) if self.workers else self._by_threads(indices)

    def _by_threads(self, indices: Iterable[Indices]) -> Iterator[Pixels]:
        ahead: deque[list[Future[Pixels]]] = deque()
        pool = ThreadPoolExecutor(cores())
        try:
            for index in indices:
                ahead.append([pool.submit(prepared, self.records, int(i), self.preparation) for i in index])
                if len(ahead) > 2:
                    yield np.stack([image.result() for image in ahead.popleft()])
            while ahead:
                yield np.stack([image.result() for image in ahead.popleft()])
        finally:
            pool.shutdown(cancel_futures=True)

    def _by_processes(self, indices: Iterable[Indices]) -> Iterator[Pixels]:
        import torch
        from torch.utils.data import DataLoader

        batches = [index.tolist() for index in indices]
        workers = min(self.workers, len(batches))
        at_work = torch.full((workers,), -1).share_memory_()  # type: ignore[no-untyped-call]
        source: Any = Decoder(self.records, self.preparation, at_work)
        # Without a generator of its own it draws from torch's, and dropout would see other numbers.
        own = torch.Generator()
        loader = DataLoader(
            source, None, sampler=batches, num_workers=workers, collate_fn=as_it_is, generator=own
        )
        try:
            for found in loader:
                if isinstance(found, DataError):
                    raise found
                yield found.numpy()
        except RuntimeError as error:  # a DataLoader's, of a process that was killed
            names = ", ".join(self.records.name(i) for i in at_work.tolist() if i >= 0)
            line = str(error).splitlines()[0]
            where = f"at one of: {names}" if names else "between images"
            raise DataError(f"a process that decodes images died {where} ({line})") from None


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
    if isinstance(split, Streamed) and images * 3 * split.preparation.size**2 <= MEMORY_SHARE * _memory():
        return Repeated(split)
    return split


@dataclass(frozen=True, eq=False)
class Decoder:
    """What a process of a DataLoader works with.

    Args:
        at_work: the image that each process is decoding, (workers,), in shared memory.
    """

    records: Records
    preparation: Preparation
    at_work: Any

    def __getitem__(self, indices: list[int]) -> Any:
        """A batch (B, size, size, 3), or the error, which a DataLoader would bury in a traceback."""
        import torch
        from torch.utils.data import get_worker_info

        pictures.accept_large()
        me = get_worker_info()
        assert me is not None
        images = []
        try:
            for index in indices:
                self.at_work[me.id] = index
                images.append(prepared(self.records, index, self.preparation))
        except DataError as error:
            return error
        self.at_work[me.id] = -1
        return torch.from_numpy(np.stack(images))


def as_it_is(batch: Any) -> Any:
    """A batch is made already."""
    return batch


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
