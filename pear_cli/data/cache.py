"""What can be computed again but need not be: content hashes of files, generated arrays, decoded images.

Everything lies below `$PEAR_CACHE`, or `~/.cache/pear`. A cache that is broken, foreign or cannot be
written is as good as none: nothing here raises for it. Files appear whole, by one rename, so processes
that write at the same time cost each other at most a repeated computation.
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from pear_cli.data.base import Labels, Pixels
from pear_cli.errors import DataError

SETTLED_NS = 2_000_000_000  # a file changed more recently could change again within one clock tick
Known = dict[str, list[object]]


def folder() -> Path:
    """Where the cache lies."""
    named = os.environ.get("PEAR_CACHE")
    return Path(named or os.path.expanduser("~/.cache/pear"))


def free() -> int:
    """Bytes that are free where the cache lies."""
    place = folder().absolute()
    there = next(path for path in (place, *place.parents) if path.is_dir())
    return shutil.disk_usage(there).free


def content_hashes(root: Path, names: Iterable[str]) -> list[tuple[int, str]]:
    """Size in bytes and SHA-256, in hex, of the files `names` below `root`, in their order.

    A hash is remembered by path, size, modification time in nanoseconds and inode.

    Raises:
        DataError: naming the file that is missing or cannot be read.
    """
    wanted = list(names)
    place = _place("hashes", os.path.abspath(root), "json")
    known = _known(place)
    learned: Known = {}

    def hashed(name: str) -> tuple[int, str]:
        try:
            stat = os.stat(root / name)
            identity = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
            entry = known.get(name)
            if isinstance(entry, list) and entry[:-1] == identity:
                return stat.st_size, str(entry[-1])
            content = _sha256(root / name)
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
        _write(place, json.dumps({**_known(place), **learned}).encode())
    return hashes


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
