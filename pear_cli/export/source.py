"""Which model a word on the command line means: an artifact in a store, or an exported file."""

from pathlib import Path

from pear_cli.errors import MissingArtifact, StoreError
from pear_cli.export import single_file
from pear_cli.store.artifact import Artifact
from pear_cli.store.store import Store

HOLDS = "model.json"


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
    found = named(source, store)
    return found if isinstance(found, Path) else holder(*found)


def named(source: str | Path, store: Store | None) -> tuple[Artifact, Store] | Path:
    """The artifact that is named, whatever it is, with its store; or the exported file. See `find`."""
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        return Artifact.at(path), Store(path.resolve().parent.parent)
    if path.suffix == ".safetensors":
        raise MissingArtifact(f"{source}: no such file")
    if store is None:
        raise MissingArtifact(f"{source}: no such file or folder; a key needs its store beside it")
    return store.resolve(str(source)), store


def origin(source: str | Path, store: Store | None) -> str:
    """The key of the artifact that holds a model; empty where none did."""
    found = find(source, store)
    return str(single_file.read(found).origin.get("key", "")) if isinstance(found, Path) else found.key


def evaluation(artifact: Artifact, store: Store) -> Artifact | None:
    """An artifact that is an evaluation, or the first one of its model by key; None where there is none."""
    if artifact.stage == "eval":
        return artifact
    known = (a for a in store.artifacts("eval") if artifact.key in a.inputs.values())
    return min(known, key=lambda found: found.key, default=None)


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
