"""What all charts have in common: colours, fonts, sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]
"""A Vega-Lite specification."""

WIDTH = 400  # of a chart in pixels, axes included: its text is still legible on a phone
FONT = "Arial, 'Liberation Sans', Helvetica, system-ui, sans-serif"


@dataclass(frozen=True)
class Palette:
    """The colours of a chart, as CSS has them.

    Args:
        ink: titles and labels.
        muted: axes, rules, what is of less weight.
        grid: lines behind the marks.
        ground: behind all, and inside hollow marks.
        accent: the one colour of a chart with a single quantity.
        series: of categories, told apart also by those who see few colours; the first is the accent's.
    """

    ink: str
    muted: str
    grid: str
    ground: str
    accent: str
    series: tuple[str, ...]


PAPER = Palette(
    ink="#1d2429",
    muted="#66727c",
    grid="#e6eaee",
    ground="#ffffff",
    accent="#0f7b6c",
    series=("#0f7b6c", "#d9641e", "#4a63c8", "#b0397e", "#8a6d00", "#2a8fc4", "#7a4fb5", "#6a737b"),
)
"""For a file of its own: on white."""

PAGE = Palette(
    ink="var(--ink)",
    muted="var(--muted)",
    grid="var(--grid)",
    ground="var(--ground)",
    accent="var(--c0)",
    series=tuple(f"var(--c{index})" for index in range(8)),
)
"""For a page, whose style sheet says what they are, by day and by night."""


def finished(spec: Spec, palette: Palette, title: str = "") -> Spec:
    """The whole specification of a chart, with everything that charts have in common.

    Args:
        spec: data, marks and encodings.
        title: above it; a page has a caption instead.
    """
    text = {"labelColor": palette.muted, "titleColor": palette.ink, "labelFontSize": 11, "titleFontSize": 12}
    text |= {"titleFontWeight": "normal"}
    lines = {"grid": True, "gridColor": palette.grid, "domain": False, "tickColor": palette.grid}
    below = {"orient": "bottom", "direction": "horizontal", "columns": 2, "columnPadding": 26}
    below |= {"symbolSize": 80, "labelLimit": 170, "title": None}
    config = {
        "font": FONT,
        "background": "transparent" if palette is PAGE else palette.ground,
        "padding": 2 if palette is PAGE else 12,
        "view": {"stroke": None},
        "axis": {**text, **lines, "titlePadding": 8, "labelPadding": 5},
        "legend": {**text, **below, "labelColor": palette.ink},
        "header": {**text, "labelColor": palette.ink, "labelFontSize": 12},
        "title": {"color": palette.ink, "fontSize": 13, "anchor": "start", "offset": 12},
        "range": {"category": list(palette.series)},
        "text": {"color": palette.ink, "fontSize": 10.5},
        "rule": {"color": palette.muted},
        "axisBand": {"grid": False, "ticks": False},
    }
    whole = {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "config": config, **spec}
    return {**whole, "title": title} if title else whole


def field(name: str, kind: str, title: str | None = None, **more: Any) -> Spec:
    """An encoding channel; `kind` is Q, O or N: quantitative, ordinal, nominal."""
    kinds = {"Q": "quantitative", "O": "ordinal", "N": "nominal"}
    return {"field": name, "type": kinds[kind], "title": title, **more}


def values(records: Sequence[Mapping[str, Any]]) -> Spec:
    """Data that stands in the specification."""
    return {"values": list(records)}


def colours(names: Sequence[str], palette: Palette) -> Spec:
    """The scale of some names, in their order; more names than colours begin again."""
    count = len(palette.series)
    return {"domain": list(names), "range": [palette.series[i % count] for i in range(len(names))]}


SAID = {"description": {"field": "said"}}
"""The encoding of what a mark says to a screen reader, and under the pointer."""


def percent(share: float) -> float:
    """A share as a number for an axis in %."""
    return round(100 * share, 3)
