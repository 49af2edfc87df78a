"""Models written into single files: stored ones, and those in memory."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pear_cli.config.choices import Unit
from pear_cli.errors import ConfigError
from pear_cli.experiment.lineage import Lineage
from pear_cli.export import target
from pear_cli.export.single_file import KNOWLEDGE, PROBE, SCHEMA, serialise
from pear_cli.export.source import evaluation, holder, named
from pear_cli.model import models
from pear_cli.model.description import Description
from pear_cli.pruning.mask import Mask
from pear_cli.scoring.importance import Importance
from pear_cli.store.artifact import Artifact
from pear_cli.store.canonical import canonical
from pear_cli.store.store import Store
from pear_cli.system.environment import environment


def export(source: str | Path, out: Path, store: Store | None = None, *, force: bool = False) -> Path:
    """Write a stored model into one file, whole or not at all.

    The frozen backbone is not in it: its weights are bundled, timm's or the user's, and the description has
    their hash. The same artifact always gives the same bytes.

    Args:
        source: a train, checkpoint or eval artifact: its folder, or a key of `store`.
        out: the file, which must end in `.safetensors`.
        store: where keys are looked up.
        force: replace a file that is there.

    Returns:
        `out`.

    Raises:
        ConfigError: `out` is there already or has another ending, or `source` is an exported file itself.
        StoreError: no model there, or the file cannot be written.
    """
    target.check(out, force=force)
    found = named(source, store)
    if isinstance(found, Path):
        raise ConfigError(f"{found} is an exported file already; copy it")
    artifact = holder(*found)
    tensors = dict(artifact.tensors("adapters"))
    if "knowledge.safetensors" in artifact.manifest["files"]:
        tensors |= {KNOWLEDGE + name: tensor for name, tensor in artifact.tensors("knowledge").items()}
    tensors[PROBE] = artifact.tensors("probe")["logits"]
    texts = {
        "pear_schema": str(SCHEMA),
        "description": canonical(portable(artifact.json("model"))),
        "origin": canonical(artifact.manifest),
        "about": canonical(_about(*found)),
        **{name: canonical(value) for name, value in _units(artifact).items()},
    }
    target.write(out, serialise(tensors, texts))
    return out


def save(
    model: nn.Module,
    description: Description,
    kept: Mapping[str, Tensor],
    out: Path,
    importance: Importance | None,
    *,
    force: bool,
) -> Path:
    """Write a model in memory into one file, as `export` does with a stored one.

    Args:
        model: an adapted model.
        description, kept: of the model as it is, and its encoded knowledge.
        out: the file, which must end in `.safetensors`.
        importance: that its adapters were pruned by, if any.
        force: replace a file that is there.

    Raises:
        ConfigError, StoreError: as for `export`.
    """
    target.check(out, force=force, name="path", by="overwrite=True")
    tensors = models.tensors(model) | {KNOWLEDGE + name: tensor for name, tensor in kept.items()}
    tensors[PROBE] = models.probe(model, description.size)
    texts = {
        "pear_schema": str(SCHEMA),
        "description": canonical(portable(description.to_json())),
        "origin": canonical({"environment": environment()}),
    }
    if importance is not None and importance.unit not in (Unit.channel, Unit.block):
        texts["importance"] = canonical(importance.to_json())
    target.write(out, serialise(tensors, texts))
    return out


def portable(description: Any) -> dict[str, Any]:
    """A description, checked, without the author's folders: a file of frozen weights keeps its name only."""
    checked = Description.from_json(description)
    weights = checked.backbone.weights and Path(checked.backbone.weights).name  # bundled ones are names
    backbone = dataclasses.replace(checked.backbone, weights=weights)
    return dataclasses.replace(checked, backbone=backbone).to_json()


def _about(artifact: Artifact, store: Store) -> dict[str, Any]:
    """What tells one task from another, of a model or of its evaluation."""
    lineage = Lineage.from_artifact(artifact, store.find)
    epochs = [a.manifest["metrics"].get("epochs", 0) for a in lineage.all if a.stage == "train"]
    metrics = (evaluation(artifact, store) or artifact).manifest["metrics"]
    known = {name: metrics[name] for name in ("accuracy", "images") if name in metrics}
    return {"dataset": lineage.setting("dataset"), "epochs": sum(epochs), **known}


def _units(artifact: Artifact) -> dict[str, Any]:
    """What a reader may want to see of the units that were chosen from; nothing where the store lacks it."""
    store = Store(artifact.path.resolve().parent.parent)
    key = artifact.inputs.get("checkpoint")
    checkpoint = store.find("checkpoint", key) if key else artifact
    keys = checkpoint.inputs if checkpoint else {}
    scores, chosen = (
        store.find(step, keys[step]) if step in keys else None for step in ("score", "prune-share")
    )
    if scores is None or chosen is None:
        return {}
    importance = scores.json("importance")
    if "mask.json" in chosen.manifest["files"]:
        mask = Mask.from_json(chosen.json("mask"))
        if mask.unit in (Unit.channel, Unit.block):
            return {"layers": _left(Importance.from_json(importance), mask)}
    return {"importance": importance}


def _left(importance: Importance, mask: Mask) -> dict[str, tuple[int, int]]:
    """How many units each layer has left, and had."""
    had = Counter(unit.name.rpartition(".")[0] for unit in importance.units)
    lost = Counter(name.rpartition(".")[0] for name in mask.pruned)
    return {layer: (count - lost[layer], count) for layer, count in had.items()}
