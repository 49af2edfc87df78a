"""Benchmarks of several tasks: their averages over what the store holds, and the published ones."""

import functools
import statistics
import tomllib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pear_cli.errors import ConfigError, near
from pear_cli.report.analysis.comparison import Line
from pear_cli.report.analysis.listing import Group, Row
from pear_cli.store.canonical import canonical

FOLDER = Path(__file__).parent
APART = ("seed", "dataset", "dataset.task", "dataset.num_classes")
"""Settings that may differ within one standing."""


@dataclass(frozen=True)
class Published:
    """What a paper states of a method; what it does not state is None.

    Args:
        method: its name there.
        groups: mean accuracy of each group of tasks, in the benchmark's order, in %.
        average: the mean of these, in %.
        trained: parameters without the classifier, in millions.
        source: where it stands.
    """

    method: str
    average: float
    source: str
    groups: Sequence[float] | None = None
    trained: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """Tasks of one dataset, in groups.

    Args:
        name: how the command line calls it.
        title: how papers call it.
        dataset: whose tasks they are.
        groups: tasks by group.
        published: averages of papers, the lowest first.
        caveat: what a reader must know who compares with these.
    """

    name: str
    title: str
    dataset: str
    groups: Mapping[str, Sequence[str]]
    published: tuple[Published, ...]
    caveat: str

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(task for tasks in self.groups.values() for task in tasks)

    def has(self, row: Row) -> bool:
        """Whether a row is an evaluation of one of the tasks whose settings are all known."""
        known = row.artifact.stage == "eval" and not row.lineage.missing
        return known and row.value("dataset.name") == self.dataset and _task(row) in self.tasks


@dataclass(frozen=True)
class Standing:
    """One experiment on a benchmark: rows that differ in task and seed only.

    Averages are over the tasks that the most complete seed has, and over the seeds that have all of these.

    Args:
        benchmark: the tasks.
        rows: newest first; one for each task and seed.
    """

    benchmark: Benchmark
    rows: tuple[Row, ...]

    @property
    def group(self) -> Group:
        """The rows, as the columns of a listing take them."""
        return Group(self.rows)

    @functools.cached_property
    def accuracies(self) -> dict[int, dict[str, float]]:
        """Accuracy by seed and task, in [0, 1]."""
        found: dict[int, dict[str, float]] = defaultdict(dict)
        for row in self.rows:
            found[int(row.value("seed"))][_task(row)] = float(row.value("accuracy"))
        return dict(found)

    @functools.cached_property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that count, in the benchmark's order."""
        fullest = max(self.accuracies.values(), key=len)
        return tuple(task for task in self.benchmark.tasks if task in fullest)

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(task for task in self.benchmark.tasks if task not in self.tasks)

    @functools.cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that count."""
        return tuple(seed for seed, found in sorted(self.accuracies.items()) if found.keys() >= {*self.tasks})

    def whole(self, group: str | None = None) -> bool:
        """Whether all tasks of a group are there, or all that there are."""
        return {*(self.benchmark.groups[group] if group else self.benchmark.tasks)} <= {*self.tasks}

    @property
    def left_out(self) -> tuple[int, ...]:
        """Seeds that lack a task that others have."""
        return tuple(sorted(self.accuracies.keys() - {*self.seeds}))

    def mean(self, *tasks: str) -> list[float]:
        """Mean over those of the tasks that are there, one number a seed; empty where none is."""
        there = [task for task in tasks if task in self.tasks]
        if not there:
            return []
        return [statistics.fmean(self.accuracies[seed][task] for task in there) for seed in self.seeds]

    def of_group(self, name: str) -> list[float]:
        """Mean over the tasks of a group that are there, one number a seed."""
        return self.mean(*self.benchmark.groups[name])

    def of_groups(self) -> list[float]:
        """Mean of the groups' means, one number a seed; empty where a group has no task."""
        means = [self.of_group(name) for name in self.benchmark.groups]
        return [statistics.fmean(parts) for parts in zip(*means, strict=True)] if all(means) else []

    def of_tasks(self) -> list[float]:
        """Mean over the tasks that are there, one number a seed."""
        return self.mean(*self.tasks)

    def to_json(self) -> dict[str, Any]:
        """All that a comparison needs; a list has one number a seed."""
        first = self.rows[0]
        return {
            "benchmark": self.benchmark.name,
            "label": first.lineage.label,
            "weights": first.weights,
            "seeds": list(self.seeds),
            "seeds_left_out": list(self.left_out),
            "tasks": {task: self.mean(task) for task in self.tasks},
            "missing_tasks": list(self.missing),
            "groups": {name: self.of_group(name) for name in self.benchmark.groups},
            "mean_of_groups": self.of_groups(),
            "mean_of_tasks": self.of_tasks(),
            "trainable_params_without_head": self.group.mean("trainable_params_without_head"),
            "config": first.settings(*APART),
        }


def named(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        ConfigError: there is none.
    """
    path = FOLDER / f"{name}.toml"
    if name not in names():
        there = ", ".join(names())
        raise ConfigError(f'no benchmark "{name}"{near(name, names()) or ";"} benchmarks: {there}')
    stated = tomllib.loads(path.read_text(encoding="utf-8"))
    published = tuple(Published(**row) for row in stated.pop("published"))
    return Benchmark(name, published=published, **stated)


def names() -> list[str]:
    """The benchmarks that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def standings(rows: Sequence[Row], benchmark: Benchmark) -> list[Standing]:
    """What each experiment came to, in the order of the rows; of equal tasks and seeds the newest counts."""
    together: dict[str, dict[tuple[str, int], Row]] = defaultdict(dict)
    order = {row.artifact.key: place for place, row in enumerate(rows)}
    for row in sorted(filter(benchmark.has, rows), key=lambda row: row.artifact.created, reverse=True):
        together[_experiment(row)].setdefault((_task(row), row.value("seed")), row)
    found = [Standing(benchmark, tuple(members.values())) for members in together.values()]
    return sorted(found, key=lambda standing: min(order[row.artifact.key] for row in standing.rows))


Model = tuple[str, Mapping[str, Line], Standing]
"""Its name, the line of each task that was evaluated, and what it came to."""


def models(lines: Sequence[Line]) -> list[tuple[Benchmark, list[Model]]]:
    """The benchmarks that the evaluations of a comparison belong to, and what was evaluated of each.

    Experiments with other settings for other tasks stand apart, by names of their own.
    """
    line_of = {row.artifact.key: line for line in lines for row in line.group.rows}
    rows = [row for line in lines for row in line.group.rows]
    found = []
    for benchmark in map(named, names()):
        there: list[Model] = []
        taken: Counter[str] = Counter()
        for standing in standings(rows, benchmark):
            tasks = {_task(row): line_of[row.artifact.key] for row in standing.rows}
            name = next(iter(tasks.values())).name
            taken[name] += 1
            there.append((f"{name} ({taken[name]})" if taken[name] > 1 else name, tasks, standing))
        found += [(benchmark, there)] if there else []
    return found


def common(rows: Sequence[Row]) -> Benchmark | None:
    """The benchmark that all of these evaluations belong to, if they are of several of its tasks."""
    for benchmark in map(named, names()):
        if all(map(benchmark.has, rows)) and len(set(map(_task, rows))) > 1:
            return benchmark
    return None


def _task(row: Row) -> str:
    return str(row.value("dataset.task"))


def _experiment(row: Row) -> str:
    """What an evaluation is, but for its task and its seed."""
    return canonical({"settings": row.settings(*APART), "weights": row.lineage.provenance.get("weights")})
