"""The whole experiment behind an artifact, read from manifests alone."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pear_cli.config.choices import BatchNorm
from pear_cli.store.artifact import Artifact
from pear_cli.store.canonical import dotted

Find = Callable[[str, str], Artifact | None]
"""(stage, key) -> the artifact, None where it is gone."""

SHORT = {
    "dataset": "dataset.name",
    "backbone": "backbone.name",
    "score": "score.criterion",
    "prune": "prune.ratio",
    "share": "share.rule",
    "knowledge": "knowledge.kind",
}
"""What the name of a group alone means."""

UNKNOWN = "unknown (inputs are lost)"
"""The label where lost inputs leave open what was done, on which data, or by which method."""


@dataclass(frozen=True)
class Lineage:
    """An artifact and all that it was made from.

    Args:
        artifact: the one that is described.
        ancestors: what it was made from, each once, inputs first.
        missing: names of inputs that are gone.
    """

    artifact: Artifact
    ancestors: tuple[Artifact, ...]
    missing: tuple[str, ...]

    @classmethod
    def from_artifact(cls, artifact: Artifact, find: Find) -> "Lineage":
        """Follow the inputs of an artifact, as far as they are there."""
        seen = {(artifact.stage, artifact.key)}  # a damaged store could hold a circle
        ancestors: list[Artifact] = []
        missing: list[str] = []

        def follow(descendant: Artifact) -> None:
            for name, key in descendant.inputs.items():
                place = (stage_of(name), key)
                if place in seen:
                    continue
                seen.add(place)
                ancestor = find(*place)
                if ancestor is None:
                    missing.append(name)
                    continue
                follow(ancestor)
                ancestors.append(ancestor)

        follow(artifact)
        return cls(artifact, tuple(ancestors), tuple(dict.fromkeys(missing)))

    @property
    def all(self) -> tuple[Artifact, ...]:
        """Ancestors, then the artifact itself."""
        return (*self.ancestors, self.artifact)

    def last(self, stage: str) -> Artifact | None:
        """The latest artifact of a stage in the lineage."""
        return next((a for a in reversed(self.all) if a.stage == stage), None)

    @property
    def round(self) -> tuple[int, int]:
        """Which round of pruning it belongs to, and of how many; of the scores of the first, no one knows.

        Those serve an experiment of one round and experiments of several.
        """
        pruned = [a for a in self.all if a.stage == "prune-share"]
        if not pruned or self.artifact.stage == "eval":
            return 1, 1
        steps = pruned[-1].manifest["config"].get("prune", {}).get("steps")
        return len(pruned) + (self.artifact.stage == "score"), steps if isinstance(steps, int) else 1

    @property
    def seconds(self) -> float:
        """Time of the whole experiment, each stage once."""
        return sum(float(a.manifest["seconds"]) for a in self.all)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The experiment's root config, as far as stages keep it."""
        merged: dict[str, Any] = {}
        for artifact in self.all:
            own = dict(artifact.manifest["config"])
            if "test_split" in own:
                own["dataset"] = {name: own.pop(name) for name in ("test_split", "metric") if name in own}
            _merge(merged, own)
        return merged

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """The config with dotted names, and `method` and `dataset` as a table has them.

        A dataset of several tasks goes by name and task, one in a folder by the name of that. What keys leave
        out where it has its first value is there all the same.
        """
        flat = dict(dotted(self.config))
        targets = {name: flat.pop(name) for name in list(flat) if f".{name}".endswith("._target_")}
        if "backbone.name" in flat:
            flat.setdefault("backbone.batch_norm", BatchNorm.frozen.value)
        if name := method_name(targets.get("method._target_")):
            flat["method"] = name
        if task := flat.get("dataset.task"):
            flat["dataset"] = f"{flat.get('dataset.name')}/{task}"
        elif folder := next(filter(None, (a.manifest["environment"].get("task") for a in self.all)), None):
            flat["dataset"] = str(folder)
        return flat

    def named(self, name: str) -> tuple[Any, ...]:
        """All that goes by the name of a setting; a group's name alone means what `SHORT` says, too."""
        return tuple(self.settings[key] for key in (name, SHORT.get(name)) if key in self.settings)

    def setting(self, name: str) -> Any:
        """One setting, None where the lineage has none."""
        return next(iter(self.named(name)), None)

    @property
    def label(self) -> str:
        """What was done to the dense model."""
        ratio = self.setting("prune.ratio")
        if self.missing and None in (ratio, self.setting("dataset"), self.setting("method")):
            return UNKNOWN
        if ratio is None:
            if self.setting("method.slots") == []:
                return str(self.setting("method"))
            return "dense, before pruning"
        if ratio == 0:
            return "dense"
        parts = ["share"] if self.setting("share.rule") not in (None, "none") else []
        parts += ["knowledge"] if self.setting("knowledge.kind") not in (None, "none") else []
        return " + ".join(["prune", *parts]) if parts else "prune only"

    @property
    def provenance(self) -> dict[str, Any]:
        """Hashes of the frozen weights and of the data splits that any stage read."""
        found: dict[str, Any] = {}
        for artifact in self.all:
            environment = artifact.manifest["environment"]
            if "weights" in environment:
                found["weights"] = environment["weights"]
            data = environment.get("data")
            if isinstance(data, dict):
                found |= {f"data.{split}": fingerprint for split, fingerprint in data.items()}
        return found


def method_name(target: object) -> str | None:
    """What tables and filters call a method: the file of its formula, a stable part of its public `_target_`.

    `pear_cli.adapters.lora.LoRA` is `lora`. Presets of one formula, such as houlsby and pfeiffer of
    `bottleneck`, have one name. A target of another shape, from a stranger, is its own name.

    Returns:
        None where the target is no text, or an empty one.
    """
    if not isinstance(target, str):
        return None
    module, _, cls = target.rpartition(".")
    stem = module.rpartition(".")[2]
    return (stem if stem and cls else target) or None


def stage_of(name: str) -> str:
    """The stage of an input: `adapt` is a training stage too, and rounds of pruning read earlier ones."""
    return {"adapt": "train", "scored": "score", "pruned": "prune-share"}.get(name, name)


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for name, item in other.items():
        if isinstance(item, Mapping):
            below = into.setdefault(name, {})
            if isinstance(below, dict):
                _merge(below, item)
                continue
        into[name] = item
