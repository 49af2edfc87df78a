"""Writing a file that a person asked for: whole, or not at all."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from pear_cli.errors import ConfigError


def write(path: Path, content: bytes) -> None:
    """Write a file; one of that name is replaced at the end, in one step.

    Raises:
        ConfigError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.write(content)
                file.close()
                os.chmod(file.name, 0o666 & ~_umask())
                os.replace(file.name, path)
            except OSError:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise ConfigError(f"--out {path} cannot be written: {error.strerror}; name another file") from None


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
