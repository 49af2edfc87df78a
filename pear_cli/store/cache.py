"""Content hashes of files, remembered; and where what can be computed again is kept meanwhile.

Everything lies below `$PEAR_CACHE`, or `~/.cache/pear`. A cache that is broken, foreign or cannot be
written counts as empty: nothing here raises for it. Files appear whole, by one rename, so processes
that write at the same time cost each other at most a repeated computation.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pear_cli.errors import DataError
from pear_cli.system import threads
from pear_cli.system.files import replacing

SETTLED_NS = 2_000_000_000  # a file changed more recently could change again within one clock tick
Known = dict[str, Any]


def folder() -> Path:
    """Where the cache lies."""
    named = os.environ.get("PEAR_CACHE")
    return Path(named or os.path.expanduser("~/.cache/pear"))


def free() -> int:
    """Bytes that are free where the cache lies."""
    place = folder().absolute()
    there = next(path for path in (place, *place.parents) if path.is_dir())
    return shutil.disk_usage(there).free


def content_hashes(
    root: Path, names: Iterable[str], step: Callable[[], None] = lambda: None
) -> list[tuple[int, str]]:
    """Size in bytes and SHA-256, in hex, of the files `names` below `root`, in their order.

    A hash is remembered by path and `identity`, also where the reading is interrupted. Each has a seal of its
    own: one that was altered in the cache is not believed.

    Args:
        step: called after each file.

    Raises:
        DataError: naming the file that is missing or cannot be read.
    """
    names, home = list(names), os.path.abspath(root)
    kept = place("hashes", home, "json")
    states: dict[str, list[int]] = {}
    missing: list[DataError] = []
    for name in dict.fromkeys(names):
        try:
            states[name] = _state(root / name)
        except DataError as error:
            missing.append(error)
    if missing:
        more = [f"and {len(missing) - 1} more; pear data verify names them all"] if missing[1:] else []
        raise DataError(*missing[0].args, *more)

    remembered, learned = _known(kept), Known()
    hashes: dict[str, str] = {}
    for name, state in states.items():
        entry = remembered.get(name)
        if isinstance(entry, list) and entry[:-2] == state and entry[-1:] == [_seal(home, name, entry[:-1])]:
            hashes[name] = str(entry[-2])
    unread = [name for name in states if name not in hashes]
    for _ in range(len(names) - len(unread)):
        step()

    def read(name: str) -> str:
        try:
            content = sha256(root / name)
        except OSError as error:
            raise DataError(f"file {root / name} cannot be read: {error.strerror}") from None
        if time.time_ns() - max(states[name][1:3]) > SETTLED_NS:
            known = [*states[name], content]
            learned[name] = [*known, _seal(home, name, known)]
        return content

    try:
        for name, content in zip(unread, threads.each(read, unread), strict=True):
            hashes[name] = content
            step()
    finally:
        if learned:
            write(kept, json.dumps({**_known(kept), **learned}).encode())
    return [(states[name][0], hashes[name]) for name in names]


def content_hash(path: Path) -> str:
    """SHA-256 of one file, in hex; see `content_hashes`."""
    ((_, content),) = content_hashes(path.parent, [path.name])
    return content


def identity(state: os.stat_result) -> list[int]:
    """Size, times of modification and of change (ns) and inode: whether a file is the one that was read.

    Whoever alters a file in place can set back its time of modification, but not the time of that change.
    """
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def place(kind: str, key: str, suffix: str) -> Path:
    """The file of the cache that belongs to a key."""
    return folder() / kind / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.{suffix}"


def recall(key: str) -> Known:
    """The facts that were remembered under a key; none where there are none, or others than were."""
    stored = _known(place("facts", key, "json"))
    facts = stored.get("facts")
    return facts if isinstance(facts, dict) and stored.get("seal") == _seal(key, facts) else {}


def remember(key: str, facts: Mapping[str, object]) -> None:
    """Keep facts, which JSON can hold, under a key that names all that they are about."""
    write(place("facts", key, "json"), json.dumps({"facts": facts, "seal": _seal(key, facts)}).encode())


def _state(path: Path) -> list[int]:
    try:
        return identity(os.stat(path))
    except FileNotFoundError:
        raise DataError(f"file {path} is missing") from None
    except OSError as error:
        raise DataError(f"file {path} cannot be read: {error.strerror}") from None


def _seal(*content: object) -> str:
    """Half of the SHA-256 of what JSON can hold: a bit that flips in the cache is noticed."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _known(place: Path) -> Known:
    try:
        stored = json.loads(place.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}


def write(place: Path, content: bytes) -> None:
    """Write a file of the cache whole, or not at all."""
    with suppress(OSError), replacing(place) as file:
        file.write(content)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise OSError(errno.EINVAL, "no regular file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
