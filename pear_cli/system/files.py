"""Writing a file whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from pear_cli.errors import ConfigError


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write beside `path`, whose place it takes in one step when the block ends without an error.

    Raises:
        OSError: it cannot be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as file:
        try:
            yield file
            file.close()
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(file.name)
            raise


def write(path: Path, content: bytes) -> None:
    """Write a file that a person asked for; one of that name is replaced.

    Raises:
        ConfigError: it cannot be written there.
    """
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise ConfigError(f"--out {path} cannot be written: {error.strerror}; name another file") from None


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
