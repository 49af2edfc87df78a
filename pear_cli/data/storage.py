"""Where datasets lie, and which files are there."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pear_cli.errors import DataError
from pear_cli.store import cache

Known = tuple[int, int]  # device and inode of a folder


def home() -> Path:
    """The folder of all datasets that name none: `$PEAR_DATA`, or `data` in pear's cache."""
    named = os.environ.get("PEAR_DATA")
    return Path(os.path.abspath(os.path.expanduser(named))) if named else cache.folder() / "data"


def existing(folder: Path, content: str) -> Path:
    """The folder, if it is one.

    Args:
        content: what it should have, for the message.
    """
    try:
        if os.path.isdir(folder):
            return folder
        os.stat(folder)
    except PermissionError:
        raise DataError(f"folder {folder} cannot be read: Permission denied") from None
    except OSError:
        raise DataError(
            f"folder {folder} is missing ({content}); set dataset.root or put the files there"
        ) from None
    raise DataError(f"{folder} is a file; a folder is needed there ({content})")


def folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    try:
        return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise DataError(f"folder {folder} cannot be read: {error.strerror}") from None


def files(folder: Path, *around: Path) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Every file below a folder: its path from there, with "/", and its entry; in no particular order.

    Hidden files and folders (.DS_Store, ._photo.jpg, .git) are passed over. Links are followed; one that
    leads back to a folder around it is not entered again.

    Args:
        around: folders that `folder` lies in and that links may not lead back to.

    Raises:
        DataError: a folder that cannot be read.
    """
    states = [path.stat() for path in around]
    yield from _below(folder, "", frozenset((state.st_dev, state.st_ino) for state in states))


def _below(folder: Path, prefix: str, around: frozenset[Known]) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    try:
        state = folder.stat()
        if (state.st_dev, state.st_ino) in around:
            return
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"folder {folder} cannot be read: {error.strerror}") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            inside = entry.is_dir()
        except OSError:  # a link to itself
            inside = False
        if inside:
            yield from _below(
                folder / entry.name, f"{prefix}{entry.name}/", around | {(state.st_dev, state.st_ino)}
            )
        else:
            yield f"{prefix}{entry.name}", entry


def signature(places: Iterable[Path]) -> str:
    """SHA-256 of the paths and identities of all files at or below `places`; see `cache.identity`.

    While it stays the same, what was read from the files can be trusted; "" where one is not there.
    """
    found = []
    for place in sorted(places):
        if not place.exists():
            return ""
        if place.is_dir():
            found += [(f"{place}/{name}", _state(entry)) for name, entry in files(place)]
        else:
            found.append((str(place), _state(place)))
    return hashlib.sha256(repr(sorted(found)).encode("utf-8", "surrogateescape")).hexdigest()


def remembered(key: str, held: Iterable[Path], read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `read` finds out, kept until a file at or below `held` changes; see `recall`.

    Args:
        key: names all else that it depends on.
        held: no file where nobody knows which they are; then nothing is kept.
    """
    files = [str(place) for place in held]
    facts: dict[str, Any] = {}
    for _ in range(2):  # the first reading may download the files
        before = signature(map(Path, files))
        facts = {"files": files, **read()}
        if before == signature(map(Path, files)):
            if files and before:
                cache.remember(key, {"signature": before, **facts})
            break
    return facts


def recall(key: str) -> dict[str, Any]:
    """What was remembered under a key, `files` among it; nothing where a file has changed since."""
    known = cache.recall(key)
    files = [Path(name) for name in known.get("files", ())]
    return known if files and signature(files) == known.pop("signature", "") else {}


def _state(file: "os.DirEntry[str] | Path") -> list[int]:
    try:
        return cache.identity(file.stat())
    except OSError:  # a link that leads nowhere
        return []
