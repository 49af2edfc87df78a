"""Removing artifacts that somebody names, with what was made from them."""

import os
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from pear_cli.errors import CorruptArtifact, MissingArtifact, StoreError
from pear_cli.store.artifact import KEY, STAGE, Artifact, name_of, named_keys
from pear_cli.store.draft import discard, draft_path, writing
from pear_cli.store.lease import refuse_leased
from pear_cli.store.store import OnError, Store, ignore


def remove(
    store: Store,
    path: Path,
    *,
    recursive: bool = False,
    dry_run: bool = False,
    on_error: OnError = ignore,
) -> list[Path]:
    """Remove an artifact, sound or damaged; it is gone in one step, then deleted.

    Args:
        store: the store that it is in.
        path: its folder.
        recursive: remove also the artifacts made from it, the last made first.
        dry_run: remove nothing.
        on_error: see `OnError`.

    Returns:
        The folders that went, in order.

    Raises:
        MissingArtifact: it is not there.
        StoreError: other artifacts were made from it, a process works on it or needs it, or the store is
            read-only.
    """
    store.refuse_links()
    if not os.path.lexists(path):
        raise MissingArtifact(f"{path} is not there; see what there is: pear ls")
    place = path.absolute().parent
    if not (KEY.fullmatch(path.name) and STAGE.fullmatch(place.name) and place.parent.samefile(store.root)):
        raise StoreError(f"{path} is not in the store {store.root}; delete it by hand if you want it gone")
    target = store.path(place.name, path.name)
    artifacts, unread = readable(store)
    unread.pop(target, None)
    doomed, users = {target.name}, []
    for artifact in inputs_first(artifacts):
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
    refuse_leased(store, gone)
    for folder in gone if not dry_run else ():
        with store.lock(folder.parent.name, folder.name, wait=0):
            take_away(folder)
    return gone


def take_away(folder: Path) -> None:
    """Let a folder vanish in one step, then delete it."""
    aside = draft_path(folder.parent, folder.name, locked=True)
    with writing(folder.parent), suppress(FileNotFoundError):  # gone already is what was wanted
        os.rename(folder, aside)
    discard(aside)


def readable(store: Store) -> tuple[list[Artifact], dict[Path, StoreError]]:
    """Return the artifacts that can be read, and why others cannot, leaving out damaged ones."""
    unread: dict[Path, StoreError] = {}

    def note(path: Path, error: StoreError) -> None:
        if not isinstance(error, CorruptArtifact):
            unread[path] = error

    return list(store.artifacts(on_error=note)), unread


def inputs_first(artifacts: list[Artifact]) -> list[Artifact]:
    """Return artifacts, each after those that it was made from."""
    by_key = {artifact.key: artifact for artifact in artifacts}
    graph = {key: set(artifact.inputs.values()) for key, artifact in by_key.items()}
    try:
        return [by_key[key] for key in TopologicalSorter(graph).static_order() if key in by_key]
    except CycleError as error:
        names = ", ".join(error.args[1])
        raise StoreError(f"these artifacts name each other as inputs, so none is genuine: {names}") from error
