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
from pear_cli.report.analysis import pruned
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


def print_artifact(artifact: Artifact, store: Store, console: Console) -> None:
    """Print an artifact: what it is, what was measured, and a drawing of what is inside.

    Raises:
        CorruptArtifact: files that are not what the manifest says.
    """
    width = layout.width_of(console)
    lineage = Lineage.from_artifact(artifact, store.find)
    layout.write(console, summary(lineage, width))
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


def summary(lineage: Lineage, width: int | None = None) -> list[Text]:
    """The manifest in words, wrapped to `width` cells."""
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
    lines += sections(
        {
            "from": {name: key[:12] for name, key in artifact.inputs.items()},
            "config": own,
            "experiment": {key: value for key, value in _settings(lineage).items() if key not in own},
            "metrics": {name: value for name, value in manifest["metrics"].items() if name != "notes"},
            "costs": manifest["accounting"],
            "environment": {k: v for k, v in manifest["environment"].items() if not isinstance(v, Mapping)},
            "files": {name: spelling.size(about["bytes"]) for name, about in manifest["files"].items()},
        },
        width,
    )
    for note in _notes(lineage):
        lines += layout.paragraph(f"note: {spelling.printable(note)}", width, layout.NOTE)
    return lines


def sections(found: Mapping[str, Mapping[str, Any]], width: int | None) -> list[Text]:
    """Values by name below their titles, wrapped to `width` cells; below costs what they are of."""
    lines: list[Text] = []
    across = None if width is None else width - INDENT
    for title, values in found.items():
        items = [f"{spelling.printable(name)} {_spell(name, value)}" for name, value in values.items()]
        lines += layout.listed(title, items, width, INDENT)
        said = [line for name, line in LEGEND.items() if title == "costs" and name in values]
        lines += [Text(" " * INDENT + part, "dim") for line in said for part in layout.wrapped(line, across)]
    return lines


def _notes(lineage: Lineage) -> list[str]:
    metrics = lineage.artifact.manifest["metrics"]
    notes = [str(note) for note in metrics["notes"]] if isinstance(metrics.get("notes"), list) else []
    notes += [ORACLE] if lineage.setting("select") == "test_oracle" else []
    notes += [RANDOM] if Row(lineage).weights == "random" else []
    return notes + [f"its input {name} is gone from the store" for name in lineage.missing]


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
