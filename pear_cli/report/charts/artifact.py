"""The charts of one experiment: curves, importance, share map, predictions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pear_cli.errors import MissingArtifact, PearError, printable
from pear_cli.experiment.lineage import Lineage
from pear_cli.report.analysis import pruned
from pear_cli.report.analysis.predictions import Predictions, confused
from pear_cli.report.charts import arcs, curves, heat, reliability
from pear_cli.report.charts.style import Palette, Spec
from pear_cli.scoring.importance import Importance

WORST = 5  # pairs of classes that a caption names


@dataclass(frozen=True)
class Chart:
    """One chart of an experiment.

    Args:
        spec: the chart.
        caption: what it says in words.
    """

    spec: Spec
    caption: str


def learning(lineages: list[Lineage], palette: Palette) -> Chart | None:
    """The learning curves of runs that differ in their seed."""
    runs = {}
    for lineage in lineages:
        trained = [a.json("history") for a in lineage.all if "history.json" in a.manifest["files"]]
        runs[f"seed {printable(str(lineage.setting('seed')))}"] = [_records(history) for history in trained]
    spec = curves.learning(runs, palette)
    caption = "Accuracy and loss by epoch" + (f", {len(runs)} seeds" if len(runs) > 1 else "")
    prunes = any(lineage.last("prune-share") is not None for lineage in lineages)
    between = " The rule is where pruning comes between two trainings." if prunes else ""
    return _chart(spec, f"{caption}.{between}")


def importance(lineage: Lineage, palette: Palette) -> Chart | None:
    """The importance of the units, with the stability of their ranking."""
    scored = lineage.last("score")
    if scored is None:
        return None
    found = Importance.from_json(scored.json("importance"))
    known = pruned.from_lineage(lineage)
    gone = known.pruned if known is not None else frozenset()
    words = f"Importance ({printable(found.criterion)}) by block and slot"
    words += f"; 1 is {max(map(abs, found.scores), default=0.0):.3g}."
    words += " Crossed out: pruned." if gone else ""
    if (tau := found.kendall_tau) is not None:
        words += f" Kendall's τ of the rankings by two halves of the calibration data: {tau:.2f}."
    return _chart(heat.importance(found.by_name(), palette, gone), words)


def share_map(lineage: Lineage, palette: Palette) -> Chart | None:
    """Who serves in whose place."""
    sites = pruned.from_lineage(lineage)
    if not isinstance(sites, pruned.Sites):
        return None
    words = f"{len(sites.pruned)} of {len(sites.owners)} adapters pruned. Filled: keeps its own adapter, "
    words += "the larger the more important."
    words += " Hollow: served by the one of its colour." if sites.served else ""
    words += " Hollow and grey: pruned, nothing serves there." if None in sites.owners.values() else ""
    words += " A dot inside: what it knew is kept." if sites.knowledge else ""
    return _chart(arcs.share_map(sites, palette), words)


def confusion(lineage: Lineage, palette: Palette) -> Chart | None:
    """Which classes are taken for which."""
    predictions = Predictions.from_artifact(lineage.artifact)
    if predictions is None:
        return None
    counts, classes = predictions.confusion(), _classes(lineage, predictions.logits.shape[1])
    pairs = [f"{classes[true]} as {classes[said]} ({n}×)" for true, said, n in confused(counts, WORST)]
    often = f"Mistaken most often: {', '.join(pairs)}." if pairs else "No mistakes."
    words = f"Class (down) by prediction (across), shaded by share of the row. {often}"
    return _chart(heat.confusion(counts, classes, palette), words)


def calibration(lineage: Lineage, palette: Palette) -> Chart | None:
    """Whether predictions are as sure as they are right."""
    predictions = Predictions.from_artifact(lineage.artifact)
    if predictions is None:
        return None
    found = predictions.calibration()
    words = f"Accuracy by confidence; expected calibration error {100 * found.error:.1f} % "
    words += f"({len(found.bins)} bins). The stronger the colour, the more images."
    return _chart(reliability.reliability(found, palette), words)


def _chart(spec: Spec | None, caption: str) -> Chart | None:
    return None if spec is None else Chart(spec, caption)


KINDS: dict[str, Callable[[Lineage, Palette], Chart | None]] = {
    "curves": lambda lineage, palette: learning([lineage], palette),
    "importance": importance,
    "share-map": share_map,
    "confusion": confusion,
    "calibration": calibration,
}
"""The charts of one artifact."""


def drawn(kind: str, lineage: Lineage, palette: Palette) -> Chart:
    """One chart of an artifact.

    Raises:
        MissingArtifact: there is nothing of that kind to draw.
        PearError: a damaged artifact.
    """
    chart = KINDS[kind](lineage, palette)
    if chart is None:
        others = [name for name in KINDS if name != kind and _safely(name, lineage, palette)]
        has = f"it has: {', '.join(others)}" if others else "it has no charts"
        name = f"{lineage.artifact.stage}/{lineage.artifact.key[:12]}"
        raise MissingArtifact(f"{name} has no {kind} to draw; {has}")
    return chart


def _safely(kind: str, lineage: Lineage, palette: Palette) -> bool:
    try:
        return KINDS[kind](lineage, palette) is not None
    except PearError:
        return False


def _records(history: Any) -> list[dict[str, Any]]:
    entries = history if isinstance(history, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def _classes(lineage: Lineage, count: int) -> list[str]:
    """Names of the classes; their numbers where the model is gone."""
    holder = lineage.last("train")
    stored = holder is not None and "model.json" in holder.manifest["files"]
    model = holder.json("model") if holder is not None and stored else None
    names = model.get("classes") if isinstance(model, dict) else None
    if isinstance(names, list) and len(set(map(str, names))) == len(names) == count:
        return [printable(str(name)) for name in names]
    return [str(index) for index in range(count)]
