"""Tables of stages: those of a job that is done, and what a dry run would compute."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pear_cli.errors import PearError
from pear_cli.experiment.planning import RUNNING, STARTED, THERE, Planned
from pear_cli.report import spelling
from pear_cli.report.terminal import layout
from pear_cli.report.terminal.layout import Column
from pear_cli.store.artifact import Artifact
from pear_cli.store.store import Store

MEASURED = {
    "accuracy": "test",
    "val200_accuracy": "validation",
    "test_accuracy": "test",
    "train_accuracy": "training",
}
"""Accuracies that a stage may have measured, and on what; the first that it has is shown."""

Seconds = Mapping[Path, float | None]
"""By the folder of a stage that is to be computed: what it may take, None where nothing tells."""


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
        (_done(stages), "dim"),
    )


def _done(stages: Sequence[Mapping[str, Any]]) -> str:
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


def print_plan(plan: Sequence[Planned], seconds: Seconds, console: Console) -> None:
    """Print a line a kind of stage, then what there is to do in all.

    Args:
        plan: every stage that is needed, once.
        seconds: what those to compute may take.
        console: where to.
    """
    rows = defaultdict(list)
    for planned in plan:
        rows[planned.step.name].append(planned)
    kinds = list(rows.values())
    keys = [spelling.key(kind[0].step.key) if len(kind) == 1 else "" for kind in kinds]
    layout.print_table(
        [
            Column("stage", list(rows)),
            Column("needed", [str(len(kind)) for kind in kinds], True),
            Column("there", [_count(kind, THERE) for kind in kinds], True),
            *_some("running", kinds, RUNNING),
            *_some("started", kinds, STARTED),
            Column("to compute", [str(len(_computed(kind))) for kind in kinds], True),
            Column("about", [_time(_computed(kind), seconds) for kind in kinds], True),
            Column("by jobs", [str(len({job for p in kind for job in p.jobs})) for kind in kinds], True, 1),
            Column("key", keys, rank=2),
        ],
        console,
        (_to_do(plan, seconds), ""),
    )


def _to_do(plan: Sequence[Planned], seconds: Seconds) -> str:
    computed = _computed(plan)
    jobs = len({job for planned in plan for job in planned.jobs})
    text = f"{jobs} {'job' if jobs == 1 else 'jobs'}: {len(computed)} of {len(plan)} stages to compute"
    if not computed:
        return text
    unknown = sum(seconds[planned.folder] is None for planned in computed)
    if unknown == len(computed):
        return f"{text}; no past stages to estimate the time from"
    text += f", about {_time(computed, seconds)} one after another, judged by the most similar past stages"
    return f"{text}; {unknown} without an estimate" if unknown else text


def _computed(kind: Sequence[Planned]) -> list[Planned]:
    return [planned for planned in kind if planned.state != THERE]


def _time(kind: Sequence[Planned], seconds: Seconds) -> str:
    known = [found for planned in kind if (found := seconds[planned.folder]) is not None]
    if not known:
        return "?" if kind else ""
    return spelling.duration(sum(known)) + (" + ?" if len(known) < len(kind) else "")


def _count(kind: Sequence[Planned], state: str) -> str:
    return str(sum(planned.state == state for planned in kind))


def _some(title: str, kinds: Sequence[Sequence[Planned]], state: str) -> list[Column]:
    """A column for a state that is rare, where there is any."""
    counts = [_count(kind, state) for kind in kinds]
    return [Column(title, counts, True)] if any(count != "0" for count in counts) else []
