"""The table of a dry run: what is there, what would be computed, and about how long that takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from pear_cli.experiment.planning import RUNNING, STARTED, THERE, Planned
from pear_cli.report import spelling
from pear_cli.report.terminal import layout
from pear_cli.report.terminal.layout import Column

Seconds = Mapping[Path, float | None]
"""By the folder of a stage that is to be computed: what it may take, None where nothing tells."""


def print_plan(plan: Sequence[Planned], seconds: Seconds, console: Console) -> None:
    """Print a line a kind of stage, then what there is to do in all.

    Args:
        plan: every stage that is needed, once.
        seconds: what those to compute may take.
        console: where to.
    """
    rows: dict[str, list[Planned]] = {}
    for planned in plan:
        rows.setdefault(planned.step.name, []).append(planned)
    kinds = list(rows.values())
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
            Column(
                "key", [spelling.key(kind[0].step.key) if len(kind) == 1 else "" for kind in kinds], rank=2
            ),
        ],
        console,
        (_sum(plan, seconds), ""),
    )


def _sum(plan: Sequence[Planned], seconds: Seconds) -> str:
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
