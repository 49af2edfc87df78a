"""Render the figures of README and docs from docs/results/*.json, between their marked lines.

    python scripts/tables/render.py            writes the pages
    python scripts/tables/render.py --check    writes nothing; names the pages that would change, exit code 1

A page asks for a table by a pair of comments, `<!-- figures: methods -->` and `<!-- end of figures -->`.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean

from cells import ROOT, Cells, Record
from initial import ADAPTERS, INITIAL
from initial import TASKS as TASKS_OF_INITIAL
from learning_rates import RATES
from methods import METHODS, SEEDS, TASKS
from spa import METHODS as SPA
from spa import PAIRED, RATIOS

from pear_cli.report import spelling
from pear_cli.report.analysis.estimate import Estimate

MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.S)
HEADS = ("glyph", "fractal", "texture", "shape", "x", "y", "size", "direction", "axis", "count", "cells")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, say which pages would change")
    options = parser.parse_args()
    changed = [page for page in pages() if rendered(page) != page.read_text("utf-8")]
    for page in changed:
        print(page.relative_to(ROOT))
        if not options.check:
            page.write_text(rendered(page), "utf-8")
    sys.exit(bool(options.check and changed))


def pages() -> list[Path]:
    """Every page that asks for figures."""
    found = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *ROOT.glob("pear_cli/weights/*.md")]
    return [page for page in found if MARKED.search(page.read_text("utf-8"))]


def rendered(page: Path) -> str:
    """A page's text with the figures of today."""
    return MARKED.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], page.read_text("utf-8"))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def values(records: Iterable[Record], **cell: object) -> list[float]:
    """The accuracies in % of the cells with these names, by seed."""
    found = [record for record in records if cell.items() <= record["cell"].items()]
    return [100 * record["accuracy"] for record in sorted(found, key=lambda record: record["cell"]["seed"])]


def interval(numbers: Sequence[float], sign: str = "") -> str:
    """A mean and the half width of its 95% t-interval; a dash where nothing was measured."""
    found = Estimate.from_seeds(numbers)
    if found is None:
        return "–"
    half = "" if found.half is None else f" ± {found.half:.1f}"
    fewer = "" if found.count == SEEDS else f" (n={found.count})"
    return f"{found.mean:{sign}.1f}".replace("-", "−") + half + fewer


def over_tasks(by_task: Sequence[Sequence[float]]) -> list[float]:
    """The means over tasks, seed by seed; nothing where a cell is missing."""
    whole = all(len(seeds) == SEEDS for seeds in by_task)
    return [fmean(seeds) for seeds in zip(*by_task, strict=True)] if whole else []


def of(records: Iterable[Record], name: str, **cell: object) -> int | None:
    """A size that the cells with these names have in common, of the first of them."""
    return next((record[name] for record in records if cell.items() <= record["cell"].items()), None)


def counted(number: float | None, unit: int = 1, digits: int = 0) -> str:
    return "–" if number is None else f"{number / unit:,.{digits}f}"


def quickstart() -> str:
    """The quickstart's table, as a terminal has it."""
    lines = [("dataset", "model", "pruned", "accuracy %", "trained", "stored", "on disk")]
    for record in ordered(Cells("quickstart").records):
        pruned = f"{record.get('pruned', 0)}/{record.get('units', 24)}"
        sizes = [spelling.count(record[name]) for name in ("trainable_params", "stored_params")]
        found = (pruned, f"{100 * record['accuracy']:.2f}", *sizes, spelling.size(record["stored_bytes"]))
        lines.append((record["cell"]["task"], record["cell"]["model"], *found))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    return "```text\n" + "\n".join(text) + "\n```\n"


def ordered(records: Sequence[Record]) -> list[Record]:
    """The quickstart's records in the order in which it runs them."""
    from quickstart import MODELS, TASKS

    wanted = [{"task": task, "model": model} for task in TASKS for model in MODELS]
    return sorted(records, key=lambda record: wanted.index(record["cell"]))


def methods() -> str:
    """Every method at the same number of trained parameters."""
    records = Cells("methods").records
    speeds = {record["cell"]["method"]: record for record in Cells("speeds").records}
    header = ("accuracy, %", *TASKS, "mean", "trained", "stored, KiB", "images/s, training", "evaluating")
    rows = []
    for method in METHODS:
        by_task = [values(records, task=task, method=method) for task in TASKS]
        trained = of(records, "trainable_params_without_head", method=method)
        stored = of(records, "stored_bytes", method=method)
        speed = [counted(speeds.get(method, {}).get(kind)) for kind in ("training", "evaluating")]
        accuracies = [interval(values(records, task=task, method=method)) for task in TASKS]
        accuracies.append(interval(over_tasks(by_task)))
        rows.append((method, *accuracies, counted(trained), counted(stored, 1024), *speed))
    return table(header, rows)


def spa() -> str:
    """Structured pruning with adapters beside fine-tuning, paired by seed."""
    records = Cells("spa").records
    header = ("pruned", "accuracy, %", *TASKS, "mean", f"against {PAIRED}", "learned", "MACs, M")
    rows = []
    for ratio in RATIOS:
        beside = means(records, PAIRED, ratio)
        for method in SPA:
            by_task = [values(records, task=task, method=method, ratio=ratio) for task in TASKS]
            if not any(by_task):
                continue
            mean = over_tasks(by_task)
            against = [] if method == PAIRED or not (mean and beside) else minus(mean, beside)
            sizes = [
                of(records, name, method=method, ratio=ratio)
                for name in ("trainable_params_without_head", "macs_per_image")
            ]
            accuracies = [interval(values(records, task=task, method=method, ratio=ratio)) for task in TASKS]
            accuracies.append(interval(mean))
            difference = interval(against, "+") if against else ""
            costs = (counted(sizes[0]), counted(sizes[1], 10**6, 1))
            rows.append((f"{ratio:.0%}", method, *accuracies, difference, *costs))
    return table(header, rows)


def means(records: Sequence[Record], method: str, ratio: float) -> list[float]:
    return over_tasks([values(records, task=task, method=method, ratio=ratio) for task in TASKS])


def minus(left: Sequence[float], right: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(left, right, strict=True)]


def learning_rates() -> str:
    """Accuracy on val200 by method and rate; the best rate of a method in bold."""
    found = {tuple(record["cell"].values()): record["accuracy"] for record in Cells("learning_rates").records}
    rows = []
    for method, rates in RATES.items():
        means = {}
        for rate in rates:
            known = [found[task, method, rate] for task in TASKS if (task, method, rate) in found]
            means[rate] = fmean(known) if known else -1.0
        for rate in rates:
            cells = [found.get((task, method, rate)) for task in TASKS]
            mark = "**" if means[rate] == max(means.values()) >= 0 else ""
            spelled = ("–" if cell is None else f"{100 * cell:.1f}" for cell in cells)
            rows.append((method, f"{mark}{rate:g}{mark}", *spelled))
    return table(("method", "rate", *TASKS), rows)


def initial() -> str:
    """Structured pruning adapters by their initial values, and the difference, paired by seed."""
    records, rows = Cells("initial").records, []
    for method in ADAPTERS:
        cells = []
        for task in TASKS_OF_INITIAL:
            paper, code = (values(records, task=task, method=method, initial=name) for name in INITIAL)
            whole = len(paper) == len(code) == SEEDS
            difference = interval(minus(code, paper), "+") if whole else "–"
            cells += [interval(paper), interval(code), difference]
        rows.append((method, *cells))
    parts = [f"{task}, {part}" for task in TASKS_OF_INITIAL for part in (*INITIAL, "difference")]
    return table(("accuracy, %", *parts), rows)


def pruned() -> str:
    """The speed-up of a network without most of its channels and heads."""
    header = (
        "round_to",
        "heads",
        "mlp channels",
        "batch",
        "ms, p50 (p95)",
        "after",
        "faster",
        "by MACs",
        "share",
    )
    rows = []
    for record in Cells("pruned").records:
        latencies = [f"{record[name]['p50']:.1f} ({record[name]['p95']:.1f})" for name in ("before", "after")]
        ratios = [record["faster"], record["by_macs"], record["faster"] / record["by_macs"]]
        cell = record["cell"]
        sizes = (str(cell["round_to"]), record["heads"], record["mlp_channels"], str(cell["batch"]))
        rows.append((*sizes, *latencies, *(f"{ratio:.2f}" for ratio in ratios)))
    return table(header, rows)


def step() -> str:
    """What a training step costs beside the bare backbone's."""
    records = Cells("step").records
    floor = next((record["ms"] for record in records if record["cell"]["step"] == "floor"), 1.0)
    by_time = sorted(records, key=lambda record: record["ms"])
    rows = [(r["cell"]["step"], f"{r['ms']:.1f} ms", f"{r['ms'] / floor:.2f}") for r in by_time]
    return table(("step", "median", "of the floor"), rows)


def heads() -> str:
    """What the bundled backbone knows of its own pretraining."""
    found = json.loads((ROOT / "pear_cli/weights/pear_mini.json").read_text())["heads"]
    accuracies = ("accuracy", *(f"{found[head]:.1f}" for head in HEADS))
    return table(("head, % on fresh images", *HEADS), [accuracies])


def probe() -> str:
    """Logistic regression on the frozen class token, with the bundled weights and with random ones."""
    records = {tuple(record["cell"].values()): record["accuracy"] for record in Cells("probe").records}
    rows = [
        (weights, *(f"{100 * records[task, weights]:.1f}" for task in TASKS))
        for weights in ("random weights", "pear_mini")
    ]
    return table(("logistic regression on 1000 images, %", *TASKS), rows)


TABLES: dict[str, Callable[[], str]] = {
    make.__name__: make
    for make in (quickstart, methods, spa, initial, learning_rates, pruned, step, heads, probe)
}

if __name__ == "__main__":
    main()
