"""One artifact, summed up in a screen."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pear_cli.backbone.build import weights_name
from pear_cli.config.choices import Unit
from pear_cli.errors import StoreError
from pear_cli.experiment.lineage import Lineage
from pear_cli.export import single_file
from pear_cli.pruning.mask import Mask
from pear_cli.pruning.share_map import ShareMap
from pear_cli.report import spelling
from pear_cli.report.analysis.listing import RANDOM, Row
from pear_cli.report.analysis.protocol import ORACLE
from pear_cli.report.terminal import layout, legend
from pear_cli.report.terminal.drawing import PART, Channels, Drawing, Parts
from pear_cli.report.terminal.layout import Column
from pear_cli.scoring.importance import Importance
from pear_cli.store.artifact import Artifact
from pear_cli.store.store import Store

COUNTED = re.compile(r"\.(?:channels|blocks)\.\d+$")
Drawn = Drawing | Parts | Channels

WIDTH = 80  # of drawings, where there is no terminal to measure
CURVE_ROWS = 12
HASH = re.compile(r"[0-9a-f]{40,}")
PREPARED = ("size", "resize", "crop_pct", "interpolation", "normalization")
INDENT = 13  # of what a section says

SPELLED: Mapping[str, Callable[[Any], str]] = {
    **dict.fromkeys(
        ("accuracy", "mean_per_class_accuracy", "train_accuracy", "val200_accuracy", "test_accuracy"),
        lambda x: spelling.percent([x]) + " %",
    ),
    "stored_bytes": spelling.size,
    "peak_memory_bytes": spelling.size,
}


def print_artifact(artifact: Artifact, store: Store, console: Console) -> None:
    """Print an artifact: what it is, what was measured, and a drawing of what is inside.

    Raises:
        CorruptArtifact: files that are not what the manifest says.
    """
    width = layout.width_of(console)
    lineage = Lineage.of(artifact, store.find)
    layout.write(console, summary(lineage, width))
    if "history.json" in artifact.manifest["files"]:
        _section(console, "learning curve", curve(artifact, width))
    drawing = draw(lineage)
    if drawing is not None:
        _section(console, drawing.title, drawing.lines(width or WIDTH))


def print_exported(path: Path, console: Console) -> None:
    """Print an exported file: where it comes from, what it is, and a drawing of its adapters.

    Raises:
        CorruptArtifact: an altered file, or none that pear exported.
    """
    file = single_file.read(path)
    width = layout.width_of(console)
    description, origin = _mapping(file.description), _mapping(file.origin)
    sections = {
        "model": {**_mapping(description.get("backbone")), **_mapping(description.get("method"))},
        "images": {name: description.get(name) for name in PREPARED},
        "metrics": _mapping(origin.get("metrics")),
        "costs": _mapping(origin.get("accounting")),
        "environment": _mapping(origin.get("environment")),
    }
    lines = [
        Text(
            f"exported {spelling.value(origin.get('stage'))} {spelling.value(origin.get('key'))}",
            style="bold",
        ),
        Text(spelling.printable(str(path))),
    ]
    for title, values in sections.items():
        plain = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
        lines += layout.listed(title, _items(plain), width, INDENT)
        lines += legend.lines(plain, width, INDENT) if title == "costs" else []
    layout.write(console, lines)
    drawing = _exported(file, description)
    if drawing is not None:
        _section(console, drawing.title, drawing.lines(width or WIDTH))


def _exported(file: single_file.SingleFile, description: Mapping[str, Any]) -> Drawn | None:
    """The drawing of an exported model, or None where it has no adapters, or where it is not known."""
    if file.layers is not None:
        try:
            return Channels({str(at): (int(left), int(count)) for at, (left, count) in file.layers.items()})
        except (TypeError, ValueError, AttributeError):
            raise single_file.damaged(file.path, "its header has no sound layers") from None
    if not description.get("owners"):
        return None
    scores = Importance.from_json(file.importance).by_name() if file.importance is not None else {}
    return drawing_of(description, scores)


def print_share_map(artifact: Artifact, store: Store, console: Console) -> None:
    """Print only the drawing of an artifact's adapters; nothing where it has none."""
    drawing = draw(Lineage.of(artifact, store.find))
    if drawing is not None:
        layout.write(console, drawing.lines(layout.width_of(console) or WIDTH))


def summary(lineage: Lineage, width: int | None = None) -> list[Text]:
    """The manifest in words, wrapped to `width` cells."""
    artifact, manifest = lineage.artifact, lineage.artifact.manifest
    created = str(manifest["created_at"])[:19].replace("T", " ")
    own = _settings(Lineage(artifact, (), ()))
    inherited = {key: value for key, value in _settings(lineage).items() if key not in own}
    sections: dict[str, dict[str, Any]] = {
        "from": {name: key[:12] for name, key in artifact.inputs.items()},
        "config": own,
        "experiment": inherited,
        "metrics": {name: value for name, value in manifest["metrics"].items() if name != "notes"},
        "costs": manifest["accounting"],
        "environment": {k: v for k, v in manifest["environment"].items() if not isinstance(v, Mapping)},
        "files": {name: spelling.size(about["bytes"]) for name, about in manifest["files"].items()},
    }
    round, rounds = lineage.round
    label = lineage.label + (f", round {round} of {rounds}" if rounds > 1 else "")
    lines = [
        Text(f"{Row(lineage).step} {artifact.key}", style="bold"),
        Text(spelling.printable(str(artifact.path))),
    ]
    made = f"made {created} UTC in {spelling.duration(manifest['seconds'])}"
    lines += layout.paragraph(f"{label}; {made}", width)
    for title, values in sections.items():
        lines += layout.listed(title, _items(values), width, INDENT)
        lines += legend.lines(values, width, INDENT) if title == "costs" else []
    for note in _notes(lineage):
        lines += layout.paragraph(f"note: {spelling.printable(note)}", width, layout.NOTE)
    return lines


def _notes(lineage: Lineage) -> list[str]:
    metrics = lineage.artifact.manifest["metrics"]
    notes = [str(note) for note in metrics["notes"]] if isinstance(metrics.get("notes"), list) else []
    if lineage.setting("select") == "test_oracle":
        notes.append(ORACLE)
    if Row(lineage).weights == "random":
        notes.append(RANDOM)
    return notes + [f"its input {name} is gone from the store" for name in lineage.missing]


def draw(lineage: Lineage) -> Drawn | None:
    """The drawing of an artifact's adapters, or None where it has none.

    A share map comes from the artifact itself, or from the model that it holds or evaluated; importance from
    the scores that it goes back to, as long as they are in the store.
    """
    artifact = lineage.artifact
    scores: dict[str, float] = {}
    scored = lineage.last("score")
    if scored is not None:
        scores = Importance.from_json(scored.json("importance")).by_name()
    if artifact.stage == "score":
        return _scored(scores)
    if artifact.stage == "prune-share" and "mask.json" in artifact.manifest["files"]:
        return _parts(Mask.from_json(artifact.json("mask")), scores)
    if artifact.stage == "prune-share":
        owners = dict(ShareMap.from_json(artifact.json("share_map")).owners)
        return Drawing(tuple(owners), scores, owners)
    holder = lineage.last("train") if artifact.stage == "eval" else artifact
    if holder is None or "model.json" not in holder.manifest["files"] or "checkpoint" not in _steps(lineage):
        return None
    masked = lineage.last("prune-share")
    if masked is not None and "mask.json" in masked.manifest["files"]:
        return _parts(Mask.from_json(masked.json("mask")), scores)
    return drawing_of(holder.json("model"), scores)


def _scored(scores: Mapping[str, float]) -> Drawn:
    names = tuple(scores)
    if any(COUNTED.search(name) for name in names):
        return Channels.of(names)
    return Parts(names, scores) if any(map(PART.search, names)) else Drawing(names, scores)


def _parts(mask: Mask, scores: Mapping[str, float]) -> Drawn | None:
    if mask.unit in (Unit.channel, Unit.block):  # without scores nobody knows how many there were
        return Channels.of(scores, frozenset(mask.pruned)) if scores else None
    names = tuple(scores) or mask.pruned
    return Parts(names, scores, frozenset(mask.pruned)) if names else Drawing(())


def drawing_of(description: Any, scores: Mapping[str, float]) -> Drawn | None:
    """The drawing of a described model, or None where what it has left of its channels is not known.

    Args:
        description: content of a model.json.
        scores: importance by site, as far as known.

    Raises:
        StoreError: it is not the description of a model.
    """
    try:
        owners = {
            str(site): None if home is None else str(home) for site, home in description["owners"].items()
        }
        kept = description["knowledge"] is not None
        if description.get("mask") is not None:
            return _parts(Mask.from_json(description["mask"]), scores)
        if description.get("widths") is not None:
            return None
    except (KeyError, TypeError, AttributeError):
        raise StoreError("model.json is not the description of a model of pear") from None
    if any(home is not None and home not in owners for home in owners.values()):
        raise StoreError("model.json names an owner that is no site")
    pruned = {site for site, home in owners.items() if home != site}
    return Drawing(tuple(owners), scores, owners, frozenset(pruned if kept else ()))


def curve(artifact: Artifact, width: int | None = None) -> list[Text]:
    """The learning curve in numbers: at most a dozen epochs, and always the one that was kept."""
    history = artifact.json("history")
    if not isinstance(history, list) or not all(isinstance(record, dict) for record in history):
        raise StoreError(f"{artifact.path}: history.json is not a learning curve")
    if not history:
        return [Text("no epoch was trained")]
    selected = artifact.manifest["metrics"].get("selected_epoch")
    count = len(history)
    step = max(1, -(-count // CURVE_ROWS))
    epochs = sorted(
        {*range(step, count + 1, step), 1, count} | ({selected} if isinstance(selected, int) else set())
    )
    epochs = [epoch for epoch in epochs if 1 <= epoch <= count]
    names = [name for name in history[-1] if name != "lr"] + ["lr"]
    columns = [
        Column("epoch", [f"{epoch}{'*' if epoch == selected else ' '}" for epoch in epochs], right=True)
    ]
    for name in names:
        values = [history[epoch - 1].get(name) for epoch in epochs]
        columns.append(
            Column(spelling.printable(name), [_measured(name, value) for value in values], right=True)
        )
    return [*layout.table(columns, width), Text("*  the epoch that was kept", style="dim")]


def _measured(name: str, value: object) -> str:
    if not isinstance(value, int | float):
        return ""
    if name.endswith("accuracy"):
        return f"{value:.3f}"
    return f"{value:.2e}" if name == "lr" else f"{value:.4f}"


def _steps(lineage: Lineage) -> set[str]:
    return {a.stage for a in lineage.all} | set(lineage.artifact.inputs)


def _settings(lineage: Lineage) -> dict[str, Any]:
    return {key: value for key, value in lineage.settings.items() if value is not None}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(values: Mapping[str, Any]) -> list[str]:
    return [f"{spelling.printable(name)} {_spell(name, value)}" for name, value in values.items()]


def _spell(name: str, value: Any) -> str:
    if name == "weights" and value is not None:
        value = weights_name(str(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return SPELLED.get(name, spelling.number)(value)
    text = spelling.value(value)
    return f"{text[:12]}…" if HASH.fullmatch(text) else text


def _section(console: Console, title: str, lines: Iterable[Text]) -> None:
    layout.write(console, [Text(), Text(title, style="bold"), *lines])
