"""Columns of text that fit the width of the terminal, and stay whole where there is none."""

import functools
import sys
import textwrap
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

    @property
    def constant(self) -> bool:
        """Whether several rows say the same."""
        return len(self.cells) > 1 and len(set(self.cells)) == 1


def table(columns: Sequence[Column], width: int | None = None) -> list[Text]:
    """Lay out columns; those that do not fit `width` are left out and named in a last line.

    A column that says the same in every row goes first: the last line says it once.

    Args:
        width: of the terminal, in cells; None has no limit.
    """
    shown, hidden = list(columns), list[Column]()
    while width is not None and sum(c.width + GAP for c in shown) - GAP > width:
        droppable = [column for column in shown if column.rank or column.constant]
        if not droppable:
            break
        hidden.append(max(droppable, key=lambda column: (column.constant, column.rank)))
        shown.remove(hidden[-1])
    rows = zip(*(column.cells for column in shown), strict=True)
    lines = [Text(_line(shown, [column.title for column in shown]), style="bold")]
    lines += [Text(_line(shown, row)) for row in rows]
    hidden = [column for column in columns if column in hidden]
    same = [f"{column.title} {column.cells[0]}" for column in hidden if column.constant and column.cells[0]]
    lost = [column.title for column in hidden if not column.constant]
    lines += paragraph(f"in every row: {', '.join(same)}", width, "dim") if same else []
    lines += paragraph(f"not shown at this width: {', '.join(lost)}", width, "dim") if lost else []
    return lines


def paragraph(text: str, width: int | None, style: str = "") -> list[Text]:
    """Words wrapped to `width` cells."""
    parts = [text] if width is None else textwrap.wrap(text, width, break_on_hyphens=False)
    return [Text(part, style=style) for part in parts]


def listed(title: str, items: Sequence[str], width: int | None, indent: int) -> list[Text]:
    """`title   item, item, …`, wrapped between items to `width` cells; nothing where there are none."""
    rows: list[str] = []
    for item in items:
        more = f"{rows[-1]}, {item}" if rows else item
        if rows and width is not None and indent + cell_len(more) + 1 > width:
            rows[-1] += ","
            rows.append(item)
        else:
            rows = [*rows[:-1], more]
    titles = [title, *[""] * len(rows)]
    return [
        Text.assemble((f"{left:<{indent}}", "bold"), row) for left, row in zip(titles, rows, strict=False)
    ]


class Results(Console):
    """A console that leaves it to the command what to do when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        raise


def console(file: TextIO | None = None) -> Console:
    """A console for results, on stdout unless a file is given; without colour where it is no terminal."""
    return Results(file=file or sys.stdout, highlight=False, markup=False, emoji=False)


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
