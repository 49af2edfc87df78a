"""The tables of a benchmark: averages beside the published ones, and every task."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from pear_cli.report import spelling
from pear_cli.report.analysis.benchmark import APART, Benchmark, Standing, standings
from pear_cli.report.analysis.listing import Row
from pear_cli.report.analysis.protocol import SETTINGS, short
from pear_cli.report.terminal import layout, table
from pear_cli.report.terminal.layout import Column


def print_benchmark(rows: Sequence[Row], benchmark: Benchmark, console: Console) -> None:
    """Print averages, then every task."""
    found = standings(rows, benchmark)
    print_averages(found, benchmark, console)
    if found:
        layout.write(console, [Text()])
        layout.print_table(task_columns(found, benchmark), console)


def print_averages(found: Sequence[Standing], benchmark: Benchmark, console: Console) -> None:
    """Print the averages of each experiment, then the published ones, and under which protocol."""
    if not found:
        hint = f"pear run experiment={benchmark.name} dataset.root=DIR"
        layout.write(console, [Text(f"no evaluation of a task of {benchmark.name} yet; run: {hint}")])
        return
    layout.print_table(
        average_columns(found, benchmark),
        console,
        *((f"note: {note}", layout.NOTE) for note in _incomplete(found)),
        (f"protocol: {_protocol(found)}", "dim"),
        (benchmark.caveat, "dim"),
        *table.notes([row for standing in found for row in standing.rows]),
    )


def average_columns(found: Sequence[Standing], benchmark: Benchmark) -> list[Column]:
    """One line an experiment, numbered, then one for each published average."""
    groups, papers = [standing.group for standing in found], benchmark.published
    blank = [""] * len(papers)

    def words(title: str, own: Sequence[str], theirs: Sequence[str] = blank, rank: int = 0) -> Column:
        return Column(title, [*own, *theirs], rank=rank, words="cut")

    def numbers(title: str, own: Sequence[str], theirs: Sequence[str] = blank, rank: int = 0) -> Column:
        return Column(title, [*own, *theirs], True, rank)

    labels = [group.marked(group.first.lineage.label) for group in groups]
    trained = [spelling.count(group.mean("trainable_params_without_head")) for group in groups]
    theirs = ["" if paper.trained is None else spelling.count(round(1e6 * paper.trained)) for paper in papers]
    means = [spelling.percent(standing.of_groups()) for standing in found]
    stated = [
        [f"{mean:.1f}" for mean in paper.groups or ()] or [""] * len(benchmark.groups) for paper in papers
    ]
    return [
        numbers("#", [str(number) for number in range(1, len(found) + 1)]),
        words("method", [str(group.first.value("method")) for group in groups], [p.method for p in papers]),
        words("model", labels, ["published"] * len(papers)),
        *(words(column.title, column.cells) for column in table.varying(groups, _telling(found))),
        numbers("trained", trained, theirs, 2),
        *(
            numbers(name, [_group(standing, name) for standing in found], [row[place] for row in stated], 1)
            for place, name in enumerate(benchmark.groups)
        ),
        numbers("mean of groups", means, [f"{paper.average:.1f}" for paper in papers]),
        numbers("mean of tasks", [spelling.percent(standing.of_tasks()) for standing in found]),
        numbers("tasks", [f"{len(standing.tasks)}/{len(benchmark.tasks)}" for standing in found]),
        words("source", [""] * len(found), [paper.source for paper in papers], 3),
    ]


def task_columns(found: Sequence[Standing], benchmark: Benchmark) -> list[Column]:
    """One line a task, one column an experiment, by the numbers of the other table."""
    named = [(group, task) for group, tasks in benchmark.groups.items() for task in tasks]
    return [
        Column("task", [task for _, task in named]),
        Column("group", [group for group, _ in named], rank=1),
        *(
            Column(f"accuracy % of {number}", [_task(standing, task) for _, task in named], right=True)
            for number, standing in enumerate(found, start=1)
        ),
    ]


def _telling(found: Sequence[Standing]) -> list[str]:
    """Settings that tell standings apart: of the protocol, and those of one method and label that differ."""
    seen: dict[tuple[str, str], dict[str, str]] = {}
    keys = list(SETTINGS)
    for first in (standing.rows[0] for standing in found):
        own = {key: spelling.value(value) for key, value in first.lineage.settings.items()}
        other = seen.setdefault((str(first.value("method")), first.lineage.label), own)
        keys += [key for key in own if own[key] != other.get(key) and key not in (*APART, *keys)]
    return keys


def _task(standing: Standing, task: str) -> str:
    return spelling.percent(standing.mean(task)) or "–"


def _group(standing: Standing, name: str) -> str:
    tasks = standing.benchmark.groups[name]
    there = sum(task in standing.tasks for task in tasks)
    part = f" ({there}/{len(tasks)})" if 0 < there < len(tasks) else ""
    return spelling.percent(standing.of_group(name)) + part


def _incomplete(found: Sequence[Standing]) -> Iterator[str]:
    lost: dict[tuple[str, ...], list[str]] = {}
    for number, standing in enumerate(found, start=1):
        if standing.missing:
            lost.setdefault(standing.missing, []).append(str(number))
        if standing.left_out:
            seeds = ", ".join(map(str, standing.left_out))
            yield f"{number} leaves out seeds that lack a task that another seed has: {seeds}"
    whole = len(found[0].benchmark.tasks)
    for missing, numbers in lost.items():
        there = f"{whole - len(missing)} of {whole} tasks, which its averages are of"
        yield f"{', '.join(numbers)}: {there}; missing: {', '.join(missing)}"


def _protocol(found: Sequence[Standing]) -> str:
    """What all evaluations have in common of it; where they differ there is a column."""
    rows = [row for standing in found for row in standing.rows]
    known = {key: {spelling.value(row.value(key)) for row in rows} for key in SETTINGS}
    shared = {key: values for key, values in known.items() if len(values) == 1}
    same = [f"{key} {value}" for key, (value,) in shared.items() if value != "null"]
    weights = {short(str(row.lineage.provenance.get("weights", ""))) for row in rows}
    return ", ".join([*same, f"frozen weights {' and '.join(sorted(weights))}"])
