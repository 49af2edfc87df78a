"""The table of a job's stages: which were reused, which computed, and what they came to."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from pear_cli.errors import PearError
from pear_cli.report import spelling
from pear_cli.report.terminal import layout
from pear_cli.report.terminal.layout import Column
from pear_cli.store.artifact import Artifact
from pear_cli.store.store import Store

MEASURED = {
    "accuracy": "test",
    "val200_accuracy": "val200",
    "test_accuracy": "test",
    "train_accuracy": "training",
}
"""Accuracies that a stage may have measured, and on what; the first that it has is shown."""


def print_stages(stages: Sequence[Mapping[str, Any]], store: Store, console: Console) -> None:
    """Print a line a stage, then what was saved.

    Args:
        stages: of a job's record: step, stage, key, reused, seconds.
        store: where the artifacts are.
        console: where to.
    """
    layout.print_table(
        [
            Column("stage", [stage["step"] for stage in stages]),
            Column("key", [spelling.key(stage["key"]) for stage in stages], rank=1),
            Column("", ["reused" if stage["reused"] else "computed" for stage in stages]),
            Column("time", ["" if s["reused"] else spelling.duration(s["seconds"]) for s in stages], True),
            Column("accuracy %", [_accuracy(stage, store) for stage in stages]),
        ],
        console,
        (_sum(stages), "dim"),
    )


def _sum(stages: Sequence[Mapping[str, Any]]) -> str:
    reused = [stage["seconds"] for stage in stages if stage["reused"]]
    computed = [stage["seconds"] for stage in stages if not stage["reused"]]
    parts = [f"{len(computed)} computed in {spelling.duration(sum(computed))}"] if computed else []
    parts += [f"{len(reused)} reused, which once took {spelling.duration(sum(reused))}"] if reused else []
    return f"stages: {', '.join(parts)}"


def _accuracy(stage: Mapping[str, Any], store: Store) -> str:
    try:
        metrics = Artifact.at(store.path(stage["stage"], stage["key"])).manifest["metrics"]
    except PearError:  # gone since
        return ""
    found = next((name for name in MEASURED if name in metrics), None)
    return "" if found is None else f"{spelling.percent([metrics[found]])} ({MEASURED[found]})"
