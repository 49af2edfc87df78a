"""One safetensors file that holds all of a task's model but the frozen backbone.

Its tensors are the trained ones (`adapter.…`, `head.…`, `backbone.…`), the kept knowledge (`knowledge.…`)
and the logits that prove a faithful copy (`probe.logits`). Its header holds texts: `pear_schema`;
`description`, the content of model.json; `origin`, the manifest of the artifact; `about`, its dataset, epochs
and accuracy; where it is known, `importance`, or, of channels and blocks, which may outnumber the tensors'
values, `layers`: how many each has left, and had; and `sha256`, the hash of everything else. The hash finds
damage; it does not say who made the file.
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pear_cli.errors import ConfigError, CorruptArtifact, MissingArtifact, StoreError
from pear_cli.store import load_tensors, save_tensors, tensorfile
from pear_cli.store.canonical import canonical, parse
from pear_cli.system.environment import memory

if TYPE_CHECKING:
    from torch import Tensor


SCHEMA = 1
TRAINED = ("adapter.", "head.", "backbone.")
KNOWLEDGE = "knowledge."
PROBE = "probe.logits"
MERGED = "pear_merged"
"""The text in the header of a merged model, which is another kind of file."""


@dataclass(frozen=True)
class SingleFile:
    """An exported file whose hash was checked; nothing else of it is trusted yet.

    Args:
        path: where it was read.
        texts: its header, by name.
        content: all its bytes.
    """

    path: Path
    texts: Mapping[str, str]
    content: bytes

    @property
    def description(self) -> Any:
        """The content of model.json."""
        return self._json("description")

    @property
    def origin(self) -> Any:
        """The manifest of the artifact that was exported."""
        return self._json("origin")

    @property
    def about(self) -> Any:
        """Name of the dataset, epochs of training, and, where evaluated, accuracy and images; or None."""
        return self._json("about") if "about" in self.texts else None

    @property
    def importance(self) -> Any:
        """The content of importance.json, or None."""
        return self._json("importance") if "importance" in self.texts else None

    @property
    def layers(self) -> Any:
        """How many units each layer has left, and had, by `<module>.channels` or `<site>.blocks`, or None."""
        return self._json("layers") if "layers" in self.texts else None

    @functools.cached_property
    def tensors(self) -> "dict[str, Tensor]":
        """All tensors, on the CPU."""
        try:
            return load_tensors(self.content)
        except ValueError as error:
            raise damaged(self.path, str(error)) from None

    @property
    def trained(self) -> "dict[str, Tensor]":
        """The trained tensors."""
        foreign = [n for n in self.tensors if not n.startswith((*TRAINED, KNOWLEDGE)) and n != PROBE]
        if foreign:
            raise damaged(self.path, f"it has the unknown tensor {foreign[0]!r}")
        return {name: tensor for name, tensor in self.tensors.items() if name.startswith(TRAINED)}

    @property
    def knowledge(self) -> "dict[str, Tensor]":
        """The kept knowledge, encoded."""
        kept = {name: tensor for name, tensor in self.tensors.items() if name.startswith(KNOWLEDGE)}
        return {name.removeprefix(KNOWLEDGE): tensor for name, tensor in kept.items()}

    @property
    def probe(self) -> "Tensor":
        """Logits (4, K) of the fixed batch."""
        if PROBE not in self.tensors:
            raise damaged(self.path, f"it lacks {PROBE}")
        return self.tensors[PROBE]

    def to_json(self) -> dict[str, Any]:
        """Where it comes from and what it describes."""
        names = ("description", "origin", "about", "importance", "layers")
        return {"path": str(self.path), "sha256": self.texts["sha256"]} | {n: getattr(self, n) for n in names}

    def _json(self, name: str) -> Any:
        try:
            return parse(self.texts[name])
        except (KeyError, ValueError):
            raise damaged(self.path, f"its header has no sound {name}") from None


def read(path: Path) -> SingleFile:
    """Read an exported file and check its hash.

    Raises:
        MissingArtifact: no such file.
        CorruptArtifact: altered, cut short, or no file of pear.
        StoreError: exported by a newer pear.
        ConfigError: a merged model.
    """
    try:
        if path.stat().st_size > memory():
            raise StoreError(f"{path} has {path.stat().st_size} bytes, too many to be read here")
        content = path.read_bytes()
    except FileNotFoundError:
        raise MissingArtifact(f"{path}: no such file") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    try:
        header, data = tensorfile.split(content)
    except ValueError as error:
        raise damaged(path, str(error)) from None
    texts = header.get("__metadata__")
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise damaged(path, "it is a safetensors file, but not one that pear exported")
    if MERGED in texts:
        raise ConfigError(
            f"{path} is a merged model: plain weights for timm.create_model and timm.models.load_checkpoint; "
            "pear works with the adapted model that it was made of"
        )
    schema = texts.get("pear_schema", "")
    if not schema.isdecimal():
        raise damaged(path, "it is a safetensors file, but not one that pear exported")
    if int(schema) > SCHEMA:
        raise StoreError(
            f"{path} has schema {schema}, this pear reads up to {SCHEMA}; upgrade pear to read it"
        )
    if texts.get("sha256") != _hash(header, data):
        raise damaged(path, "its content is not what was exported (the sha256 in its header is another)")
    return SingleFile(path, texts, content)


def damaged(path: Path, what: str) -> CorruptArtifact:
    """The error for a file that cannot be used, with its remedy."""
    return CorruptArtifact(f"{path}: {what}; export it again: pear export")


def serialise(tensors: "Mapping[str, Tensor]", texts: Mapping[str, str]) -> bytes:
    """The file's bytes, with the hash of all the rest among its texts."""
    header, data = tensorfile.split(save_tensors(tensors))
    sha256 = _hash({"__metadata__": dict(texts), **header}, data)
    return tensorfile.join(header, data, {**texts, "sha256": sha256})


def _hash(header: Mapping[str, Any], data: memoryview) -> str:
    """sha256 of the header but for the hash itself, in canonical form, and of the tensor bytes."""
    texts = {name: text for name, text in header["__metadata__"].items() if name != "sha256"}
    try:
        spelled = canonical({**header, "__metadata__": texts})
    except (ConfigError, RecursionError):
        return ""  # no header that safetensors writes
    digest = hashlib.sha256(spelled.encode())
    digest.update(data)
    return digest.hexdigest()
