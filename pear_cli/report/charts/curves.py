"""Learning curves of one experiment: accuracy and loss by epoch, over all its trainings."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from pear_cli.errors import printable
from pear_cli.report.charts.style import SAID, WIDTH, Palette, Spec, colours, field, values

Record = Mapping[str, Any]
TICKS = 8  # of the epochs, at most
HEIGHTS = {"accuracy, %": 150, "loss": 100}
PHASES = 40  # rules between trainings that are drawn, at most


def learning(runs: Mapping[str, Sequence[Sequence[Record]]], palette: Palette) -> Spec | None:
    """Accuracy above, loss below; a thin rule stands where one training ends and the next begins.

    Args:
        runs: of each run by name, such as `seed 0`, the histories of its trainings, in order.

    Returns:
        None where no epoch was trained.
    """
    records: list[dict[str, Any]] = []
    ends: dict[int, None] = {}
    for run, histories in runs.items():
        epoch = 0
        for index, history in enumerate(histories):
            if index and epoch:
                ends[epoch] = None
            for entry in history:
                epoch += 1
                records += [{**point, "epoch": epoch, "run": run} for point in _points(entry)]
    if not records:
        return None
    for record in records:
        several = f", {record['run']}" if len(runs) > 1 else ""
        unit = " %" if record["kind"] == "accuracy" else ""
        name = f"{record['split']} {record['kind']}"
        record["said"] = f"epoch {record['epoch']}: {name} {record['value']:.4g}{unit}{several}"
    names = list(dict.fromkeys(record["split"] for record in records))
    last = max(record["epoch"] for record in records)
    panels = []
    for title in HEIGHTS:
        here = [record for record in records if title.startswith(record["kind"])]
        if here:
            panels.append(_panel(here, names, title, last, list(ends)[:PHASES], palette))
    return {"vconcat": panels, "spacing": 14, "resolve": {"scale": {"color": "shared"}}}


def _panel(
    records: list[dict[str, Any]], names: list[str], title: str, last: int, ends: list[int], palette: Palette
) -> Spec:
    scale = {"domain": [1, max(2, last)], "nice": False, "zero": False}
    axis = {"values": _ticks(last), "grid": False, "format": "d", "labelOverlap": True}
    x = field("epoch", "Q", "epoch", scale=scale, axis=axis)
    y = field("value", "Q", title, scale={"zero": False}, axis={"tickCount": 4})
    legend: Spec = {} if len(names) > 1 else {"legend": None}
    colour = field("split", "N", scale=colours(names, palette), **legend)
    common = {"x": x, "y": y, "color": colour, "detail": field("run", "N")}
    rule: Spec = {"type": "rule", "strokeDash": [3, 3], "color": palette.muted, "aria": False}
    point = {"type": "point", "filled": True, "size": 22, "opacity": 0.9}
    layers: list[Spec] = [
        {"mark": {"type": "line", "strokeWidth": 1.6, "opacity": 0.75, "aria": False}, "encoding": common},
        {"mark": point, "encoding": {**common, **SAID}},
    ]
    if ends:
        between = values([{"at": end + 0.5} for end in ends])
        layers.insert(0, {"data": between, "mark": rule, "encoding": {"x": {**x, "field": "at"}}})
    return {"width": WIDTH - 60, "height": HEIGHTS[title], "data": values(records), "layer": layers}


def _ticks(last: int) -> list[int]:
    """Whole epochs, at most `TICKS` of them."""
    step = next(
        n * 10**power for power in itertools.count() for n in (1, 2, 5) if last <= TICKS * n * 10**power
    )
    return list(range(step, last + 1, step))


def _points(entry: Record) -> list[dict[str, Any]]:
    found = []
    for key, number in entry.items():
        if not isinstance(number, int | float) or isinstance(number, bool):
            continue
        split, _, kind = key.rpartition("_")
        if kind in ("accuracy", "loss"):
            amount = 100 * number if kind == "accuracy" else number
            point = {"split": printable(split) or "training", "kind": kind, "value": round(float(amount), 5)}
            found.append(point)
    return found
