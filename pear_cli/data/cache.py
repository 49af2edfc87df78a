"""What can be computed again but need not be: content hashes of files, generated arrays.

Everything lies below `$PEAR_CACHE`, or `~/.cache/pear`. A cache that is broken, foreign or cannot be
written is as good as none: nothing here raises for it. Files appear whole, by one rename, so processes
that write at the same time cost each other at most a repeated computation.
"""

import hashlib
import io
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pear_cli.data import parallel
from pear_cli.data.base import Labels, Pixels
from pear_cli.errors import DataError

SETTLED_NS = 2_000_000_000  # a file changed more recently could change again within one clock tick
Known = dict[str, Any]


def folder() -> Path:
    """Where the cache lies."""
    named = os.environ.get("PEAR_CACHE")
    return Path(named or os.path.expanduser("~/.cache/pear"))


def content_hashes(
    root: Path, names: Iterable[str], step: Callable[[], None] = lambda: None
) -> list[tuple[int, str]]:
    """Size in bytes and SHA-256, in hex, of the files `names` below `root`, in their order.

    A hash is remembered by path, size, modification time in nanoseconds and inode, also where the reading
    is interrupted.

    Args:
        step: called after each file.

    Raises:
        DataError: naming the file that is missing or cannot be read.
    """
    place = _place("hashes", os.path.abspath(root), "json")
    known = _known(place)
    learned: Known = {}
    hashes: list[tuple[int, str]] = []
    unread: list[tuple[int, str]] = []
    for name in names:
        state = _identity(root / name)
        entry = known.get(name)
        if isinstance(entry, list) and entry[:-1] == state:
            hashes.append((state[0], str(entry[-1])))
            step()
        else:
            unread.append((len(hashes), name))
            hashes.append((0, ""))

    def read(number: int, name: str) -> tuple[int, int, str]:
        state = _identity(root / name)
        try:
            content = _sha256(root / name)
        except OSError as error:
            raise DataError(f"file {root / name} cannot be read: {error.strerror}") from None
        if time.time_ns() - state[1] > SETTLED_NS:
            learned[name] = [*state, content]
        return number, state[0], content

    try:
        for number, size, content in parallel.each(lambda item: read(*item), unread):
            hashes[number] = (size, content)
            step()
    finally:
        if learned:
            _write(place, json.dumps({**_known(place), **learned}).encode())
    return hashes


def _identity(path: Path) -> list[int]:
    """Size, modification time and inode: what tells whether a file is the one that was read."""
    try:
        state = os.stat(path)
    except FileNotFoundError:
        raise DataError(f"file {path} is missing") from None
    except OSError as error:
        raise DataError(f"file {path} cannot be read: {error.strerror}") from None
    return [state.st_size, state.st_mtime_ns, state.st_ino]


def recall(key: str) -> dict[str, Any]:
    """The facts that were remembered under a key; none where there are none."""
    return _known(_place("facts", key, "json"))


def remember(key: str, facts: Mapping[str, object]) -> None:
    """Keep facts, which JSON can hold, under a key that names all that they are about."""
    _write(_place("facts", key, "json"), json.dumps(facts).encode())


def arrays(key: str, make: Callable[[], tuple[Pixels, Labels]]) -> tuple[Pixels, Labels]:
    """The arrays that `make` gives, from the cache where they lie there unharmed.

    Args:
        key: names all that determines the arrays.
    """
    place = _place("arrays", key, "npz")
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with np.load(io.BytesIO(place.read_bytes()), allow_pickle=False) as stored:
            pixels, labels, check = stored["pixels"], stored["labels"], str(stored["sha256"])
        if check == _sha256_arrays(pixels, labels):
            return pixels, labels
    pixels, labels = make()
    buffer = io.BytesIO()
    np.savez(buffer, pixels=pixels, labels=labels, sha256=np.array(_sha256_arrays(pixels, labels)))
    _write(place, buffer.getvalue())
    return pixels, labels


def _place(kind: str, key: str, suffix: str) -> Path:
    return folder() / kind / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.{suffix}"


def _known(place: Path) -> Known:
    try:
        stored = json.loads(place.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _write(place: Path, content: bytes) -> None:
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_arrays(pixels: Pixels, labels: Labels) -> str:
    facts = f"{pixels.dtype} {pixels.shape} {labels.dtype} {labels.shape}".encode()
    return hashlib.sha256(facts + pixels.tobytes() + labels.tobytes()).hexdigest()
