"""Generated arrays that are kept rather than made again, in the cache of `pear_cli.store.cache`."""

import io
import zipfile
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from pear_cli.data.images import Labels, Pixels
from pear_cli.data.pinned import sha256
from pear_cli.store.cache import place, write
from pear_cli.system import progress

Arrays = tuple[Pixels, Labels]


def arrays(title: str, expected: str, make: Callable[[], Arrays]) -> tuple[Pixels, Labels, str]:
    """The arrays of a hash from the cache; what lies there with another hash, or broken, is made again.

    Args:
        title: what they are, for messages.
        expected: their hash.

    Returns:
        Pixels, labels, and their hash: the expected one, unless `make` gives others.
    """
    kept = place("arrays", expected, "npz")
    if kept.exists():
        with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            with np.load(io.BytesIO(kept.read_bytes()), allow_pickle=False) as stored:
                pixels, labels = stored["pixels"], stored["labels"]
            if sha256(pixels, labels) == expected:
                return pixels, labels, expected
        progress.say(f"{kept} is damaged or does not hold the images of {title}; they are made again")
    pixels, labels = make()
    buffer = io.BytesIO()
    np.savez(buffer, pixels=pixels, labels=labels)
    found = sha256(pixels, labels)
    write(place("arrays", found, "npz"), buffer.getvalue())
    return pixels, labels, found
