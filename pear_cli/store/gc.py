"""Looking after a store: removing what nobody needs."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pear_cli.errors import CorruptArtifact, MissingArtifact, OldSchema, StoreError
from pear_cli.store.artifact import KEY, MANIFEST, STAGE, Artifact, named_keys
from pear_cli.store.draft import (
    QUARANTINE,
    age_of,
    discard,
    quarantine,
    size_of,
    stale_drafts,
    writing,
)
from pear_cli.store.lease import SUFFIX, is_leased
from pear_cli.store.removal import inputs_first, readable, take_away
from pear_cli.store.store import OnError, Store, ignore

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

    @property
    def is_complete(self) -> bool:
        """Whether it is an artifact that could still be read."""
        return self.kind in ("orphan", "old", "schema")


@dataclass(frozen=True)
class Report:
    """What gc removed, or would remove."""

    items: tuple[Item, ...]
    dry_run: bool

    @property
    def size(self) -> int:
        """Bytes of all that goes; what is damaged only moves."""
        return sum(item.size for item in self.items if item.kind != "corrupt")


def collect(
    store: Store,
    *,
    dry_run: bool = False,
    orphans: bool = False,
    older_than: float | None = None,
    verify: bool = False,
    old_schema: bool = False,
    on_error: OnError = ignore,
) -> Report:
    """Remove what nobody needs: dead drafts and locks, workspaces of complete artifacts, the quarantine.

    What a living process works on or needs stays, known by its locks. Complete artifacts go only on request,
    and none that the manifest of a newer pear names.

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
        StoreError: the store cannot be written, has a manifest that may not be read, so that what it needs is
            unknown; or an age that is negative or not finite.
    """
    if older_than is not None and not 0 <= older_than < float("inf"):
        raise StoreError(f"an age of {older_than} seconds is out of range: finite, and at least 0")
    store.refuse_links()
    locks = [path for path in sorted((store.root / ".locks").glob("*")) if path.suffix in (".lock", SUFFIX)]
    items = list(leftovers(store, dry_run, older_than))
    items += [_delete("quarantined", path, dry_run) for path in sorted((store.root / QUARANTINE).glob("*"))]
    present = {folder.name for folder in store.folders()}
    damaged = list(_collect_damaged(store, dry_run, on_error)) if verify else []
    items += damaged
    if old_schema:
        items += _collect_old_schema(store, dry_run)
    if orphans or older_than is not None:
        skip = {item.path for item in damaged}
        artifacts, unread = readable(store)
        for folder, error in unread.items():
            on_error(folder, error)
        artifacts = [artifact for artifact in artifacts if artifact.path not in skip]
        needed = {key for folder in unread for key in named_keys(folder)}
        items += _collect_artifacts(
            store, artifacts, needed, present if orphans else None, older_than, dry_run
        )
    items += _collect_locks(store, locks, dry_run)
    return Report(tuple(items), dry_run)


def remove_leftovers(store: Store) -> None:
    """Remove what killed processes left unfinished, except for progress that can be resumed."""
    store.refuse_links()
    for _ in leftovers(store):
        pass


def leftovers(store: Store, dry_run: bool = False, older_than: float | None = None) -> Iterator[Item]:
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
            if work.exists() and ((folder / key / MANIFEST).exists() or age_of(work) > limit):
                stale.append(("work", work))
            for kind, path in stale:
                yield _delete(kind, path, dry_run)


def _collect_damaged(store: Store, dry_run: bool, on_error: OnError) -> Iterator[Item]:
    for path in store.folders():
        with _claimed(store, path.parent.name, path.name, dry_run) as ours:
            if ours and _is_damaged(store, path, on_error):
                yield Item("corrupt", path, size_of(path))
                if not dry_run:
                    with writing(store.root):
                        quarantine(path)


def _collect_old_schema(store: Store, dry_run: bool) -> Iterator[Item]:
    unread: dict[Path, StoreError] = {}
    for _ in store.artifacts(on_error=unread.__setitem__):
        pass
    for path in (path for path, error in unread.items() if isinstance(error, OldSchema)):
        with _claimed(store, path.parent.name, path.name, dry_run) as ours:
            if ours:
                yield Item("schema", path, size_of(path))
                if not dry_run:
                    take_away(path)


def _is_damaged(store: Store, path: Path, on_error: OnError) -> bool:
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
    store: Store,
    artifacts: list[Artifact],
    needed: set[str],
    present: set[str] | None,
    older_than: float | None,
    dry_run: bool,
) -> Iterator[Item]:
    """Remove orphans (an input is not in `present`, if given) and old ones, but nothing that is `needed`."""
    ordered = inputs_first(artifacts)
    lost: set[str] = set()
    for artifact in ordered if present is not None else []:
        if any(key in lost or key not in (present or ()) for key in artifact.inputs.values()):
            lost.add(artifact.key)
    for artifact in reversed(ordered):
        old = older_than is not None and time.time() - artifact.created.timestamp() > older_than
        if (
            artifact.key not in needed
            and (old or artifact.key in lost)
            and not is_leased(store, artifact.stage, artifact.key)
        ):
            with _claimed(store, artifact.stage, artifact.key, dry_run) as ours:
                if ours:
                    kind = "orphan" if artifact.key in lost else "old"
                    yield Item(kind, artifact.path, size_of(artifact.path))
                    if not dry_run:
                        take_away(artifact.path)
                    continue
        needed = needed.union(artifact.inputs.values())


def _collect_locks(store: Store, locks: list[Path], dry_run: bool) -> Iterator[Item]:
    for path in locks:
        stage, _, key = path.stem.rpartition("-")
        if STAGE.fullmatch(stage) and KEY.fullmatch(key) and not is_leased(store, stage, key):
            with _claimed(store, stage, key, dry_run) as ours:
                if ours:
                    yield _delete("lock", path, dry_run)


@contextmanager
def _claimed(store: Store, stage: str, key: str, dry_run: bool) -> Iterator[bool]:
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
    item = Item(kind, path, size_of(path))
    if not dry_run:
        discard(path)
        if os.path.lexists(path):
            raise StoreError(f"{path} cannot be deleted; change its owner or mode, then try again")
    return item
