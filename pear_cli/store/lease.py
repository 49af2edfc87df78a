"""Leases: what a running job needs, so that gc and rm leave it alone.

A lease is a shared lock on `.locks/<stage>-<key>.lease`; it ends with the process that has it, however that
ends. It says nothing of who computes a key, which is what the key's own lock is for.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pear_cli.errors import StoreError
from pear_cli.store.draft import is_shared, open_to_group
from pear_cli.store.store import Store

SUFFIX = ".lease"


def lease_path(store: Store, stage: str, key: str) -> Path:
    """The file that the lease of a key is a lock on."""
    return store.lock_path(stage, key).with_suffix(SUFFIX)


@contextmanager
def leased(store: Store, names: Iterable[tuple[str, str]]) -> Iterator[None]:
    """Keep gc and rm from some keys while the block runs; a store that cannot be written needs no lease.

    Args:
        names: stage and key of each, whether or not its artifact is there yet.
    """
    with ExitStack() as files:
        for stage, key in names:
            path = lease_path(store, stage, key)
            with suppress(OSError, StoreError):
                store.make_folder(path.parent)
                files.enter_context(_shared_lock(store, path))
        yield


def _shared_lock(store: Store, path: Path) -> BinaryIO:
    """A file on which this process has a shared lock; gc may have deleted it just before, then a new one."""
    while True:
        file = path.open("rb" if path.exists() else "ab")
        if is_shared(store.root):
            open_to_group(path)
        fcntl.flock(file, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def is_leased(store: Store, stage: str, key: str) -> bool:
    """Whether a running job needs a key; writes nothing."""
    try:
        with lease_path(store, stage, key).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # somebody has one, or who has cannot be told
        return True
    return False


def refuse_leased(store: Store, folders: Iterable[Path]) -> None:
    """Raise StoreError for the first artifact that a running job needs."""
    for folder in folders:
        if is_leased(store, folder.parent.name, folder.name):
            raise StoreError(f"a running job needs {folder}; wait for the job, or stop it")
