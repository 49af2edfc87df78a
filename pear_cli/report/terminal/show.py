"""One artifact, summed up in a screen."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from pear_cli.backbone.identity import weights_name
from pear_cli.errors import StoreError
from pear_cli.experiment.lineage import Lineage
from pear_cli.report import spelling
from pear_cli.report.analysis import pruned, repeat
from pear_cli.report.analysis.listing import RANDOM, Row
from pear_cli.report.analysis.protocol import ORACLE
from pear_cli.report.terminal import layout
from pear_cli.report.terminal.drawing import draw
from pear_cli.report.terminal.layout import Column
from pear_cli.store.artifact import Artifact
from pear_cli.store.store import Store

WIDTH = 80  # of drawings, where there is no terminal to measure
CURVE_ROWS = 12
HASH = re.compile(r"[0-9a-f]{40,}")
INDENT = 13  # of what a section says

SPELLED: Mapping[str, Callable[[Any], str]] = {
    **dict.fromkeys(
        ("accuracy", "mean_per_class_accuracy", "train_accuracy", "val200_accuracy", "test_accuracy"),
        lambda x: spelling.percent([x]) + " %",
    ),
    "stored_bytes": spelling.size,
    "peak_memory_bytes": spelling.size,
}

LEGEND = {
    "network_params": "network_params: as the network runs: backbone, adapters and classifier",
    "macs_per_image": (
        "macs_per_image, latency_p50_ms, latency_p95_ms: of one image, with adapters beside the weights"
    ),
    "whole_macs_per_image": (
        "whole_…: before channels were pruned; latency_1_…, latency_64_…: of 1 or 64 images at once, with "
        "adapters merged into the weights, as in whole_macs_per_image"
    ),
    "speedup_theoretical": (
        "speedup_theoretical: of multiply-accumulates, merged before and after pruning; speedup_1, "
        "speedup_64: of the median latencies"
    ),
}
"""What costs are of, where their names do not tell; by the first cost that needs the line."""


BUSY_LOAD, BUSY_SPREAD = 1.5, 2.0
"""Load a core, and p95 by median, from which a latency tells more of other processes than of the model."""


def print_artifact(artifact: Artifact, store: Store, console: Console, *, everything: bool = False) -> None:
    """Print an artifact: what it is, what was measured, how to repeat it, and a drawing of what is inside.

    Args:
        everything: also every setting, metric, cost and file.

    Raises:
        CorruptArtifact: files that are not what the manifest says.
    """
    width = layout.width_of(console)
    lineage = Lineage.from_artifact(artifact, store.find)
    layout.write(console, summary(lineage, width, everything=everything))
    if "history.json" in artifact.manifest["files"]:
        layout.write(console, [Text(), Text("learning curve", "bold"), *curve(artifact, width)])
    print_drawing(pruned.from_lineage(lineage), console)


def print_drawing(found: pruned.Pruned | None, console: Console) -> None:
    """Print the drawing of a model's units below its title; nothing where there is none."""
    if found is not None:
        drawn = draw(found, layout.width_of(console) or WIDTH)
        layout.write(console, [Text(), Text(found.title, "bold"), *drawn])


def print_share_map(artifact: Artifact, store: Store, console: Console) -> None:
    """Print only the drawing of an artifact's adapters; nothing where it has none."""
    found = pruned.from_lineage(Lineage.from_artifact(artifact, store.find))
    if found is not None:
        layout.write(console, draw(found, layout.width_of(console) or WIDTH))


def summary(lineage: Lineage, width: int | None = None, *, everything: bool = False) -> list[Text]:
    """What an artifact is, wrapped to `width` cells; with `everything`, all of its manifest."""
    artifact, manifest = lineage.artifact, lineage.artifact.manifest
    own = _settings(Lineage(artifact, (), ()))
    round, rounds = lineage.round
    label = lineage.label + (f", round {round} of {rounds}" if rounds > 1 else "")
    created = str(manifest["created_at"])[:19].replace("T", " ")
    made = f"made {created} UTC in {spelling.duration(manifest['seconds'])}"
    lines = [
        Text(f"{Row(lineage).step} {artifact.key}", "bold"),
        Text(spelling.printable(str(artifact.path))),
        *layout.paragraph(f"{label}; {made}", width),
    ]
    lines += sections(_first(lineage), width)
    lines += layout.listed("repeat with", [repeat.command(lineage, Row(lineage).kind)], None, INDENT)
    lines += (
        sections(
            {
                "from": {name: key[:12] for name, key in artifact.inputs.items()},
                "config": own,
                "experiment": {key: value for key, value in _settings(lineage).items() if key not in own},
                "metrics": {name: value for name, value in manifest["metrics"].items() if name != "notes"},
                "costs": manifest["accounting"],
                "environment": {
                    k: v for k, v in manifest["environment"].items() if not isinstance(v, Mapping)
                },
                "files": {name: spelling.size(about["bytes"]) for name, about in manifest["files"].items()},
            },
            width,
        )
        if everything
        else [Text("every setting, metric, cost and file: --all", "dim")]
    )
    for note in _notes(lineage):
        lines += layout.paragraph(f"note: {spelling.printable(note)}", width, layout.NOTE)
    return lines


def sections(found: Mapping[str, Mapping[str, Any]], width: int | None) -> list[Text]:
    """Values by name below their titles, wrapped to `width` cells; below costs what they are of."""
    lines: list[Text] = []
    across = None if width is None else width - INDENT
    for title, values in found.items():
        items = [
            f"{spelling.printable(name)} {_spell(name, value)}".strip() for name, value in values.items()
        ]
        lines += layout.listed(title, items, width, INDENT)
        said = [line for name, line in LEGEND.items() if title == "costs" and name in values]
        lines += [Text(" " * INDENT + part, "dim") for line in said for part in layout.wrapped(line, across)]
    return lines


def _notes(lineage: Lineage) -> list[str]:
    metrics = lineage.artifact.manifest["metrics"]
    notes = [str(note) for note in metrics["notes"]] if isinstance(metrics.get("notes"), list) else []
    notes += _busy(lineage.artifact.manifest["accounting"])
    notes += [ORACLE] if lineage.setting("select") == "test_oracle" else []
    notes += [RANDOM] if Row(lineage).weights == "random" else []
    return notes + [f"its input {name} is gone from the store" for name in lineage.missing]


def _first(lineage: Lineage) -> dict[str, dict[str, Any]]:
    """What a reader asks first: the data, the result, its size, and what differs from the defaults."""
    metrics, costs = (_numbers(lineage.artifact.manifest[part]) for part in ("metrics", "accounting"))
    dataset = str(lineage.setting("dataset") or "unknown")
    found: dict[str, dict[str, Any]] = {"dataset": {dataset: _classes(lineage)}}
    if "accuracy" in metrics:
        images = f" on {spelling.number(metrics['images'])} images" if "images" in metrics else ""
        found["accuracy"] = {"": f"{spelling.percent([metrics['accuracy']])} %{images}"}
    sizes = {"trained": "trainable_params", "stored": "stored_params"}
    known = {name: spelling.count(costs[cost]) for name, cost in sizes.items() if cost in costs}
    disk = {"on disk": spelling.size(costs["stored_bytes"])} if "stored_bytes" in costs else {}
    found["size"] = {**known, **disk}
    found["changed"] = {word: "" for word in repeat.overrides(lineage)} or {"nothing: all defaults": ""}
    return found


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among the values of a manifest, which a stranger may have written."""
    return {name: value for name, value in values.items() if type(value) in (int, float)}


def _classes(lineage: Lineage) -> str:
    """How many classes a model tells apart, and the first of them."""
    holder = next((a for a in reversed(lineage.all) if "model.json" in a.manifest["files"]), None)
    return classes_of(holder.json("model")) if holder is not None else ""


def classes_of(description: object) -> str:
    """How many classes a description of a model names, and the first of them."""
    classes = description.get("classes") if isinstance(description, Mapping) else None
    if not isinstance(classes, list):
        return ""
    some = ", ".join(spelling.printable(str(name)) for name in classes[:3]) + (", …" if classes[3:] else "")
    return f"({len(classes)} classes: {some})"


def _busy(costs: Mapping[str, Any]) -> list[str]:
    """A note where a latency was measured beside other work."""
    known = _numbers(costs)
    load, median, tail = (known.get(f"latency_{name}", 0.0) for name in ("load", "p50_ms", "p95_ms"))
    if median <= 0:
        return []
    loaded = load > BUSY_LOAD
    if not loaded and tail < BUSY_SPREAD * median:
        return []
    said = [f"a load of {load:.1f} a core"] if loaded else []
    said += [f"p95 is {tail / median:.1f} × the median"]
    return [f"latencies were measured on a busy machine ({', '.join(said)}); do not compare them"]


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
    wanted = {*range(step, count + 1, step), 1, count} | ({selected} if isinstance(selected, int) else set())
    epochs = sorted(epoch for epoch in wanted if 1 <= epoch <= count)
    columns = [Column("epoch", [f"{e}{'*' if e == selected else ' '}" for e in epochs], right=True)]
    for name in [name for name in history[-1] if name != "lr"] + ["lr"]:
        cells = [_measured(name, history[epoch - 1].get(name)) for epoch in epochs]
        columns.append(Column(spelling.printable(name), cells, right=True))
    return [*layout.table(columns, width), Text("*  the epoch that was kept", "dim")]


def _measured(name: str, value: object) -> str:
    if not isinstance(value, int | float):
        return ""
    if name.endswith("accuracy"):
        return f"{value:.3f}"
    return f"{value:.2e}" if name == "lr" else f"{value:.4f}"


def _settings(lineage: Lineage) -> dict[str, Any]:
    return {key: value for key, value in lineage.settings.items() if value is not None}


def _spell(name: str, value: Any) -> str:
    if name == "weights" and value is not None:
        value = weights_name(str(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return SPELLED.get(name, spelling.number)(value)
    text = spelling.value(value)
    return f"{text[:12]}…" if HASH.fullmatch(text) else text
