"""The columns of a comparison, for a reader and for a program."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pear_cli.report import spelling
from pear_cli.report.analysis.comparison import Line
from pear_cli.report.analysis.estimate import Estimate

COSTS = (
    *("trainable_params", "trainable_params_without_head", "stored_params", "stored_bytes"),
    *("macs_per_image", "latency_p50_ms", "latency_p95_ms", "images_per_second", "speedup_64"),
    *("peak_memory_bytes", "seconds"),
)


@dataclass(frozen=True)
class Field:
    """One column for a reader.

    Args:
        name: what a program calls it.
        title: what stands above it.
        text: a cell.
        number: what cells are sorted by; None sorts by the text.
        hint: what it means, in words.
    """

    name: str
    title: str
    text: Callable[[Line], str]
    number: Callable[[Line], float | None] | None = None
    hint: str = ""


def fields(lines: Sequence[Line]) -> list[Field]:
    """The columns in which at least one line says something."""
    known = [
        Field("dataset", "dataset", lambda line: line.dataset),
        Field("method", "method", lambda line: line.method),
        Field("model", "model", lambda line: line.group.marked(line.model)),
        Field(
            "accuracy", "accuracy, %", lambda line: percent(line.accuracy), lambda line: _mean(line.accuracy),
            "on the test split, mean over seeds ± half of the 95% t interval",
        ),
        Field(
            "difference", "Δ baseline", _difference, lambda line: _mean(line.difference),
            "accuracy less that of the baseline in percentage points, paired by seed, ± 95% t interval",
        ),
        _cost("trainable_params_without_head", "trained", spelling.count, "parameters, classifier aside"),
        _cost("stored_params", "stored", spelling.count, "parameters, each tensor once, with classifier"),
        _cost("stored_bytes", "on disk", spelling.size, "adapters, classifier and knowledge"),
        _cost("macs_per_image", "MACs", spelling.count, "multiply-accumulates of one image"),
        _cost("latency_p50_ms", "latency, ms", spelling.number, "of one image, median"),
        _cost("speedup_64", "faster, ×", spelling.number, "than the unpruned network, 64 images, measured"),
        _cost("seconds", "time", spelling.duration, "of the whole experiment, all stages"),
    ]  # fmt: skip
    if any(line.first.value("select") != "last" for line in lines):
        known.append(Field("select", "select", lambda line: spelling.value(line.first.value("select"))))
    return [one for one in known if any(map(one.text, lines))]


def record(line: Line) -> dict[str, Any]:
    """All that a program may want of a line; shares in [0, 1], bytes, seconds."""
    shared = {
        "dataset": line.dataset,
        "method": line.method,
        "model": line.model,
        "label": line.first.lineage.label,
        "prune_ratio": line.ratio,
        "share_rule": line.first.value("share.rule"),
        "knowledge_kind": line.first.value("knowledge.kind"),
        "select": line.first.value("select"),
        "random_weights": line.first.weights == "random",
        "seeds": len(line.by_seed),
        **_numbers("accuracy", line.accuracy),
        **_numbers("difference", line.difference),
        "difference_seeds": line.difference.count if line.difference else 0,
        "baseline": line.baseline.first.artifact.key if line.baseline else None,
        "not_comparable": line.incomparable or None,
    }
    keys = [row.artifact.key for row in line.group.rows]
    return {**shared, **{cost: line.group.mean(cost) for cost in COSTS}, "artifacts": keys}


def percent(estimate: Estimate | None, sign: str = "") -> str:
    """`93.20 ± 0.41`; nothing where there is no estimate."""
    return "" if estimate is None else estimate.percent(sign)


def _difference(line: Line) -> str:
    if line.is_baseline:
        return "baseline"
    if line.of_other_images:
        return "≠ other images"
    found = percent(line.difference, "+")
    return f"≠ {found}" if found and line.incomparable else found


def _cost(name: str, title: str, spell: Callable[[float | None], str], hint: str) -> Field:
    def mean(line: Line) -> float | None:
        return line.group.mean(name)

    return Field(name, title, lambda line: spell(mean(line)), mean, hint)


def _mean(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.mean


def _numbers(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    return {name: _mean(estimate), f"{name}_ci95": None if estimate is None else estimate.half}
