"""Content hashes of files, remembered; and where what can be computed again is kept meanwhile.

Everything lies below `$PEAR_CACHE`, or `~/.cache/pear`. A cache that is broken, foreign or cannot be
written is as good as none: nothing here raises for it. Files appear whole, by one rename, so processes
that write at the same time cost each other at most a repeated computation.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from pear_cli.errors import DataError

SETTLED_NS = 2_000_000_000  # a file changed more recently could change again within one clock tick
Known = dict[str, Any]


def folder() -> Path:
    """Where the cache lies."""
    named = os.environ.get("PEAR_CACHE")
    return Path(named or os.path.expanduser("~/.cache/pear"))


def content_hashes(root: Path, names: Iterable[str]) -> list[tuple[int, str]]:
    """Size in bytes and SHA-256, in hex, of the files `names` below `root`, in their order.

    A hash is remembered by path, size, modification time in nanoseconds and inode.

    Raises:
        DataError: naming the file that is missing or cannot be read.
    """
    wanted = list(names)
    kept = place("hashes", os.path.abspath(root), "json")
    remembered = known(kept)
    learned: Known = {}

    def hashed(name: str) -> tuple[int, str]:
        try:
            stat = os.stat(root / name)
            identity = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
            entry = remembered.get(name)
            if isinstance(entry, list) and entry[:-1] == identity:
                return stat.st_size, str(entry[-1])
            content = sha256(root / name)
        except FileNotFoundError:
            raise DataError(f"file {root / name} is missing") from None
        except OSError as error:
            raise DataError(f"file {root / name} cannot be read: {error.strerror}") from None
        if time.time_ns() - stat.st_mtime_ns > SETTLED_NS:
            learned[name] = [*identity, content]
        return stat.st_size, content

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        hashes = list(pool.map(hashed, wanted))
    if learned:
        remember(kept, learned)
    return hashes


def content_hash(path: Path) -> str:
    """SHA-256 of one file, in hex; see `content_hashes`."""
    ((_, content),) = content_hashes(path.parent, [path.name])
    return content


def place(kind: str, key: str, suffix: str) -> Path:
    """The file of the cache that belongs to a key."""
    return folder() / kind / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.{suffix}"


def known(place: Path) -> Known:
    """What `remember` left there; empty where there is nothing, or nothing of ours."""
    try:
        stored = json.loads(place.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}


def remember(place: Path, learned: Known) -> None:
    """Add to what is known."""
    write(place, json.dumps({**known(place), **learned}).encode())


def write(place: Path, content: bytes) -> None:
    """Write a file of the cache whole, or not at all."""
    temporary = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=".tmp-")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, place)
    except OSError:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
