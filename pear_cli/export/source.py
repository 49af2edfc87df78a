"""Which model a word on the command line means: an artifact in a store, or an exported file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pear_cli.errors import CorruptArtifact, MissingArtifact, StoreError
from pear_cli.store import Artifact, Store

HOLDS = "model.json"
FETCHING = ("pretrained", "checkpoint", "cache_dir", "hf", "file", "url")
"""Starts of timm arguments that read files or fetch them; a description has no use for those."""


def find(source: str | Path, store: Store | None) -> Artifact | Path:
    """The artifact that holds a model, or the exported file.

    An evaluation stands for the model that it evaluated.

    Args:
        source: an artifact's folder, an exported file, or a key or a unique prefix of one.
        store: where keys are looked up; a folder needs none.

    Raises:
        MissingArtifact: nothing there.
        StoreError: an artifact without a model, such as scores.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        return holder(Artifact.at(path), Store(path.resolve().parent.parent))
    if store is None:
        raise MissingArtifact(f"{source}: no such file or folder; a key needs its store beside it")
    return holder(store.resolve(str(source)), store)


def holder(artifact: Artifact, store: Store) -> Artifact:
    """The artifact that holds the model of `artifact`: itself, or what it evaluated.

    Raises:
        StoreError: it has none.
        MissingArtifact: what it evaluated is gone.
    """
    if artifact.stage == "eval":
        (key,) = set(artifact.inputs.values())
        return store.get("train", key)
    if HOLDS not in artifact.manifest["files"]:
        raise StoreError(
            f"{artifact.path} holds no model: it is a {artifact.stage} artifact; "
            "take a train, checkpoint or eval artifact"
        )
    return artifact


def check_harmless(description: Any, where: Path) -> None:
    """Refuse a description whose settings would do more than state numbers and names.

    Raises:
        CorruptArtifact: an interpolation such as `${oc.env:…}`, or a backbone argument that reads files.
    """
    if any("${" in text for text in _texts(description)):
        raise CorruptArtifact(f"{where}: its description holds an interpolation (${{…}}); it is refused")
    backbone = description.get("backbone") if isinstance(description, dict) else None
    arguments = backbone.get("args") if isinstance(backbone, dict) else None
    for name in arguments if isinstance(arguments, dict) else ():
        if str(name).startswith(FETCHING):
            raise CorruptArtifact(
                f"{where}: its description has the backbone argument {name!r}; it is refused"
            )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield str(name)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
