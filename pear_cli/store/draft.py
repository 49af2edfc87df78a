"""Writing an artifact: a temporary folder first, its manifest last, then one rename."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pear_cli.errors import ConfigError, CorruptArtifact, MissingArtifact, StoreError
from pear_cli.store import save_tensors, tensorfile
from pear_cli.store.artifact import FILE, MANIFEST, SEAL, Artifact, seal, with_suffix
from pear_cli.store.canonical import SCHEMA, parse, plain
from pear_cli.system.environment import environment as environment_of_this_process

if TYPE_CHECKING:
    from torch import Tensor

QUARANTINE = ".quarantine"
"""Folder at the store's root for damaged artifacts that stood in the way."""

UNLOCKED_SECONDS = 24 * 3600.0
"""A draft that nobody's lock covers counts as abandoned after this time."""

UNLOCKED = "-free"
"""Ends the name of a draft made without the key's lock, so that its age decides when it is stale."""


class Draft:
    """An artifact in the making: `publish` turns its folder, `path`, into the artifact by one rename."""

    def __init__(self, path: Path, stage: str, key: str) -> None:
        self.path = path
        self.stage = stage
        self.key = key

    def save_tensors(
        self, name: str, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write tensors as safetensors; the same tensors and metadata always give the same bytes.

        Args:
            name: file name; `.safetensors` is added where it is missing.
            tensors: on any device, of any dtype; two that share memory are an error: store one.
            metadata: text for the file's header.
        """
        content = save_tensors({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        if metadata:
            content = tensorfile.join(*tensorfile.split(content), metadata)
        self._write(with_suffix(name, ".safetensors"), content)

    def save_json(self, name: str, value: object, indent: int | None = 1) -> None:
        """Write a value as JSON; dataclasses, enums and tuples are allowed, nan and infinities are not."""
        self._write(with_suffix(name, ".json"), _as_json(value, name, indent))

    def publish(
        self,
        *,
        inputs: Mapping[str, str],
        config: object,
        metrics: Mapping[str, object],
        accounting: Mapping[str, object],
        seconds: float,
        environment: Mapping[str, object] | None = None,
    ) -> Artifact:
        """Seal the files with a manifest and move the draft into its place.

        Where a sound artifact stands there by now, that one is returned and the draft is dropped; a damaged
        one is moved to `.quarantine`. The workspace of the key is removed.

        Args:
            inputs: name -> key of each artifact that was read.
            config: the stage's own configuration, as in its key.
            metrics: name -> finite number, or None where there is none.
            accounting: parameters, bytes, MACs, memory and speed by name.
            seconds: time that the stage took.
            environment: what `environment(device=…, threads=…)` says; without device and threads if None.

        Raises:
            StoreError: the folder cannot be written, or its content not read back; nothing is published.
        """
        with writing(self.path):
            manifest = {
                "schema": SCHEMA,
                "stage": self.stage,
                "key": self.key,
                "inputs": inputs,
                "config": config,
                "metrics": metrics,
                "accounting": accounting,
                "files": {file.name: _describe(file) for file in sorted(self.path.iterdir())},
                "environment": environment_of_this_process() if environment is None else environment,
                "seconds": float(seconds),
                "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            }
            content = _as_json(manifest, "manifest")
            for name, text in ((SEAL, seal(content)), (MANIFEST, content)):
                self._write(name, text)
                _sync(self.path / name)
            _sync(self.path)
            if is_shared(self.path.parent.parent):
                for path in (self.path, *self.path.iterdir()):
                    open_to_group(path)
            Artifact.at(self.path, (self.stage, self.key))  # what cannot be read back is not published
            artifact = self._move_into_place()
            _sync(artifact.path.parent)
            discard(self.path.with_name(f".work-{self.key}"))
        return artifact

    def _move_into_place(self) -> Artifact:
        target = self.path.with_name(self.key)
        while True:
            try:
                os.rename(self.path, target)
                return Artifact.at(target, (self.stage, self.key))
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            try:
                existing = Artifact.at(target, (self.stage, self.key))
                existing.verify()
                return existing
            except (CorruptArtifact, MissingArtifact):
                quarantine(target)

    def _write(self, name: str, content: bytes) -> None:
        with writing(self.path):
            (self.path / name).write_bytes(content)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a failure of the disk into a StoreError that names the folder and what to do."""
    try:
        yield
    except OSError as error:
        what = f"cannot write in {folder} ({error.strerror or error})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"{what}; free some space (pear gc) or move runtime.store") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StoreError(f"{what}; set runtime.store to a folder that you may write to") from error
        raise StoreError(f"{what}; check the disk, or set runtime.store to another folder") from error


def refuse_link(path: Path) -> None:
    """Refuse a link in a store where pear writes or deletes: it may lead out of it.

    Raises:
        StoreError: it is one.
    """
    if path.is_symlink():
        raise StoreError(f"{path} is a link, and pear follows none in a store to write or delete; remove it")


def is_shared(root: Path) -> bool:
    """Whether the group of a store may write in it: what one of its users makes, the others may remove."""
    with suppress(OSError):
        return bool(root.stat().st_mode & stat.S_IWGRP)
    return False


def open_to_group(path: Path) -> None:
    """Let the group do what the owner may; what is made in a folder gets the folder's group."""
    with suppress(OSError):  # another user's: it is open already
        mode = path.stat().st_mode
        inherit = stat.S_ISGID if stat.S_ISDIR(mode) else 0
        path.chmod(stat.S_IMODE(mode) | (mode & stat.S_IRWXU) >> 3 | inherit)


def draft_path(folder: Path, key: str, *, locked: bool) -> Path:
    """Return a fresh name for a draft of a key in its stage's folder."""
    return folder / f".tmp-{key}-{os.getpid()}-{secrets.token_hex(4)}{'' if locked else UNLOCKED}"


def quarantine(path: Path) -> Path | None:
    """Move a damaged artifact out of its place; return where to, None if somebody else was faster."""
    place = path.parent.parent / QUARANTINE
    refuse_link(place)
    place.mkdir(exist_ok=True)
    aside = place / f"{path.parent.name}-{path.name}-{secrets.token_hex(4)}"
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return None
    return aside


def discard(path: Path) -> None:
    """Delete a folder, a file or a link as far as that is possible; what stays is gc's."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def stale_drafts(folder: Path, key: str) -> list[Path]:
    """Return the drafts of a key that nobody writes any more, given that the caller holds the key's lock."""
    with os.scandir(folder) as entries:
        drafts = [Path(entry.path) for entry in entries if entry.name.startswith(f".tmp-{key}-")]
    return [
        draft for draft in drafts if not draft.name.endswith(UNLOCKED) or age_of(draft) > UNLOCKED_SECONDS
    ]


def _stats(path: Path) -> list[os.stat_result]:
    """Return the status of a file, or of a folder and all in it; others may be deleting there."""
    inside = [Path(folder, name) for folder, folders, files in os.walk(path) for name in (*folders, *files)]
    found = []
    for entry in (path, *inside):
        with suppress(FileNotFoundError):
            found.append(entry.lstat())
    return found


def size_of(path: Path) -> int:
    return sum(status.st_size for status in _stats(path) if stat.S_ISREG(status.st_mode))


def age_of(folder: Path) -> float:
    """Return the seconds since a folder or something in it last changed."""
    now = time.time()
    return now - max((status.st_mtime for status in _stats(folder)), default=now)


def _describe(file: Path) -> dict[str, object]:
    if not FILE.fullmatch(file.name) or file.is_symlink() or not file.is_file():
        raise StoreError(f"{file} cannot be part of an artifact: only plain files with plain names can")
    _sync(file)
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"sha256": digest, "bytes": file.stat().st_size}


def _as_json(value: object, where: str, indent: int | None = 1) -> bytes:
    try:
        content = json.dumps(plain(value, where), indent=indent, allow_nan=False) + "\n"
        parse(content)
    except (ConfigError, ValueError) as error:
        raise StoreError(f"not stored: {where} could not be read back: {error}") from error
    return content.encode()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
