"""Reading an artifact: every byte is checked, nothing in it is trusted."""

import hashlib
import os
import re
import stat
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pear_cli.errors import CorruptArtifact, MissingArtifact, OldSchema, StoreError, near
from pear_cli.store import load_tensors
from pear_cli.store.canonical import SCHEMA, parse
from pear_cli.system.environment import memory

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
"""Holds the manifest's own hash, in the format of `sha256sum -c`."""

LARGEST_MANIFEST = 1 << 26
"""Bytes; none of pear's comes near."""

KEY = re.compile(r"[0-9a-f]{32}")
STAGE = re.compile(r"[a-z][a-z0-9_-]{0,40}")
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
SHA256 = re.compile(r"[0-9a-f]{64}")
FIELDS: dict[str, type | tuple[type, ...]] = {
    "stage": str,
    "key": str,
    "inputs": dict,
    "config": dict,
    "metrics": dict,
    "accounting": dict,
    "files": dict,
    "environment": dict,
    "seconds": (int, float),
    "created_at": str,
}


@dataclass(frozen=True)
class Artifact:
    """A complete, immutable result of one stage: a folder of files and the manifest that describes them."""

    path: Path
    manifest: dict[str, Any] = field(compare=False, repr=False)
    _checked: set[str] = field(default_factory=set, compare=False, repr=False)

    @classmethod
    def at(cls, path: Path, name: tuple[str, str] | None = None) -> "Artifact":
        """Open the artifact in a folder, which need not be in a store.

        Args:
            path: the folder.
            name: the stage and the key that it must have, if known.

        Raises:
            MissingArtifact: no manifest, so not an artifact.
            CorruptArtifact: a manifest that is damaged, not ours, or another artifact's.
            OldSchema: a manifest of an older pear.
            StoreError: a manifest of a newer pear, or one that cannot be read.
        """
        artifact = cls(path, _read_manifest(path))
        if name is not None and name != (artifact.stage, artifact.key):
            raise corrupt(path, f"its {MANIFEST} is that of {artifact.stage}/{artifact.key}")
        return artifact

    @property
    def stage(self) -> str:
        """Name of the stage that made it."""
        return str(self.manifest["stage"])

    @property
    def key(self) -> str:
        """Its name: a hash of all that decides the content."""
        return str(self.manifest["key"])

    @property
    def inputs(self) -> dict[str, str]:
        """Name -> key of each artifact that this one was made from."""
        return dict(self.manifest["inputs"])

    @property
    def created(self) -> datetime:
        """When it was published; knows its time zone."""
        return datetime.fromisoformat(self.manifest["created_at"])

    @property
    def size(self) -> int:
        """Bytes of all files together, without the manifest."""
        return sum(file["bytes"] for file in self.manifest["files"].values())

    def read(self, name: str) -> bytes:
        """Return the content of a file; its size is checked, and its sha256 once by each object.

        Raises:
            MissingArtifact: the manifest lists no such file.
            CorruptArtifact: the file is gone, a link, or not what the manifest says.
        """
        files = self.manifest["files"]
        if name not in files:
            listed = ", ".join(files) or "none"
            raise MissingArtifact(f'{self.path} has no file "{name}"{near(name, files)} files: {listed}')
        content = _read_file(self.path, name, files[name]["bytes"])
        if name not in self._checked:
            if hashlib.sha256(content).hexdigest() != files[name]["sha256"]:
                raise corrupt(self.path, f"{name} is damaged (its sha256 is not the one in the manifest)")
            self._checked.add(name)
        return content

    def tensors(self, name: str) -> "dict[str, Tensor]":
        """Return the tensors of a safetensors file, on the CPU, in the dtypes as saved (see `read`)."""
        name = with_suffix(name, ".safetensors")
        content = self.read(name)
        try:
            return load_tensors(content)
        except ValueError as error:
            raise corrupt(self.path, f"{name} is not a safetensors file ({error})") from error

    def metadata(self, name: str) -> dict[str, str]:
        """Return the text in the header of a safetensors file (see `read`)."""
        name = with_suffix(name, ".safetensors")
        content = self.read(name)
        header = _parse(self.path, name, content[8 : 8 + int.from_bytes(content[:8], "little")])
        text = header.get("__metadata__", {}) if isinstance(header, dict) else None
        if not isinstance(text, dict):
            raise corrupt(self.path, f"{name} has no safetensors header")
        return text

    def json(self, name: str) -> Any:
        """Return the content of a JSON file (see `read`)."""
        name = with_suffix(name, ".json")
        return _parse(self.path, name, self.read(name))

    def verify(self) -> None:
        """Check the manifest and every file again.

        Raises:
            CorruptArtifact: names the first file that is not what it was.
        """
        _read_manifest(self.path)
        self._checked.clear()
        for name in self.manifest["files"]:
            self.read(name)


def is_artifact(folder: Path) -> bool:
    """Whether a folder is an artifact, sound or damaged: it has a manifest, or the seal of a lost one."""
    return any(os.path.lexists(folder / name) for name in (MANIFEST, SEAL))


def name_of(folder: Path) -> str:
    """Return `<stage>/<key>` of an artifact's folder."""
    return f"{folder.parent.name}/{folder.name}"


def named_keys(folder: Path) -> set[str]:
    """Return every key that a manifest names, of whatever schema: all that it may have been made from."""
    content = _read_file(folder, MANIFEST, most=LARGEST_MANIFEST)
    return set(KEY.findall(content.decode(errors="replace"))) - {folder.name}


def corrupt(path: Path, what: str) -> CorruptArtifact:
    """Return the error for a damaged artifact, with its remedy."""
    return CorruptArtifact(f"{path}: {what}; remove it and run again: pear rm {path}")


def with_suffix(name: str, suffix: str) -> str:
    """Return the file name with its suffix, given or not."""
    return name if name.endswith(suffix) else name + suffix


def _read_file(folder: Path, name: str, size: int | None = None, most: int | None = None) -> bytes:
    """Read a plain file; a link is refused wherever it leads, a pipe or device is never waited for."""
    try:
        flags = os.O_NOFOLLOW | os.O_NONBLOCK
        with open(folder / name, "rb", opener=lambda path, mode: os.open(path, mode | flags)) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise corrupt(folder, f"{name} is not a plain file")
            if size is not None and found.st_size != size:
                raise corrupt(folder, f"{name} has {found.st_size} bytes, the manifest says {size}")
            if found.st_size > (most or memory()):
                raise StoreError(f"{folder / name} has {found.st_size} bytes, too many to be read here")
            return file.read()
    except FileNotFoundError as error:
        raise corrupt(folder, f"{name} is missing") from error
    except PermissionError as error:
        raise StoreError(f"{folder / name}: no permission to read it; change its owner or mode") from error
    except OSError as error:
        raise corrupt(folder, f"{name} cannot be read ({error.strerror})") from error


def _parse(folder: Path, name: str, content: bytes) -> Any:
    try:
        return parse(content)
    except ValueError as error:
        raise corrupt(folder, f"{name} is not valid JSON ({error})") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content = _read_file(path, MANIFEST, most=LARGEST_MANIFEST)
    except CorruptArtifact:
        if is_artifact(path):
            raise
        raise MissingArtifact(f"{path} is not an artifact (no {MANIFEST}); see: pear ls") from None
    manifest = _parse(path, MANIFEST, content)
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise corrupt(path, f"{MANIFEST} has the schema {schema!r}")
    if schema > SCHEMA:
        raise StoreError(f"{path} has schema {schema}, this pear reads up to {SCHEMA}; upgrade pear")
    if schema < SCHEMA:
        raise OldSchema(
            f"{path} has schema {schema}, this pear reads {SCHEMA}; run its experiment again, or export it "
            "with the pear that made it"
        )
    if _read_file(path, SEAL, most=LARGEST_MANIFEST) != seal(content):
        raise corrupt(path, f"{MANIFEST} is damaged (its sha256 is not the one in {SEAL})")
    if wrong := _first_wrong(manifest):
        raise corrupt(path, f"{MANIFEST} has no sound {wrong}")
    return manifest  # type: ignore[no-any-return]


def seal(content: bytes) -> bytes:
    """Return the line that vouches for a manifest."""
    return f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n".encode()


def _first_wrong(manifest: dict[str, Any]) -> str | None:
    """Return the first field that is absent, of a wrong type or unsafe to follow; None if all are sound."""
    for name, kind in FIELDS.items():
        if not isinstance(manifest.get(name), kind):
            return name
    if not STAGE.fullmatch(manifest["stage"]):
        return "stage"
    if not KEY.fullmatch(manifest["key"]):
        return "key"
    inputs = manifest["inputs"].items()
    if not all(STAGE.fullmatch(role) and isinstance(key, str) and KEY.fullmatch(key) for role, key in inputs):
        return "inputs"
    for name, entry in manifest["files"].items():
        if not (FILE.fullmatch(name) and isinstance(entry, dict) and type(entry.get("bytes")) is int):
            return f"file {name!r}"
        if not (isinstance(entry.get("sha256"), str) and SHA256.fullmatch(entry["sha256"])):
            return f"file {name!r}"
    try:
        aware = datetime.fromisoformat(manifest["created_at"]).tzinfo is not None
    except ValueError:
        aware = False
    return None if aware else "created_at"
