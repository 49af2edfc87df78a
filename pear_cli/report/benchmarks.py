"""Benchmarks of several tasks: every task, and both averages that papers report."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pear_cli.report import benchmark
from pear_cli.report.benchmark import Published
from pear_cli.report.comparison import Estimate, Line


@dataclass(frozen=True)
class Model:
    """One model over the tasks of a benchmark.

    Args:
        name: method and model, as the comparison has them.
        tasks: the line of each task that was evaluated.
        groups: names of the tasks of each group of the benchmark.
    """

    name: str
    tasks: Mapping[str, Line]
    groups: Mapping[str, Sequence[str]]

    def of_group(self, group: str) -> Estimate | None:
        """The mean of the tasks of a group; None unless all of them are there."""
        return self._average([[task] for task in self.groups[group]])

    @property
    def of_groups(self) -> Estimate | None:
        """The mean of the means of the groups."""
        return self._average(list(self.groups.values()))

    @property
    def of_tasks(self) -> Estimate | None:
        """The mean of all tasks."""
        return self._average([[task] for tasks in self.groups.values() for task in tasks])

    def _average(self, parts: Sequence[Sequence[str]]) -> Estimate | None:
        """The mean of the means of parts, over the seeds that every task has."""
        needed = [task for part in parts for task in part]
        if not all(task in self.tasks and self.tasks[task].by_seed for task in needed):
            return None
        seeds = set.intersection(*(set(self.tasks[task].by_seed) for task in needed))
        means = [
            statistics.fmean(
                statistics.fmean(self.tasks[task].by_seed[seed] for task in part) for part in parts
            )
            for seed in sorted(seeds)
        ]
        return Estimate.of(means)


@dataclass(frozen=True)
class Benchmark:
    """The table of a benchmark.

    Args:
        title: its name.
        groups: names of the tasks of each group.
        models: what was evaluated here.
        published: what papers report.
        note: how the published numbers are to be read.
    """

    title: str
    groups: Mapping[str, Sequence[str]]
    models: tuple[Model, ...]
    published: tuple[Published, ...]
    note: str


def benchmarks(lines: Sequence[Line]) -> list[Benchmark]:
    """The benchmarks that the evaluations belong to."""
    found = []
    for about in map(benchmark.named, benchmark.names()):
        models: dict[str, dict[str, Line]] = {}
        for line in lines:
            task = line.first.value("dataset.task")
            if line.first.lineage.settings.get("dataset.name") == about.dataset and task in about.tasks:
                models.setdefault(line.name, {}).setdefault(task, line)
        if models:
            rows = tuple(Model(name, tasks, about.groups) for name, tasks in models.items())
            found.append(Benchmark(about.title, about.groups, rows, about.published, about.caveat))
    return found
