"""The share map as arcs: which adapter serves where another was pruned."""

import math
from collections.abc import Mapping
from typing import Any

from pear_cli.report.analysis.pruned import Sites, largest, place
from pear_cli.report.charts.style import SAID, WIDTH, Palette, Spec, field, values

POINTS = 24  # of an arc
FLAT = 0.62  # height of an arc in halves of its width
TITLE = {"anchor": "start", "fontSize": 12, "fontWeight": "normal", "offset": 0}
LARGEST, SMALLEST = 240, 60  # area of a site in square pixels, by its importance


def share_map(sites: Sites, palette: Palette) -> Spec | None:
    """Sites in a row for each slot; an arc from the owner to each site that it serves in another's place.

    A filled circle keeps its own adapter, and its area is the importance; a hollow one was pruned, and has
    the colour of the one that serves there, none where nothing does. A dot inside: what it knew is kept.

    Returns:
        None where no adapter was pruned as a whole.
    """
    if not sites.pruned:
        return None
    owners = sites.owners
    places = place(sites.names)
    slots = list(dict.fromkeys(slot for _, slot in places.values()))
    shared = [site for site in places if site in sites.served]
    busy = list(dict.fromkeys(str(owners[site]) for site in shared))
    hue = {owner: index % len(palette.series) for index, owner in enumerate(busy)}
    most = largest(sites.scores)
    nodes, arcs = [], []
    for site, (block, slot) in places.items():
        owner = owners.get(site)
        share = max(0.0, sites.scores[site] / most) if site in sites.scores else None
        size = SMALLEST + (LARGEST - SMALLEST) * (0.5 if share is None else share)
        own = {"own": True, "area": size} if owner == site else {"own": False, "area": SMALLEST}
        said = {"kept": site in sites.knowledge, "said": _said(site, sites, places, share)}
        nodes.append({"block": block, "slot": slot, "hue": hue.get(str(owner), -1), **own, **said})
        if site in shared:
            arcs += _arc(places[str(owner)][0], block, slot, site, hue[str(owner)])
    return _rows(nodes, arcs, slots, palette)


def _rows(
    nodes: list[dict[str, Any]], arcs: list[dict[str, Any]], slots: list[str], palette: Palette
) -> Spec:
    last = max(node["block"] for node in nodes)
    domain = [-0.6, last + 0.6]
    step = (WIDTH - 80) / (last + 1)
    panels: list[Spec] = []
    for index, slot in enumerate(slots):
        here = [node for node in nodes if node["slot"] == slot]
        drawn = [point for point in arcs if point["slot"] == slot]
        top = max((point["y"] for point in drawn), default=0.0) + 0.55
        bottom = index == len(slots) - 1
        axis: Spec = {"grid": False, "ticks": False, "tickMinStep": 1, "labels": bottom, "format": "d"}
        axis["values"] = list(range(0, last + 1, 1 if last < 16 else 4))
        title = "block" if bottom else None
        x = field("block", "Q", title, scale={"domain": domain, "nice": False}, axis=axis)
        y = field("y", "Q", None, scale={"domain": [-0.55, top], "nice": False}, axis=None)
        panels.append(
            {
                "width": WIDTH - 80,
                "height": round((top + 0.55) * step),
                "title": {**TITLE, "text": slot},
                "layer": _layers(here, drawn, x, y, palette),
            }
        )
    return {"vconcat": panels, "spacing": 6, "resolve": {"scale": {"color": "shared"}}}


def _layers(
    nodes: list[dict[str, Any]], arcs: list[dict[str, Any]], x: Spec, y: Spec, p: Palette
) -> list[Spec]:
    scale = {"domain": list(range(-1, len(p.series))), "range": [p.muted, *p.series]}
    colour = field("hue", "O", scale=scale, legend=None)
    area = field("area", "Q", scale=None, legend=None)
    data = values([{**node, "y": 0} for node in nodes])
    circle: Spec = {"type": "point", "shape": "circle", "opacity": 1, "strokeWidth": 1.8}
    own = {"condition": {"test": "datum.own", **{k: colour[k] for k in ("field", "type", "scale", "legend")}}}
    order = {"x": x, "y": y, "color": colour, "detail": field("site", "N"), "order": field("step", "Q")}
    dot = {"type": "point", "filled": True, "size": 14, "opacity": 1, "aria": False}
    return [
        {"data": values(arcs), "mark": {"type": "line", "strokeWidth": 1.6, "opacity": 0.75, "aria": False},
         "encoding": order},
        {"data": data, "mark": {**circle, "fillOpacity": 1}, "encoding": {
            "x": x, "y": y, "size": area, "stroke": colour, "fill": {**own, "value": p.ground}, **SAID}},
        {"data": data, "transform": [{"filter": "datum.kept"}], "mark": dot,
         "encoding": {"x": x, "y": y, "color": colour}},
    ]  # fmt: skip


def _arc(start: int, end: int, slot: str, site: str, hue: int) -> list[dict[str, Any]]:
    middle, radius = (start + end) / 2, (end - start) / 2
    angles = [math.pi * step / POINTS for step in range(POINTS + 1)]
    across = [round(middle - radius * math.cos(angle), 4) for angle in angles]
    up = [round(FLAT * abs(radius) * math.sin(angle), 4) for angle in angles]
    own = {"slot": slot, "site": site, "hue": hue}
    points = zip(across, up, strict=True)
    return [{"block": x, "y": y, "step": step, **own} for step, (x, y) in enumerate(points)]


def _said(site: str, sites: Sites, places: Mapping[str, tuple[int, str]], share: float | None) -> str:
    block, slot = places[site]
    owner = sites.owners.get(site)
    importance = "" if share is None else f", importance {share:.2f} of the most"
    kept = ", what it knew is kept" if site in sites.knowledge else ""
    if owner is None:
        return f"block {block}, {slot}: pruned, nothing serves{kept}{importance}"
    if owner != site:
        return f"block {block}, {slot}: pruned, served by block {places[owner][0]}{kept}{importance}"
    serves = sum(home == site for home in sites.owners.values())
    also = f", serves {serves} sites" if serves > 1 else ""
    return f"block {block}, {slot}: its own adapter{also}{importance}"
