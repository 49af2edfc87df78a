"""The tables of sweeps: those of a store, and the jobs of one that failed."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console

from pear_cli.report import spelling
from pear_cli.report.terminal import layout
from pear_cli.report.terminal.layout import Column
from pear_cli.store.sweeps import Progress, Sweep

Known = Sequence[tuple[Sweep, Progress]]


def print_sweeps(known: Known, console: Console) -> None:
    """Print a line a sweep."""
    progress = [each for _, each in known]
    columns = [
        Column("id", [sweep.id for sweep, _ in known]),
        Column("started", [_local(sweep.started) for sweep, _ in known], rank=2),
        Column("state", [each.state for each in progress]),
        Column("jobs", [_number(sweep.size) for sweep, _ in known], True),
        Column("done", [str(each.done) for each in progress], True),
        Column("failed", [str(each.failed) for each in progress], True),
        Column("running", [str(each.running) for each in progress], True, 1),
        Column("missing", [_number(each.missing) for each in progress], True),
        Column("command", [spelling.printable(sweep.line) for sweep, _ in known], words="cut"),
    ]
    layout.print_table(columns, console)


def json_lines(known: Known) -> list[str]:
    """A line of JSON a sweep."""
    return [json.dumps({"id": s.id, **asdict(s), "state": p.state, **asdict(p)}) for s, p in known]


def print_failures(records: Iterable[dict[str, Any]], common: set[str], console: Console) -> None:
    """Print the jobs that failed or were not run, and why.

    Args:
        records: theirs.
        common: overrides that all jobs of the sweep have; they are left out.
        console: where to.
    """
    jobs, overrides, errors = list[str](), list[str](), list[str]()
    for record in records:
        said = [spelling.printable(line) for line in record["error"]["message"].splitlines()] or [""]
        own = " ".join(word for word in record["overrides"] if word not in common)
        rest = [""] * (len(said) - 1)
        jobs += ["" if record["job"] is None else str(record["job"]), *rest]
        overrides += [spelling.printable(own), *rest]
        errors += said
    columns = [Column("job", jobs, True), Column("overrides", overrides, words="wrap")]
    layout.print_table([*columns, Column("error", errors, words="wrap")], console)


def _local(started: str) -> str:
    return datetime.fromisoformat(started).astimezone().strftime("%Y-%m-%d %H:%M")


def _number(n: int | None) -> str:
    return "?" if n is None else str(n)
