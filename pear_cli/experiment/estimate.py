"""How long a stage may take: as long as the most similar one took that is in the store."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pear_cli.experiment.lineage import Lineage
from pear_cli.experiment.planning import THERE, Planned
from pear_cli.experiment.step import Step
from pear_cli.store.artifact import Artifact
from pear_cli.store.canonical import plain
from pear_cli.store.store import Store

SAME = ("backbone.name", "backbone.args")
"""What a past stage must have in common with the one to come."""

NEAR = ("dataset.name", "dataset.task", "method._target_", "score.unit", "score.criterion", "prune.ratio")
"""What makes a past stage more similar, most important first."""


class Past:
    """The stages that a store has, by what decides their time.

    Args:
        store: its manifests are read once.
    """

    def __init__(self, store: Store) -> None:
        artifacts = {(a.stage, a.key): a for a in store.artifacts()}
        self._seen: dict[tuple[Any, ...], list[tuple[tuple[Any, ...], float]]] = {}
        for artifact in artifacts.values():
            lineage = Lineage.from_artifact(artifact, lambda stage, key: artifacts.get((stage, key)))
            kind = (_kind(artifact.stage, artifact.inputs), *_values(lineage.config, SAME))
            self._seen.setdefault(kind, []).append((_values(lineage.config, NEAR), _seconds(artifact)))

    def seconds(self, planned: Planned) -> float | None:
        """About how long a stage will take; None where the store has none like it.

        It is the median over the most similar past stages of that kind on the same backbone; trainings go
        by their seconds an epoch.
        """
        config = _config(planned.step)
        kind = (_kind(planned.step.stage, planned.step.inputs), *_values(config, SAME))
        near = _values(config, NEAR)
        similar: dict[tuple[bool, ...], list[float]] = {}
        for values, seconds in self._seen.get(kind, []):
            agreement = tuple(a == b for a, b in zip(values, near, strict=True))
            similar.setdefault(agreement, []).append(seconds)
        if not similar:
            return None
        return median(similar[max(similar)]) * (1 if planned.epochs is None else planned.epochs)


def estimates(plan: Sequence[Planned]) -> dict[Path, float | None]:
    """What each stage that is to be computed may take, by its folder, judged by its own store."""
    to_do = [planned for planned in plan if planned.state != THERE]
    past = {root: Past(Store(root)) for root in {planned.folder.parent.parent for planned in to_do}}
    return {planned.folder: past[planned.folder.parent.parent].seconds(planned) for planned in to_do}


def _kind(stage: str, inputs: Mapping[str, Any]) -> str:
    return "adapt" if stage == "train" and "checkpoint" in inputs else stage


def _seconds(artifact: Artifact) -> float:
    """Of the stage, or of one epoch of a training."""
    epochs = artifact.manifest["metrics"].get("epochs") if artifact.stage == "train" else 1
    return float(artifact.manifest["seconds"]) / max(1, epochs if isinstance(epochs, int) else 1)


def _config(step: Step) -> dict[str, Any]:
    """The settings of a step and of those before it, as a lineage has them of artifacts."""
    merged: dict[str, Any] = {}
    for part in _lineage(step):
        for name, item in plain(part.config).items():
            known = merged.get(name)
            merged[name] = {**known, **item} if isinstance(known, dict) and isinstance(item, dict) else item
    return merged


def _lineage(step: Step) -> Iterator[Step]:
    for needed in step.inputs.values():
        yield from _lineage(needed)
    yield step


def _values(config: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(_value(config, name.split(".")) for name in names)


def _value(config: Any, path: list[str]) -> Any:
    for name in path:
        config = config.get(name) if isinstance(config, Mapping) else None
    return repr(config)
