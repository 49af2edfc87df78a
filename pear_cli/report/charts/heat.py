"""Shaded tables: the importance of units by block and slot, and who is taken for whom."""

from collections.abc import Mapping, Sequence
from typing import Any

from pear_cli.report.analysis.pruned import PART, largest, place
from pear_cli.report.charts.style import SAID, WIDTH, Palette, Spec, field, values

DARK = 0.55  # shade from which on the text on it changes its colour
CELLS = 40  # a side; a larger table is no longer legible
FAINT = 0.05  # shade of nothing at all: the cell is there


def importance(
    scores: Mapping[str, float], palette: Palette, pruned: frozenset[str] = frozenset()
) -> Spec | None:
    """The importance of every unit, blocks across and slots down; several units of a site are averaged.

    Args:
        scores: of each unit by name.
        pruned: names of the units that went; they are crossed out.

    Returns:
        None where there are no scores.
    """
    if not scores:
        return None
    most = largest(scores)
    together: dict[str, list[str]] = {}
    for name in scores:
        together.setdefault(PART.sub("", name), []).append(name)
    records = []
    for site, (block, slot) in place(together).items():
        names = together[site]
        mean = sum(scores[name] for name in names) / len(names)
        gone = sum(name in pruned for name in names)
        share = max(0.0, mean / most)
        kept = (
            "pruned" if gone == len(names) else f"{len(names) - gone} of {len(names)} remain" if gone else ""
        )
        said = f"block {block}, {slot}: {mean:.3g}{', ' if kept else ''}{kept}"
        text = f"{share:.2f}".removeprefix("0") if share < 1 else "1"
        records.append({"block": block, "slot": slot, "share": share, "said": said, "text": text,
                        "gone": gone / len(names)})  # fmt: skip
    blocks, slots = ({record[key] for record in records} for key in ("block", "slot"))
    step = min(34, (WIDTH - 70) / len(blocks))
    x = field("block", "O", "block", axis={"labelAngle": 0, "labelOverlap": True})
    y = field("slot", "N", None, sort=None)
    size = {"width": step * len(blocks), "height": 30 * len(slots)}
    return _shaded(records, x, y, size, step >= 24, palette)


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], palette: Palette) -> Spec | None:
    """How many images of a class (down) were taken for each class (across); shade: share of the row.

    Returns:
        None for more classes than a table can show.
    """
    if not counts or len(counts) > CELLS:
        return None
    records = []
    for true, row in enumerate(counts):
        total = sum(row)
        for predicted, count in enumerate(row):
            if count:
                share = count / total
                said = f"{count} of {total} images of {classes[true]} taken for {classes[predicted]}"
                records.append({"true": classes[true], "predicted": classes[predicted], "share": share,
                                "text": str(count), "said": said, "gone": 0})  # fmt: skip
    if not records:
        return None
    step = min(34, (WIDTH - 80) / len(counts))
    scale = {"domain": list(classes)}
    axis: Spec = {"labelOverlap": True, "labelLimit": 90}
    level = {"labelAngle": 0 if max(map(len, classes)) <= 2 else -90}
    x = field("predicted", "N", "predicted class", scale=scale, axis={**axis, **level})
    y = field("true", "N", "class", scale=scale, axis=axis)
    size = dict.fromkeys(("width", "height"), step * len(counts))
    return _shaded(records, x, y, size, step >= 22, palette)


def _shaded(
    records: Sequence[Mapping[str, Any]], x: Spec, y: Spec, size: Spec, written: bool, palette: Palette
) -> Spec:
    shade = field("share", "Q", scale={"domain": [0, 1], "range": [FAINT, 1]}, legend=None)
    rect: Spec = {"type": "rect", "color": palette.accent, "cornerRadius": 2}
    dark = f"datum.share > {DARK}"
    ink = {"condition": {"test": dark, "value": palette.ground}, "value": palette.ink}
    cells = {**rect, "stroke": palette.ground, "strokeWidth": 1.5}
    cross: Spec = {"type": "point", "shape": "M-1,-1L1,1M-1,1L1,-1", "size": 260, "strokeWidth": 1}
    away = [{"filter": "datum.gone == 1"}]
    layers: list[Spec] = [{"mark": cells, "encoding": {"fillOpacity": shade, **SAID}}]
    if written:
        text = {"text": {"field": "text"}, "color": ink}
        layers.append({"mark": {"type": "text", "aria": False}, "encoding": text})
    layers.append({"transform": away, "mark": {**cross, "color": palette.ink, "opacity": 0.4, "aria": False}})
    return {**size, "data": values(records), "encoding": {"x": x, "y": y}, "layer": layers}
