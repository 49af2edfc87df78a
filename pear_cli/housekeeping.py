"""Looking after a store: what a name means, removing what nobody needs."""

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from pear_cli.artifact import KEY, MANIFEST, STAGE, Artifact
from pear_cli.draft import QUARANTINE, UNLOCKED, discard, draft_path, quarantine, writing
from pear_cli.errors import CorruptArtifact, MissingArtifact, StoreError, near

if TYPE_CHECKING:
    from pear_cli.store import Store

SHORTEST_PREFIX = 4
UNLOCKED_SECONDS = 24 * 3600.0
"""A draft that nobody's lock covers counts as abandoned after this time."""

LEFTOVER = re.compile(r"\.(?:tmp|work)-([0-9a-f]{32})(?:-.*)?")


@dataclass(frozen=True)
class Item:
    """Something that gc removes.

    Args:
        kind: `draft`, `work`, `lock`, `quarantined`, `corrupt`, `orphan` or `old`.
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
        """Bytes of all items together."""
        return sum(item.size for item in self.items)


def locate(store: "Store", text: str) -> Path:
    """Return the folder of the complete artifact that a text means; its manifest may be damaged.

    Args:
        store: where keys are looked up.
        text: a key, a prefix of one (4 hex digits or more, `<stage>/` before it if you like), or the path of
            an artifact's folder, in the store or not.

    Raises:
        MissingArtifact: nothing has that name.
        StoreError: the prefix is too short, or several artifacts share it.
    """
    path = Path(text).expanduser()
    if (path / MANIFEST).is_file():
        return path.absolute()
    stage, _, prefix = text.rstrip("/").rpartition("/")
    known = [folder for folder in store.folders() if (folder / MANIFEST).is_file()]
    if (stage and not STAGE.fullmatch(stage)) or not prefix:
        raise MissingArtifact(f"{text} is not the folder of an artifact: it has no {MANIFEST}")
    if len(prefix) < SHORTEST_PREFIX:
        raise StoreError(f'"{text}" is too short for a key: give {SHORTEST_PREFIX} or more of its digits')
    within = [folder for folder in known if stage in ("", folder.parent.name)]
    found = [folder for folder in within if folder.name.startswith(prefix)]
    if not found:
        hint = near(prefix, [folder.name for folder in within]) or "; see what there is: pear ls"
        raise MissingArtifact(f'{store.root} has no artifact "{text}"{hint}')
    if len(found) > 1:
        names = ", ".join(_name(folder) for folder in found[:8]) + (", …" if len(found) > 8 else "")
        raise StoreError(f'"{text}" can mean {len(found)} artifacts: {names}; give more digits')
    return found[0]


def remove(store: "Store", path: Path, recursive: bool = False) -> list[Path]:
    """Remove an artifact, sound or damaged; it is gone in one step, then deleted.

    Args:
        store: the store that it is in.
        path: its folder.
        recursive: remove also the artifacts made from it, the last made first.

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
    doomed, users = {path.name}, []
    for artifact in _inputs_first(_readable(store)):
        if doomed.intersection(artifact.inputs.values()):
            doomed.add(artifact.key)
            users.append(artifact.path)
    if users and not recursive:
        names = ", ".join(_name(user) for user in users)
        raise StoreError(f"{path} is an input of {names}; to remove all: pear rm --recursive {path}")
    gone = [*reversed(users), store.path(place.name, path.name)]
    for folder in gone:
        with store.lock(folder.parent.name, folder.name, wait=0):
            _take_away(folder)
    return gone


def collect(store: "Store", dry_run: bool, orphans: bool, older_than: float | None, verify: bool) -> Report:
    """Remove what nobody needs: dead drafts and locks, workspaces of complete artifacts, the quarantine.

    What a living process works on stays, known by its lock. Complete artifacts go only on request.

    Args:
        store: the store.
        dry_run: remove nothing, only report.
        orphans: also artifacts whose inputs are gone, and those made from them.
        older_than: in seconds; also artifacts published before that from which nothing that stays was made,
            and workspaces that were not touched since.
        verify: check every hash, and move damaged artifacts to the quarantine.

    Raises:
        StoreError: the store cannot be written, or has artifacts of a newer pear whose needs are unknown.
    """
    locks = sorted((store.root / ".locks").glob("*.lock"))
    items = list(_collect_leftovers(store, dry_run, older_than))
    items += [_delete("quarantined", path, dry_run) for path in sorted((store.root / QUARANTINE).glob("*"))]
    present = {folder.name for folder in store.folders()}
    damaged = list(_collect_damaged(store, dry_run)) if verify else []
    items += damaged
    if orphans or older_than is not None:
        skip = {item.path for item in damaged}
        artifacts = [artifact for artifact in _readable(store) if artifact.path not in skip]
        items += _collect_artifacts(store, artifacts, present if orphans else None, older_than, dry_run)
    items += _collect_locks(store, locks, dry_run)
    return Report(tuple(items), dry_run)


def stale_drafts(folder: Path, key: str) -> list[Path]:
    """Return the drafts of a key that nobody writes any more, given that the caller holds the key's lock."""
    with os.scandir(folder) as entries:
        drafts = [Path(entry.path) for entry in entries if entry.name.startswith(f".tmp-{key}-")]
    return [draft for draft in drafts if not draft.name.endswith(UNLOCKED) or _age(draft) > UNLOCKED_SECONDS]


def _collect_leftovers(store: "Store", dry_run: bool, older_than: float | None) -> Iterator[Item]:
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


def _collect_damaged(store: "Store", dry_run: bool) -> Iterator[Item]:
    for path in store.folders():
        with _claimed(store, path.parent.name, path.name, dry_run) as ours:
            if ours and _is_damaged(store, path):
                yield Item("corrupt", path, _size(path))
                if not dry_run:
                    with writing(store.root):
                        quarantine(path)


def _is_damaged(store: "Store", path: Path) -> bool:
    try:
        store.get(path.parent.name, path.name).verify()
    except (CorruptArtifact, MissingArtifact) as error:
        return isinstance(error, CorruptArtifact)
    return False


def _collect_artifacts(
    store: "Store",
    artifacts: list[Artifact],
    present: set[str] | None,
    older_than: float | None,
    dry_run: bool,
) -> Iterator[Item]:
    """Remove orphans (an input is not in `present`, if given) and old artifacts that nothing kept needs."""
    ordered = _inputs_first(artifacts)
    lost: set[str] = set()
    for artifact in ordered if present is not None else []:
        if any(key in lost or key not in (present or ()) for key in artifact.inputs.values()):
            lost.add(artifact.key)
    needed: set[str] = set()
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
        needed.update(artifact.inputs.values())


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


def _readable(store: "Store") -> list[Artifact]:
    def refuse_newer(path: Path, error: StoreError) -> None:
        if not isinstance(error, CorruptArtifact):
            raise error

    return list(store.artifacts(on_error=refuse_newer))


def _inputs_first(artifacts: list[Artifact]) -> list[Artifact]:
    by_key = {artifact.key: artifact for artifact in artifacts}
    graph = {key: set(artifact.inputs.values()) for key, artifact in by_key.items()}
    try:
        return [by_key[key] for key in TopologicalSorter(graph).static_order() if key in by_key]
    except CycleError as error:
        names = ", ".join(error.args[1])
        raise StoreError(f"these artifacts name each other as inputs, so none is genuine: {names}") from error


def _name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


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
