"""The file that an export writes: free, or given up by `force`; written whole or not at all."""

import fcntl
import os
import secrets
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from pear_cli.errors import ConfigError, StoreError
from pear_cli.store.store import is_locked

STALE = f".*.*.{'[0-9a-f]' * 8}.new"
"""What a killed export leaves; one that is being written is locked."""


def check(
    out: Path, *, force: bool, suffix: str = ".safetensors", name: str = "--out", by: str = "--force"
) -> None:
    """Refuse a file that should not be written, before anything is computed.

    Args:
        suffix: that the file must have.
        name, by: how messages call the option that names the file, and the one that gives it up.

    Raises:
        ConfigError: `out` is there already or has another ending than `suffix`.
    """
    if out.suffix != suffix:
        raise ConfigError(f"{name} {out}: an exported file ends in {suffix}")
    if out.is_dir() or (out.exists() and not force):
        raise ConfigError(f"{name} {out} is there already; choose another name, or {by}")


def needs(*packages: str, extra: str) -> None:
    """Raise ConfigError unless packages are installed, which an extra of pear brings."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"this format needs the package {missing[0]}, which is not installed: "
            f"pip install 'pear-cli[{extra}]'"
        )


def write(out: Path, content: bytes) -> None:
    """Write the file beside its place, then rename it; what killed exports left in that folder is removed.

    Raises:
        StoreError: it cannot be written.
    """
    new = out.with_name(f".{out.name}.{secrets.token_hex(4)}.new")
    for stale in out.parent.glob(STALE):
        if not is_locked(stale):
            with suppress(OSError):
                stale.unlink()
    try:
        with new.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, out)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)
