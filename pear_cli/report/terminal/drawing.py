"""The share map as a drawing: blocks down, slots across, readable without colour."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rich.text import Text

from pear_cli.report.terminal.layout import paragraph

SHADES = "░▒▓█"
LABEL = 6  # cells of the first column, `block `
GAP = 2
SITE = re.compile(r"(?P<path>.*)\.(?P<slot>attn\.\w+|mlp(?:\.\w+)?|\w+\.\d+)")

PART = re.compile(r"\.(?:heads|ranks|channels|blocks)\.\d+$")
HEADS = ".qkv.channels"
"""At the end of what the heads of an attention are called that go with channels."""

Owners = Mapping[str, str | None]


@dataclass(frozen=True)
class Drawing:
    """What is known of the sites of one backbone.

    Args:
        sites: names of all sites.
        scores: importance of the adapter at each site; empty where it is not known.
        owners: home site of the adapter that serves at each site, None where none does; empty before pruning.
        knowledge: sites where the pruned adapter's knowledge is kept.
    """

    sites: tuple[str, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    owners: Owners = field(default_factory=dict)
    knowledge: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        return "adapters" if self.owners else "importance"

    def lines(self, width: int) -> list[Text]:
        """Draw into `width` cells; slots that do not fit side by side follow below."""
        places = place(self.sites)
        cells = {places[site]: self._cell(site, places) for site in places}
        return [*grid(cells, width), *self._legend(places, width)]

    def _cell(self, site: str, places: "Places") -> Text:
        """One site: its own adapter with its importance, or who serves instead."""
        owner = self.owners.get(site, site)
        if owner == site:
            text = Text(self._importance(site))
            serves = sum(home == site for home in self.owners.values())
            return text.append(f" ×{serves}", "bold") if serves > 1 else text
        text = Text("·", "dim") if owner is None else Text(f"→ {places[owner][0]}", "magenta")
        return text.append(" K", "bold") if site in self.knowledge else text

    def _importance(self, site: str) -> str:
        if site not in self.scores:
            return SHADES[-1] if self.owners else "?"
        share = self.scores[site] / self._most
        return f"{shade(share)} {share:.2f}"

    @property
    def _most(self) -> float:
        return max(map(abs, self.scores.values()), default=0.0) or 1.0

    def _legend(self, places: "Places", width: int) -> list[Text]:
        lines = []
        if self.scores:
            lines.append(f"{' '.join(SHADES)}  importance, low to high; 1.00 is {self._most:.3g}")
        elif self.owners:
            lines.append(f"{SHADES[-1]}  keeps its own adapter (its importance is not in the store)")
        if any(owner not in (site, None) for site, owner in self.owners.items()):
            lines.append("→ 3  pruned, served by block 3's adapter of that slot")
            lines.append("×2  this adapter serves 2 sites, its own among them")
        if None in self.owners.values():
            lines.append("·  pruned, not shared")
        if self.knowledge:
            lines.append("K  what the pruned adapter knew is kept")
        return [part for line in lines for part in paragraph(line, width, "dim")]


@dataclass(frozen=True)
class Parts:
    """What is known of the attention heads of one backbone, or of the rank-1 components of its adapters.

    Args:
        names: of all parts, `<attention>.heads.<index>` or `<site>.ranks.<index>`.
        scores: importance of each; empty where it is not known.
        pruned: names of the pruned ones.
    """

    names: tuple[str, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    pruned: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        return "attention heads" if ".heads." in self.names[0] else "rank-1 components"

    def lines(self, width: int) -> list[Text]:
        """Draw into `width` cells: one shade a part, in the order of the indices."""
        most = max(map(abs, self.scores.values()), default=0.0) or 1.0
        drawn: dict[str, Text] = {}
        for name in self.names:
            at = drawn.setdefault(PART.sub("", name), Text())
            known = shade(self.scores[name] / most) if name in self.scores else SHADES[-1]
            at.append(*(("·", "dim") if name in self.pruned else (known, "")))
        places = place(drawn)
        lines = grid({places[at]: text for at, text in drawn.items()}, width)
        if self.scores:
            legend = f"{' '.join(SHADES)}  importance, low to high; the most is {most:.3g}"
            lines += paragraph(legend, width, "dim")
        if self.pruned:
            lines.append(Text("·  pruned", "dim"))
        return lines


@dataclass(frozen=True)
class Channels:
    """How many channels, attention heads or blocks of its weight each layer of a network has left.

    Args:
        left: how many are left, and how many there were, by `<module>.channels` or `<site>.blocks`.
        pruned: names of the pruned units, as far as known.
    """

    left: Mapping[str, tuple[int, int]]
    pruned: frozenset[str] = frozenset()

    @classmethod
    def of(cls, names: Iterable[str], pruned: frozenset[str] = frozenset()) -> "Channels":
        """Count units by their names, `<module>.channels.<index>`."""
        total = Counter(name.rpartition(".")[0] for name in names)
        gone = Counter(name.rpartition(".")[0] for name in pruned)
        return cls({layer: (count - gone[layer], count) for layer, count in total.items()}, pruned)

    @property
    def title(self) -> str:
        if all(layer.endswith(".blocks") for layer in self.left):
            return "blocks"
        heads = [layer.endswith(HEADS) for layer in self.left]
        kinds = (["channels"] if not all(heads) else []) + (["attention heads"] if any(heads) else [])
        return " and ".join(kinds)

    def lines(self, width: int) -> list[Text]:
        """Draw into `width` cells: what is left of what there was."""
        counts = {layer.rpartition(".")[0]: f"{left}/{count}" for layer, (left, count) in self.left.items()}
        places = place(counts)
        cells = {places[at]: Text(text) for at, text in counts.items()}
        note = "left, of all; an attention counts its heads" if "heads" in self.title else "left, of all"
        return [*grid(cells, width), Text(note, "dim")]


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


Places = dict[str, tuple[int, str]]


def place(sites: Iterable[str]) -> Places:
    """Block and slot of each site; blocks count from 0 in the order of the numbers in their path."""
    found = {}
    for site in sites:
        match = SITE.fullmatch(site)
        path, slot = (match["path"], match["slot"]) if match else site.rpartition(".")[::2]
        found[site] = (path, slot)
    paths = sorted(
        {path for path, _ in found.values()}, key=lambda path: [int(n) for n in re.findall(r"\d+", path)]
    )
    places = {site: (paths.index(path), slot) for site, (path, slot) in found.items()}
    return dict(sorted(places.items(), key=lambda item: item[1][0]))


def shade(share: float) -> str:
    """The shade of an importance in [0, 1]; negative ones are the lightest."""
    return SHADES[min(len(SHADES) - 1, max(0, int(share * len(SHADES))))]


def _row(label: str, cells: list[Text], column: int, style: str = "") -> Text:
    line = Text(f"{label:<{LABEL}}", style=style)
    for cell in cells:
        line.append_text(cell).append(" " * (column - len(cell.plain)))
    line.rstrip()
    return line
