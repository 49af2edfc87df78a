"""Columns of text that fit the width of the terminal, and stay whole where there is none."""

import functools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

ASCII = str.maketrans("░▒▓█→·×±…–", ".:=#>.x~.-")
GAP = 2


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        title: above it.
        cells: one text a row.
        right: align numbers to the right.
        rank: columns of the highest rank go first where the terminal is too narrow; 0 never goes.
    """

    title: str
    cells: Sequence[str]
    right: bool = False
    rank: int = 0

    @functools.cached_property
    def width(self) -> int:
        return max(map(cell_len, (self.title, *self.cells)))


def table(columns: Sequence[Column], width: int | None = None) -> list[Text]:
    """Lay out columns; those that do not fit `width` are left out and named in a last line.

    Args:
        width: of the terminal, in cells; None has no limit.
    """
    shown, hidden = list(columns), []
    while width is not None and sum(c.width + GAP for c in shown) - GAP > width:
        droppable = [column for column in shown if column.rank]
        if not droppable:
            break
        least = max(droppable, key=lambda column: column.rank)
        shown.remove(least)
        hidden.append(least.title)
    rows = zip(*(column.cells for column in shown), strict=True)
    lines = [Text(_line(shown, [column.title for column in shown]), style="bold")]
    lines += [Text(_line(shown, row)) for row in rows]
    if hidden:
        lines.append(Text(f"not shown at this width: {', '.join(hidden)}", style="dim"))
    return lines


def console(file: TextIO | None = None) -> Console:
    """A console for results, on stdout unless a file is given; without colour where it is no terminal."""
    return Console(file=file or sys.stdout, highlight=False, markup=False, emoji=False)


def width_of(target: Console) -> int | None:
    """Cells across a terminal; None for a file or a pipe, where lines stay whole."""
    return target.width if target.is_terminal else None


def write(target: Console, lines: Iterable[Text]) -> None:
    """Write lines; an encoding without shades and arrows gets ASCII in their place."""
    for line in lines:
        text = line
        try:
            line.plain.encode(target.encoding)
        except UnicodeEncodeError:
            plain = line.plain.translate(ASCII).encode(target.encoding, "replace").decode(target.encoding)
            text = Text(plain, style=line.style)
        target.print(text, soft_wrap=True)


def _line(columns: Sequence[Column], cells: Sequence[str]) -> str:
    parts = []
    for column, cell in zip(columns, cells, strict=True):
        space = " " * (column.width - cell_len(cell))
        parts.append(space + cell if column.right else cell + space)
    return (" " * GAP).join(parts).rstrip()
