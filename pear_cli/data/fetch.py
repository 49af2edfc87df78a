"""Downloads: into a folder aside, and moved into place when they are whole."""

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock
from torchvision.datasets import utils

from pear_cli.data.published import ARCHIVES
from pear_cli.store import cache
from pear_cli.system import progress

PATIENCE = 10.0  # seconds without a byte before a download counts as failed
ASIDE = ".pear-download"


def fetch(root: Path, download: Callable[[Path], None], is_there: Callable[[], bool]) -> None:
    """Download a dataset to a folder, unless another process has done so in the meantime.

    Archives that an interrupted download left aside are used; whatever was unpacked from them is not.

    Args:
        root: the folder.
        download: puts all of it into the folder that it is given.
        is_there: whether nothing is left to do.
    """
    locks = cache.folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:32]
    with FileLock(locks / f"{name}.lock"):
        if is_there():
            return
        aside = root / ASIDE
        aside.mkdir(parents=True, exist_ok=True)
        _keep_archives(aside)
        try:
            with downloading():
                download(aside)
            for entry in list(aside.iterdir()):
                _move(entry, root / entry.name)
        finally:
            with contextlib.suppress(OSError):  # not empty: what is there saves the next download some work
                aside.rmdir()


def _keep_archives(folder: Path) -> bool:
    """Remove all but archives; whether there are any."""
    for entry in list(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            if not _keep_archives(entry):
                entry.rmdir()
        elif entry.suffix not in (*ARCHIVES, ".mat"):
            entry.unlink()
    return any(folder.iterdir())


def _move(source: Path, target: Path) -> None:
    if source.is_dir() and target.is_dir():
        for entry in list(source.iterdir()):
            _move(entry, target / entry.name)
        source.rmdir()
    else:
        os.replace(source, target)


@contextlib.contextmanager
def downloading() -> Iterator[None]:
    """Let torchvision's downloads give up in time, and show their progress as pear does, not by tqdm."""
    before, kept = socket.getdefaulttimeout(), utils.tqdm
    socket.setdefaulttimeout(PATIENCE)
    utils.tqdm = _Bar
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
        utils.tqdm = kept


class _Bar(contextlib.ExitStack):
    """What torchvision uses of a tqdm that counts bytes."""

    def __init__(self, total: int | None = None, **_: object) -> None:
        super().__init__()
        self.ticker = self.enter_context(progress.ticker("download", total or 0, bytes=True))

    def update(self, count: int) -> None:
        self.ticker.step(to=self.ticker.done + count)
