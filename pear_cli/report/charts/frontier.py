"""Accuracy against what it costs: stored bytes, and the prune ratio."""

from collections.abc import Sequence
from typing import Any

from pear_cli.report import spelling
from pear_cli.report.analysis.comparison import Line, of_another_protocol
from pear_cli.report.charts.render import LINK
from pear_cli.report.charts.style import SAID, WIDTH, Palette, Spec, colours, field, percent, values

HEIGHT = 250
LOG = 20  # of the largest to the smallest size, from which on the axis is logarithmic
LEGEND = 12  # series that a legend names, at most
LEVELS = 3  # dashed baselines, at most
SHORT = 26  # letters of a name that has room for another beside it
SHAPES = (
    *("circle", "square", "triangle-up", "cross"),
    *("triangle-right", "triangle-left", "triangle-down", "diamond"),
)
"""Of marks; where colours begin again, they continue with the next: no two series look alike."""

UNITS = ((1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes"))


def pareto(lines: Sequence[Line], palette: Palette) -> Spec | None:
    """Accuracy against stored bytes, with the front: what nothing smaller or equal in size surpasses.

    Args:
        lines: of one dataset.

    Returns:
        None where no evaluation has both numbers.
    """
    records = [
        {**record, "bytes": size}
        for line, record in _records(lines)
        if (size := line.group.mean("stored_bytes")) is not None and size > 0
    ]
    best = {line.number for line in front(lines)}
    if not records:
        return None
    sizes = [record["bytes"] for record in records]
    divisor, unit = next(unit for unit in UNITS if min(sizes) >= unit[0] or unit[0] == 1)
    if max(sizes) / divisor > 99_999:
        divisor, unit = UNITS[0]
    for record in records:
        record["size"] = record.pop("bytes") / divisor
        record["said"] += f", {spelling.size(record['size'] * divisor)}"
    wide = max(sizes) / min(sizes) > LOG
    scale = {"padding": 14, **({"type": "log", "nice": False} if wide else {"zero": False})}
    axis = {"tickCount": 4, "grid": not wide, "labelOverlap": True}
    x = field("size", "Q", f"stored, {unit}{', logarithmic' if wide else ''}", scale=scale, axis=axis)
    steps = sorted((r for r in records if r["number"] in best), key=lambda record: record["size"])
    steps += [{**record, "size": max(sizes) / divisor} for record in steps[-1:]]
    line: Spec = {"type": "line", "interpolate": "step-after", "strokeDash": [4, 3], "color": palette.muted}
    dashed = {"data": values(steps), "mark": {**line, "strokeWidth": 1.5, "aria": False}}
    below = [{**dashed, "encoding": {"x": x, "y": _accuracy(records)}}]
    return _chart(records, x, _colour(lines, records, palette), palette, below)


def ratios(lines: Sequence[Line], palette: Palette) -> Spec | None:
    """Accuracy against the prune ratio; a line joins what differs in the ratio alone.

    Args:
        lines: of one dataset; what the pruned ones are compared with is dashed, up to `LEVELS` of them.

    Returns:
        None where nothing was pruned.
    """
    pruned = [line for line in lines if line.ratio]
    if not pruned:
        return None
    records = [{**record, "ratio": percent(line.ratio or 0)} for line, record in _records(pruned)]
    dashed = compared(lines)
    level = [record for _, record in _records(dashed if len(dashed) <= LEVELS else [])]
    names = {record["series"] for record in records}
    axis = {"values": [0, 25, 50, 75, 100]}
    x = field("ratio", "Q", "pruned units, %", scale={"domain": [0, 100]}, axis=axis)
    colour = _colour(lines, [*records, *level], palette)
    rule: Spec = {"type": "rule", "strokeDash": [4, 3], "strokeWidth": 1.5}
    y = _accuracy([*records, *level])
    across = {"y": y, "color": colour, **SAID}
    below: list[Spec] = [{"name": "compared", "data": values(level), "mark": rule, "encoding": across}]
    if len(names) <= LEGEND:
        joined: Spec = {"type": "line", "strokeWidth": 1.5, "aria": False}
        encoding = {"x": x, "y": y, "color": colour}
        below.append({"data": values(records), "mark": joined, "encoding": encoding})
    return _chart(records, x, colour, palette, below, y)


def compared(lines: Sequence[Line]) -> list[Line]:
    """What the pruned ones of these lines are compared with."""
    found = {id(line.baseline) for line in lines if line.ratio}
    return [line for line in lines if id(line.group) in found]


def unnamed(lines: Sequence[Line]) -> int:
    """How many series the charts of these lines have, 0 where a legend names them."""
    count = len({line.series_name for line in lines})
    return count if count > LEGEND else 0


def front(lines: Sequence[Line]) -> list[Line]:
    """The lines that nothing of their size or smaller surpasses, the smallest first.

    Those of another protocol than most take no part.
    """
    apart = of_another_protocol(lines)
    known = [
        (size, -estimate.mean, line.number, line)
        for line in lines
        if (size := line.group.mean("stored_bytes")) is not None
        and (estimate := line.accuracy) is not None
        and line.number not in apart
    ]
    found: list[Line] = []
    best = float("inf")
    for _, error, _, line in sorted(known, key=lambda one: one[:3]):
        if error < best:
            best = error
            found.append(line)
    return found


def _chart(
    records: list[dict[str, Any]],
    x: Spec,
    colour: Spec,
    palette: Palette,
    below: list[Spec],
    y: Spec | None = None,
) -> Spec | None:
    if not records:
        return None
    y = y or _accuracy(records)
    own = {"data": values(records)}
    low, high = field("low", "Q", "accuracy, %"), {"field": "high"}
    spread = {"mark": {"type": "rule", "strokeWidth": 1.5, "opacity": 0.45, "aria": False}}
    place = {"x": x, "color": colour}
    point: Spec = {"type": "point", "filled": True, "size": 85, "opacity": 1, "strokeWidth": 1.2}
    names = colour["scale"]["domain"]
    shapes = [SHAPES[(i + i // len(palette.series)) % len(SHAPES)] for i in range(len(names))]
    shape = {"shape": {**colour, "scale": {"domain": names, "range": shapes}}} if colour["legend"] else {}
    solid = {key: colour[key] for key in ("field", "type", "scale", "legend")}
    filled = {"condition": {"test": "datum.apart", "value": palette.ground}, **solid}
    edge = {"condition": {"test": "datum.apart", **solid}, "value": palette.ground}
    marks = {"x": x, "y": y, "fill": filled, "stroke": edge, **shape, **SAID}
    layers = [
        *below,
        {**own, **spread, "encoding": {**place, "y": low, "y2": high}},
        {**own, "mark": point, "encoding": {**marks, "href": {"field": "href"}}},
    ]
    return {"width": WIDTH - 60, "height": HEIGHT, "layer": layers}


def _accuracy(records: Sequence[dict[str, Any]]) -> Spec:
    """The axis of accuracy: it spans at least two standard errors of the test set around every point."""
    floor = min((record["floor"] for record in records), default=0)
    roof = max((record["roof"] for record in records), default=100)
    domain = {"domain": [floor, roof]} if floor < roof else {}
    scale = {"zero": False, "nice": True, **domain}
    return field("accuracy", "Q", "accuracy, %", scale=scale, axis={"tickCount": 5})


def _records(lines: Sequence[Line]) -> list[tuple[Line, dict[str, Any]]]:
    found = []
    apart = of_another_protocol(lines)
    for line in lines:
        if (estimate := line.accuracy) is None:
            continue
        mean, noise = estimate.mean, line.noise
        half = noise if estimate.half is None else estimate.half
        spread = f", ± {100 * noise:.1f} of the test set" if estimate.half is None and noise else ""
        record = {
            "accuracy": percent(mean),
            "low": percent(max(0.0, mean - half)),
            "high": percent(min(1.0, mean + half)),
            "series": line.series_name,
            "said": f"{line.name}: {spelling.percent(list(line.by_seed.values()))} %{spread}",
            "floor": percent(max(0.0, mean - max(half, noise))),
            "roof": percent(min(1.0, mean + max(half, noise))),
            "href": f"{LINK}#row-{line.number}",
            "number": line.number,
            "apart": line.number in apart,
        }
        found.append((line, record))
    return found


def _colour(lines: Sequence[Line], records: Sequence[dict[str, Any]], palette: Palette) -> Spec:
    """The same colour for a series in all charts of these lines; the legend has those that are drawn."""
    names = list(dict.fromkeys(line.series_name for line in lines))
    here = [name for name in names if any(record["series"] == name for record in records)]
    wide = {"columns": 1, "labelLimit": WIDTH - 110} if max(map(len, here), default=0) > SHORT else {}
    legend = {"values": here, "symbolOpacity": 1, **wide} if len(names) <= LEGEND else None
    return field("series", "N", scale=colours(names, palette), legend=legend)
