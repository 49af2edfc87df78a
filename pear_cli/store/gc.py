"""Looking after a store: removing what was asked for, and what nobody needs."""

import math
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from pear_cli.errors import CorruptArtifact, MissingArtifact, OldSchema, StoreError
from pear_cli.store.artifact import KEY, MANIFEST, STAGE, Artifact, name_of, named_keys
from pear_cli.store.draft import QUARANTINE, UNLOCKED, discard, draft_path, quarantine, writing

if TYPE_CHECKING:
    from pear_cli.store.store import Store

UNLOCKED_SECONDS = 24 * 3600.0
"""A draft that nobody's lock covers counts as abandoned after this time."""

OnError = Callable[[Path, StoreError], None]
"""Told of each artifact that is left alone: a newer pear made it, or it cannot be read."""

LEFTOVER = re.compile(r"\.(?:tmp|work)-([0-9a-f]{32})(?:-.*)?")


@dataclass(frozen=True)
class Item:
    """Something that gc removes.

    Args:
        kind: `draft`, `work`, `lock`, `quarantined`, `corrupt`, `schema`, `orphan` or `old`.
        path: where it stands; `corrupt` artifacts move from there to the quarantine, the rest is deleted.
        size: bytes on the disk.
    """

    kind: str
    path: Path
    size: int


@dataclass(frozen=True)
class Report:
    """What gc removed, or would remove."""

    items: tuple[Item, ...]
    dry_run: bool

    @property
    def size(self) -> int:
        """Bytes of all that goes; what is damaged only moves."""
        return sum(item.size for item in self.items if item.kind != "corrupt")


def ignore(path: Path, error: StoreError) -> None:
    """Tell nobody (see `OnError`)."""


def remove(store: "Store", path: Path, recursive: bool, on_error: OnError) -> list[Path]:
    """Remove an artifact, sound or damaged; it is gone in one step, then deleted.

    Args:
        store: the store that it is in.
        path: its folder.
        recursive: remove also the artifacts made from it, the last made first.
        on_error: see `OnError`.

    Returns:
        The folders that went, in order.

    Raises:
        MissingArtifact: it is not there.
        StoreError: other artifacts were made from it, a process is working on it, or the store is read-only.
    """
    if not os.path.lexists(path):
        raise MissingArtifact(f"{path} is not there; see what there is: pear ls")
    place = path.absolute().parent
    if not (KEY.fullmatch(path.name) and STAGE.fullmatch(place.name) and place.parent.samefile(store.root)):
        raise StoreError(f"{path} is not in the store {store.root}; delete it by hand if you want it gone")
    target = store.path(place.name, path.name)
    artifacts, unread = _readable(store)
    unread.pop(target, None)
    doomed, users = {target.name}, []
    for artifact in _inputs_first(artifacts):
        if doomed.intersection(artifact.inputs.values()):
            doomed.add(artifact.key)
            users.append(artifact.path)
    if users and not recursive:
        names = ", ".join(map(name_of, users))
        raise StoreError(f"{path} is an input of {names}; to remove all: pear rm --recursive {path}")
    if bound := [folder for folder in unread if doomed & named_keys(folder)]:
        names = ", ".join(map(name_of, bound))
        raise StoreError(
            f"{path} is an input of {names}, made by a newer pear; upgrade pear, or first: pear rm {bound[0]}"
        )
    for folder, error in unread.items():
        on_error(folder, error)
    gone = [*reversed(users), target]
    for folder in gone:
        with store.lock(folder.parent.name, folder.name, wait=0):
            _take_away(folder)
    return gone


def collect(
    store: "Store",
    dry_run: bool,
    orphans: bool,
    older_than: float | None,
    verify: bool,
    old_schema: bool,
    on_error: OnError,
) -> Report:
    """Remove what nobody needs: dead drafts and locks, workspaces of complete artifacts, the quarantine.

    What a living process works on stays, known by its lock. Complete artifacts go only on request, and none
    that the manifest of a newer pear names.

    Args:
        store: the store.
        dry_run: write nothing, only report.
        orphans: also artifacts whose inputs are gone, and those made from them.
        older_than: in seconds; also artifacts published before that from which nothing that stays was made,
            and workspaces that were not touched since.
        verify: check every hash, and move damaged artifacts to the quarantine.
        old_schema: also artifacts of an older pear, which this one does not read.
        on_error: see `OnError`; it may be told of one artifact twice.

    Raises:
        StoreError: `older_than` is negative or not finite, the store cannot be written, or it
            has a manifest that may not be read, so that what it needs is unknown.
    """
    if older_than is not None and not 0 <= older_than < math.inf:
        raise StoreError(f"older than {older_than} is not an age; give a finite number that is not negative")
    locks = sorted((store.root / ".locks").glob("*.lock"))
    items = list(leftovers(store, dry_run, older_than))
    items += [_delete("quarantined", path, dry_run) for path in sorted((store.root / QUARANTINE).glob("*"))]
    present = {folder.name for folder in store.folders()}
    damaged = list(_collect_damaged(store, dry_run, on_error)) if verify else []
    items += damaged
    if old_schema:
        items += _collect_old_schema(store, dry_run)
    if orphans or older_than is not None:
        skip = {item.path for item in damaged}
        artifacts, unread = _readable(store)
        for folder, error in unread.items():
            on_error(folder, error)
        artifacts = [artifact for artifact in artifacts if artifact.path not in skip]
        needed = {key for folder in unread for key in named_keys(folder)}
        items += _collect_artifacts(
            store, artifacts, needed, present if orphans else None, older_than, dry_run
        )
    items += _collect_locks(store, locks, dry_run)
    return Report(tuple(items), dry_run)


def stale_drafts(folder: Path, key: str) -> list[Path]:
    """Return the drafts of a key that nobody writes any more, given that the caller holds the key's lock."""
    with os.scandir(folder) as entries:
        drafts = [Path(entry.path) for entry in entries if entry.name.startswith(f".tmp-{key}-")]
    return [draft for draft in drafts if not draft.name.endswith(UNLOCKED) or _age(draft) > UNLOCKED_SECONDS]


def leftovers(store: "Store", dry_run: bool = False, older_than: float | None = None) -> Iterator[Item]:
    """Remove drafts that nobody writes any more, and workspaces whose artifact is there or that are too old.

    Args:
        dry_run: only yield what would be removed.
        older_than: age in seconds from which a workspace is too old; None for none.
    """
    limit = float("inf") if older_than is None else older_than
    leftovers = [path for path in store.root.glob("*/.*") if STAGE.fullmatch(path.parent.name)]
    keys = {(path.parent, match[1]) for path in leftovers if (match := LEFTOVER.fullmatch(path.name))}
    for folder, key in sorted(keys):
        with _claimed(store, folder.name, key, dry_run) as ours:
            if not ours:
                continue
            stale = [("draft", path) for path in stale_drafts(folder, key)]
            work = store.work_path(folder.name, key)
            if work.exists() and ((folder / key / MANIFEST).exists() or _age(work) > limit):
                stale.append(("work", work))
            for kind, path in stale:
                yield _delete(kind, path, dry_run)


def _collect_damaged(store: "Store", dry_run: bool, on_error: OnError) -> Iterator[Item]:
    for path in store.folders():
        with _claimed(store, path.parent.name, path.name, dry_run) as ours:
            if ours and _is_damaged(store, path, on_error):
                yield Item("corrupt", path, _size(path))
                if not dry_run:
                    with writing(store.root):
                        quarantine(path)


def _collect_old_schema(store: "Store", dry_run: bool) -> Iterator[Item]:
    unread: dict[Path, StoreError] = {}
    for _ in store.artifacts(on_error=unread.__setitem__):
        pass
    for path in (path for path, error in unread.items() if isinstance(error, OldSchema)):
        with _claimed(store, path.parent.name, path.name, dry_run) as ours:
            if ours:
                yield Item("schema", path, _size(path))
                if not dry_run:
                    _take_away(path)


def _is_damaged(store: "Store", path: Path, on_error: OnError) -> bool:
    try:
        store.get(path.parent.name, path.name).verify()
    except MissingArtifact:
        return False
    except CorruptArtifact:
        return True
    except StoreError as error:
        on_error(path, error)
    return False


def _collect_artifacts(
    store: "Store",
    artifacts: list[Artifact],
    needed: set[str],
    present: set[str] | None,
    older_than: float | None,
    dry_run: bool,
) -> Iterator[Item]:
    """Remove orphans (an input is not in `present`, if given) and old ones, but nothing that is `needed`."""
    ordered = _inputs_first(artifacts)
    lost: set[str] = set()
    for artifact in ordered if present is not None else []:
        if any(key in lost or key not in (present or ()) for key in artifact.inputs.values()):
            lost.add(artifact.key)
    for artifact in reversed(ordered):
        old = older_than is not None and time.time() - artifact.created.timestamp() > older_than
        if artifact.key not in needed and (old or artifact.key in lost):
            with _claimed(store, artifact.stage, artifact.key, dry_run) as ours:
                if ours:
                    kind = "orphan" if artifact.key in lost else "old"
                    yield Item(kind, artifact.path, _size(artifact.path))
                    if not dry_run:
                        _take_away(artifact.path)
                    continue
        needed = needed.union(artifact.inputs.values())


def _collect_locks(store: "Store", locks: list[Path], dry_run: bool) -> Iterator[Item]:
    for path in locks:
        stage, _, key = path.stem.rpartition("-")
        if STAGE.fullmatch(stage) and KEY.fullmatch(key):
            with _claimed(store, stage, key, dry_run) as ours:
                if ours:
                    yield _delete("lock", path, dry_run)


@contextmanager
def _claimed(store: "Store", stage: str, key: str, dry_run: bool) -> Iterator[bool]:
    """Yield whether nobody works on a key; unless it is a dry run, its lock is held meanwhile."""
    if dry_run:
        yield not store.is_busy(stage, key)
        return
    lock = store.lock_path(stage, key)
    only_for_this = not lock.exists()
    with store.claim(stage, key) as ours:
        yield ours
        if ours and only_for_this:
            discard(lock)


def _delete(kind: str, path: Path, dry_run: bool) -> Item:
    item = Item(kind, path, _size(path))
    if not dry_run:
        discard(path)
        if os.path.lexists(path):
            raise StoreError(f"{path} cannot be deleted; change its owner or mode, then try again")
    return item


def _take_away(folder: Path) -> None:
    aside = draft_path(folder.parent, folder.name, locked=True)
    with writing(folder.parent), suppress(FileNotFoundError):  # gone already is what was wanted
        os.rename(folder, aside)
    discard(aside)


def _readable(store: "Store") -> tuple[list[Artifact], dict[Path, StoreError]]:
    """Return the artifacts that can be read, and why others cannot, leaving out damaged ones."""
    unread: dict[Path, StoreError] = {}

    def note(path: Path, error: StoreError) -> None:
        if not isinstance(error, CorruptArtifact):
            unread[path] = error

    return list(store.artifacts(on_error=note)), unread


def _inputs_first(artifacts: list[Artifact]) -> list[Artifact]:
    by_key = {artifact.key: artifact for artifact in artifacts}
    graph = {key: set(artifact.inputs.values()) for key, artifact in by_key.items()}
    try:
        return [by_key[key] for key in TopologicalSorter(graph).static_order() if key in by_key]
    except CycleError as error:
        names = ", ".join(error.args[1])
        raise StoreError(f"these artifacts name each other as inputs, so none is genuine: {names}") from error


def _stats(path: Path) -> list[os.stat_result]:
    """Return the status of a file, or of a folder and all in it; others may be deleting there."""
    inside = [Path(folder, name) for folder, folders, files in os.walk(path) for name in (*folders, *files)]
    found = []
    for entry in (path, *inside):
        with suppress(FileNotFoundError):
            found.append(entry.lstat())
    return found


def _size(path: Path) -> int:
    return sum(status.st_size for status in _stats(path) if stat.S_ISREG(status.st_mode))


def _age(folder: Path) -> float:
    """Return the seconds since a folder or something in it last changed."""
    now = time.time()
    return now - max((status.st_mtime for status in _stats(folder)), default=now)
