"""The stage store: artifacts named by what made them, published whole or not at all."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from pear_cli.errors import MissingArtifact, StoreError, near
from pear_cli.store.artifact import KEY, MANIFEST, STAGE, Artifact, is_artifact, name_of
from pear_cli.store.canonical import SCHEMA, canonical, make_key, plain
from pear_cli.store.draft import (
    QUARANTINE,
    Draft,
    discard,
    draft_path,
    is_shared,
    open_to_group,
    refuse_link,
    stale_drafts,
    writing,
)
from pear_cli.system.environment import environment

__all__ = ["SCHEMA", "Artifact", "Draft", "Store", "canonical", "environment", "make_key", "plain"]

SHORTEST_PREFIX = 4

OnError = Callable[[Path, StoreError], None]
"""Told of each artifact that is left alone: a newer pear made it, or it cannot be read."""


def ignore(path: Path, error: StoreError) -> None:
    """Tell nobody (see `OnError`)."""


class Store:
    """A folder of artifacts, `<root>/<stage>/<key>/`. One object serves one thread.

    Reading takes no lock and works on a read-only disk. Two writers of one key are safe without the lock as
    well: it only saves doing the same work twice.

    Args:
        root: the folder; made when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._held: set[tuple[str, str]] = set()

    def path(self, stage: str, key: str) -> Path:
        """Return the folder of an artifact, whether or not it is there."""
        if not STAGE.fullmatch(stage) or not KEY.fullmatch(key):
            raise StoreError(f"{stage}/{key} names no artifact: a stage and 32 hex digits would")
        return self.root / stage / key

    def work_path(self, stage: str, key: str) -> Path:
        """Return the folder of a key's workspace, whether or not it is there."""
        return self.path(stage, key).with_name(f".work-{key}")

    def lock_path(self, stage: str, key: str) -> Path:
        """Return the lock file of a key."""
        self.path(stage, key)  # refuses what is not a name
        return self.root / ".locks" / f"{stage}-{key}.lock"

    def find(self, stage: str, key: str) -> Artifact | None:
        """Return the complete artifact of a key, or None.

        Raises:
            CorruptArtifact: its manifest is damaged.
            StoreError: it was written by a newer pear, or an older one.
        """
        try:
            return self.get(stage, key)
        except MissingArtifact:
            return None

    def get(self, stage: str, key: str) -> Artifact:
        """Return the complete artifact of a key.

        Raises:
            MissingArtifact: there is none.
            CorruptArtifact, StoreError: see `find`.
        """
        return Artifact.at(self.path(stage, key), (stage, key))

    def folders(self, stage: str | None = None) -> Iterator[Path]:
        """Yield the folders under a key, by stage and key; complete or not."""
        for place in sorted(self.root.glob("*")) if stage is None else [self.root / stage]:
            if STAGE.fullmatch(place.name) and place.is_dir():
                with os.scandir(place) as entries:
                    names = sorted(entry.name for entry in entries if KEY.fullmatch(entry.name))
                yield from (place / name for name in names)

    def artifacts(self, stage: str | None = None, *, on_error: OnError = ignore) -> Iterator[Artifact]:
        """Yield the complete artifacts, by stage and key.

        Args:
            stage: only those of one stage.
            on_error: told of each folder whose manifest cannot be used; without it they are passed over.
        """
        for path in self.folders(stage):
            try:
                yield self.get(path.parent.name, path.name)
            except MissingArtifact:
                continue
            except StoreError as error:
                on_error(path, error)

    @contextmanager
    def lock(
        self,
        stage: str,
        key: str,
        *,
        wait: float | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> Iterator[None]:
        """Hold the lock of a key; held already by this object, it is simply kept.

        Args:
            stage: the key's stage.
            key: the key.
            wait: seconds to wait for another process, None for as long as it takes.
            on_wait: told once, in words, that another process has the lock.

        Raises:
            StoreError: still busy after `wait`, or the store cannot be written.
        """
        if (stage, key) in self._held:
            yield
            return
        lock = self._acquire(stage, key, 0)
        if lock is None and wait != 0:
            if on_wait is not None:
                on_wait(f"another process is working on {stage}/{key}; waiting for it")
            lock = self._acquire(stage, key, -1 if wait is None else wait)
        if lock is None:
            raise StoreError(f"another process is working on {stage}/{key}; wait for it or stop it")
        with self._holding(stage, key, lock):
            yield

    @contextmanager
    def claim(self, stage: str, key: str) -> Iterator[bool]:
        """Take the lock of a key if nobody has it, this object included; yield whether that worked."""
        lock = None if (stage, key) in self._held else self._acquire(stage, key, 0)
        if lock is None:
            yield False
        else:
            with self._holding(stage, key, lock):
                yield True

    def is_busy(self, stage: str, key: str) -> bool:
        """Say whether anybody holds the lock of a key, this object included; writes nothing."""
        return is_locked(self.lock_path(stage, key))

    @contextmanager
    def _holding(self, stage: str, key: str, lock: BaseFileLock) -> Iterator[None]:
        self._held.add((stage, key))
        try:
            yield
        finally:
            self._held.discard((stage, key))
            lock.release()

    def _acquire(self, stage: str, key: str, timeout: float) -> BaseFileLock | None:
        path = self.lock_path(stage, key)
        for own in (path.parent, path):
            refuse_link(own)
        with writing(path.parent):
            self.make_folder(path.parent)
            lock = FileLock(path, mode=0o664 if is_shared(self.root) else 0o644)
            try:
                lock.acquire(timeout=timeout)
            except Timeout:
                return None
        return lock

    @contextmanager
    def draft(self, stage: str, key: str) -> Iterator[Draft]:
        """Make a temporary folder for an artifact; gone at the end unless it was published.

        Under the key's lock it first removes what killed writers of the key left behind.
        """
        folder = self.path(stage, key).parent
        held = (stage, key) in self._held
        refuse_link(folder)
        with writing(folder):
            self.make_folder(folder)
            for stale in stale_drafts(folder, key) if held else []:
                discard(stale)
            path = draft_path(folder, key, locked=held)
            path.mkdir()
        try:
            yield Draft(path, stage, key)
        finally:
            discard(path)

    def workspace(self, stage: str, key: str) -> Path:
        """Return a folder for resumable progress; it outlives a killed process, publishing removes it."""
        path = self.work_path(stage, key)
        for own in (path.parent, path):
            refuse_link(own)
        with writing(path.parent):
            self.make_folder(path)
        return path

    def locate(self, text: str) -> Path:
        """Return the folder of the complete artifact that a text means; its manifest may be damaged.

        Args:
            text: a key, a prefix of one (4 hex digits or more, `<stage>/` before it if you like), or the path
                of an artifact's folder, in the store or not.

        Raises:
            MissingArtifact: nothing has that name.
            StoreError: the prefix is too short, or several artifacts share it.
        """
        path = Path(text).expanduser()
        if is_artifact(path):
            return path.absolute()
        stage, _, prefix = text.rstrip("/").rpartition("/")
        if (stage and not STAGE.fullmatch(stage)) or not prefix:
            raise MissingArtifact(f"{text} is not the folder of an artifact: it has no {MANIFEST}")
        if len(prefix) < SHORTEST_PREFIX:
            raise StoreError(f'"{text}" is too short for a key: give {SHORTEST_PREFIX} or more of its digits')
        known = [folder for folder in self.folders(stage or None) if is_artifact(folder)]
        found = [folder for folder in known if folder.name.startswith(prefix)]
        if not found:
            hint = near(prefix, [folder.name for folder in known]) or "; see what there is: pear ls"
            raise MissingArtifact(f'{self.root} has no artifact "{text}"{hint}')
        if len(found) > 1:
            names = ", ".join(map(name_of, found[:8])) + (", …" if len(found) > 8 else "")
            raise StoreError(f'"{text}" can mean {len(found)} artifacts: {names}; give more digits')
        return found[0]

    def resolve(self, text: str) -> Artifact:
        """Return the artifact that a key, a prefix of one, or a path means (see `locate`)."""
        return Artifact.at(self.locate(text))

    def make_folder(self, folder: Path) -> None:
        """Make a folder of the store; its group may write in it where the store's may."""
        folder.mkdir(parents=True, exist_ok=True)
        if is_shared(self.root):
            for path in (folder, *folder.parents):
                if path == self.root:
                    break
                open_to_group(path)

    def refuse_links(self) -> None:
        """Raise StoreError for a link in place of one of the store's own folders."""
        for place in self.root.glob("*"):
            if STAGE.fullmatch(place.name) or place.name in (".locks", QUARANTINE):
                refuse_link(place)


def is_locked(path: Path) -> bool:
    """Say whether any process holds a lock on a file; writes nothing."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # somebody holds it, or who does cannot be told
        return True
    return False
