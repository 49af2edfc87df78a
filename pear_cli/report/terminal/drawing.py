"""The units of a model as a drawing: blocks down, slots across, readable without colour."""

from collections import Counter
from collections.abc import Mapping

from rich.text import Text

from pear_cli.report.analysis.pruned import PART, Channels, Parts, Places, Pruned, Sites, largest, place
from pear_cli.report.terminal.layout import paragraph

SHADES = "░▒▓█"
LABEL = 6  # cells of the first column, `block `
GAP = 2


def draw(pruned: Pruned, width: int) -> list[Text]:
    """Draw into `width` cells; slots that do not fit side by side follow below.

    A site has its own adapter with its importance, or who serves instead; heads and components have one shade
    each, in the order of their indices; of channels there is a count.
    """
    cells: Mapping[str, Text]
    if isinstance(pruned, Sites):
        places = place(pruned.names)
        serves, most = Counter(pruned.owners.values()), largest(pruned.scores)
        cells = {site: _site(site, pruned, places, serves[site], most) for site in places}
    elif isinstance(pruned, Parts):
        cells = _shades(pruned)
    else:
        cells = {at.rpartition(".")[0]: Text(f"{kept}/{count}") for at, (kept, count) in pruned.kept.items()}
    places = place(cells)
    lines = grid({places[site]: text for site, text in cells.items()}, width)
    return lines + [part for line in _legend(pruned) for part in paragraph(line, width, "dim")]


def _site(site: str, sites: Sites, places: Places, serves: int, most: float) -> Text:
    owner = sites.owners.get(site, site)
    if owner == site:
        text = Text(_importance(site, sites, most))
        return text.append(f" ×{serves}", "bold") if serves > 1 else text
    text = Text("·", "dim") if owner is None else Text(f"→ {places[owner][0]}", "magenta")
    return text.append(" K", "bold") if site in sites.knowledge else text


def _importance(site: str, sites: Sites, most: float) -> str:
    if site not in sites.scores:
        return SHADES[-1] if sites.owners else "?"
    share = sites.scores[site] / most
    return f"{shade(share)} {share:.2f}"


def _shades(parts: Parts) -> Mapping[str, Text]:
    cells: dict[str, Text] = {}
    most = largest(parts.scores)
    for name in parts.names:
        at = cells.setdefault(PART.sub("", name), Text())
        known = shade(parts.scores[name] / most) if name in parts.scores else SHADES[-1]
        at.append(*(("·", "dim") if name in parts.pruned else (known, "")))
    return cells


def _legend(pruned: Pruned) -> list[str]:
    if isinstance(pruned, Channels):
        heads = "heads" in pruned.title
        return ["kept, of all" + ("; an attention counts its heads" if heads else "")]
    lines = []
    most = largest(pruned.scores)
    if isinstance(pruned, Parts):
        lines += (
            [f"{' '.join(SHADES)}  importance, low to high; the most is {most:.3g}"] if pruned.scores else []
        )
        return lines + (["·  pruned"] if pruned.pruned else [])
    if pruned.scores:
        lines.append(f"{' '.join(SHADES)}  importance, low to high; 1.00 is {most:.3g}")
    elif pruned.owners:
        lines.append(f"{SHADES[-1]}  keeps its own adapter (its importance is not in the store)")
    if pruned.served:
        lines.append("→ 3  pruned, served by block 3's adapter of that slot")
        lines.append("×2  this adapter serves 2 sites, its own among them")
    if None in pruned.owners.values():
        lines.append("·  pruned, not shared")
    if pruned.knowledge:
        lines.append("K  what the pruned adapter knew is kept")
    return lines


def grid(cells: Mapping[tuple[int, str], Text], width: int) -> list[Text]:
    """Cells by block and slot, blocks down; slots that do not fit side by side follow below."""
    slots = list(dict.fromkeys(slot for _, slot in cells))
    blocks = sorted({block for block, _ in cells})
    column = max(map(len, (*slots, *(cell.plain for cell in cells.values()))), default=0) + GAP
    beside = max(1, (width - LABEL + GAP) // column)
    lines: list[Text] = []
    for first in range(0, len(slots), beside):
        part = slots[first : first + beside]
        lines += [Text()] if lines else []
        lines.append(_row("block", [Text(slot) for slot in part], column, "bold"))
        lines += [
            _row(f"{block:>5}", [cells.get((block, slot), Text()) for slot in part], column)
            for block in blocks
        ]
    return lines


def shade(share: float) -> str:
    """The shade of an importance in [0, 1]; negative ones are the lightest."""
    return SHADES[min(len(SHADES) - 1, max(0, int(share * len(SHADES))))]


def _row(label: str, cells: list[Text], column: int, style: str = "") -> Text:
    line = Text(f"{label:<{LABEL}}", style=style)
    for cell in cells:
        line.append_text(cell).append(" " * (column - len(cell.plain)))
    line.rstrip()
    return line
