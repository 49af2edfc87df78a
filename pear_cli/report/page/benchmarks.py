"""Benchmarks of several tasks, for the page: every task, and both averages that papers report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pear_cli.report.analysis import benchmark
from pear_cli.report.analysis.benchmark import Benchmark, Standing
from pear_cli.report.analysis.comparison import Estimate, Line


@dataclass(frozen=True)
class Model:
    """One experiment over the tasks of a benchmark.

    Args:
        name: method and model, as the comparison has them.
        tasks: the line of each task that was evaluated.
        standing: what it came to. Experiments with other settings for other tasks stand apart.
    """

    name: str
    tasks: Mapping[str, Line]
    standing: Standing

    def of_group(self, group: str) -> Estimate | None:
        """The mean of the tasks of a group; None unless all of them are there."""
        whole = {*self.standing.benchmark.groups[group]} <= {*self.standing.tasks}
        return Estimate.of(self.standing.of_group(group)) if whole else None

    @property
    def of_groups(self) -> Estimate | None:
        """The mean of the means of the groups; None unless all tasks are there."""
        return None if self.standing.missing else Estimate.of(self.standing.of_groups())

    @property
    def of_tasks(self) -> Estimate | None:
        """The mean of all tasks; None unless all of them are there."""
        return None if self.standing.missing else Estimate.of(self.standing.of_tasks())


@dataclass(frozen=True)
class Table:
    """The table of a benchmark.

    Args:
        about: its tasks, and what papers report.
        models: what was evaluated here.
    """

    about: Benchmark
    models: tuple[Model, ...]


def benchmarks(lines: Sequence[Line]) -> list[Table]:
    """The benchmarks that the evaluations belong to."""
    line_of = {row.artifact.key: line for line in lines for row in line.group.rows}
    rows = [row for line in lines for row in line.group.rows]
    found = []
    for about in map(benchmark.named, benchmark.names()):
        models: list[Model] = []
        names: Counter[str] = Counter()
        for standing in benchmark.standings(rows, about):
            tasks = {str(row.value("dataset.task")): line_of[row.artifact.key] for row in standing.rows}
            name = next(iter(tasks.values())).name
            names[name] += 1
            number = f" ({names[name]})" if names[name] > 1 else ""
            models.append(Model(name + number, tasks, standing))
        if models:
            found.append(Table(about, tuple(models)))
    return found
