"""Images of a split decoded for a model: all at once, or each whenever it is asked for."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pear_cli.data.images import Images, Indices, Labels, Pixels, Records
from pear_cli.data.preparation import Preparation
from pear_cli.data.transforms import accept_large
from pear_cli.errors import DataError
from pear_cli.system import progress
from pear_cli.system.threads import cores, each

AT_ONCE = 16  # images a thread decodes before it hands them over


def held(records: Records, preparation: Preparation, classes: tuple[str, ...]) -> Images:
    """All images in memory."""
    side = preparation.size
    try:
        pixels = np.empty((len(records), side, side, 3), dtype=np.uint8)
    except MemoryError as error:
        raise DataError(f"{str(error).rstrip('.')}; set dataset.cache=disk, or none") from None
    for index, image in enumerate(decode(records, preparation)):
        pixels[index] = image
    return Images(pixels, records.labels, classes)


def decode(records: Records, preparation: Preparation) -> Iterator[Pixels]:
    """Every image once, in order, decoded ahead by threads."""
    accept_large()

    def some(start: int) -> list[Pixels]:
        end = min(start + AT_ONCE, len(records))
        return [prepared(records, index, preparation) for index in range(start, end)]

    with progress.ticker("decode", len(records)) as ticker:
        for images in each(some, range(0, len(records), AT_ONCE), cores(), 2 * cores()):
            yield from images
            ticker.step(to=ticker.done + len(images))


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
        accept_large()
        batches = [index.tolist() for index in indices]
        return self._by_processes(batches) if self.workers else self._by_threads(batches)

    def _by_threads(self, batches: list[list[int]]) -> Iterator[Pixels]:
        def one(index: int) -> Pixels:
            return prepared(self.records, index, self.preparation)

        ahead = 2 * max(map(len, batches), default=0)
        images = each(one, chain.from_iterable(batches), cores(), ahead)
        for batch in batches:
            yield np.stack(list(islice(images, len(batch))))

    def _by_processes(self, batches: list[list[int]]) -> Iterator[Pixels]:
        workers = min(self.workers, len(batches))
        at_work = torch.full((workers,), -1).share_memory_()  # type: ignore[no-untyped-call]
        work: Any = partial(_batch, self.records, self.preparation, at_work)
        # Without a generator of its own it draws from torch's, and dropout would see other numbers.
        own, source = torch.Generator(), cast("Dataset[list[int]]", batches)
        loader = DataLoader(source, None, num_workers=workers, collate_fn=work, generator=own)
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


def _batch(
    records: Records, preparation: Preparation, at_work: Tensor, indices: list[int]
) -> Tensor | DataError:
    """A batch (B, size, size, 3), or the error, which a DataLoader would bury in a traceback.

    Args:
        at_work: the image that each process is decoding, (workers,), in shared memory.
    """
    accept_large()
    me = get_worker_info()
    assert me is not None
    images = []
    try:
        for index in indices:
            at_work[me.id] = index
            images.append(prepared(records, index, preparation))
    except DataError as error:
        return error
    at_work[me.id] = -1
    return torch.from_numpy(np.stack(images))
