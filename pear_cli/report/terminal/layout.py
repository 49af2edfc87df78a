"""Columns of text that fit the width of the terminal, and stay whole where there is none."""

import functools
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from pear_cli.errors import printable
from pear_cli.system.progress.rows import cut
from pear_cli.system.streams import terminal_encoding, writable

GAP = 2
NARROWEST = 8
"""Cells below which no column of words is narrowed."""

READABLE = 24
"""Cells to which columns of words are narrowed before others are left out."""

NOTE, FAILED = "magenta", "bold red"
"""Colours that are readable on a light and on a dark ground."""

_PLAIN = Console(width=80)  # rich wraps a text for a console


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        title: above it; it and the cells are made printable.
        cells: one text a row.
        right: align numbers to the right.
        rank: columns of the highest rank go first where the terminal is too narrow; 0 never goes.
        words: what may happen to the cells where columns that stay are too wide: nothing, `cut` or `wrap`.
    """

    title: str
    cells: Sequence[str]
    right: bool = False
    rank: int = 0
    words: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", printable(self.title))
        object.__setattr__(self, "cells", tuple(map(printable, self.cells)))

    @functools.cached_property
    def width(self) -> int:
        return max(map(cell_len, (self.title, *self.cells)))

    @property
    def least(self) -> int:
        """Cells that it takes before another column is left out for it."""
        return min(self.width, max(READABLE, cell_len(self.title))) if self.words else self.width

    @property
    def constant(self) -> bool:
        """Whether several rows say the same."""
        return len(self.cells) > 1 and len(set(self.cells)) == 1


def table(columns: Sequence[Column], width: int | None = None) -> list[Text]:
    """Lay out columns; those that do not fit `width` are left out and named in a last line.

    A column that says the same in every row goes first: the last line says it once. Where those that stay are
    still too wide, their words are cut, or wrapped within the column.

    Args:
        width: of the terminal, in cells; None has no limit.
    """
    shown, hidden = list(columns), list[Column]()
    while width is not None and _across([column.least for column in shown]) > width:
        droppable = [column for column in shown if column.rank or column.constant]
        if not droppable:
            break
        hidden.append(max(droppable, key=lambda column: (column.constant, column.rank)))
        shown.remove(hidden[-1])
    widths = _narrowed(shown, width)
    lines = [Text(_line(shown, widths, [column.title for column in shown]), style="bold")]
    for row in zip(*(column.cells for column in shown), strict=True):
        parts = [_parts(*cell) for cell in zip(shown, widths, row, strict=True)]
        lines += [Text(_line(shown, widths, part)) for part in zip_longest(*parts, fillvalue="")]
    if width is not None:
        lines = [Text(cut(line.plain, width), style=line.style) for line in lines]
    hidden = [column for column in columns if column in hidden]
    same = [f"{column.title} {column.cells[0]}" for column in hidden if column.constant and column.cells[0]]
    lost = [column.title for column in hidden if not column.constant]
    lines += paragraph(f"in every row: {', '.join(same)}", width, "dim") if same else []
    lines += paragraph(f"not shown at this width: {', '.join(lost)}", width, "dim") if lost else []
    return lines


def paragraph(text: str, width: int | None, style: str = "") -> list[Text]:
    """Words wrapped to `width` cells."""
    return [Text(part, style=style) for part in wrapped(text, width)]


def wrapped(text: str, width: int | None) -> list[str]:
    """The lines of a text that is wrapped at words to `width` cells."""
    text = printable(text)
    if width is None:
        return [text]
    return [line.plain.rstrip() for line in Text(text).wrap(_PLAIN, max(1, width))] or [""]


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
    rows = [part for row in rows for part in wrapped(row, None if width is None else width - indent)]
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


Note = tuple[str, str]
"""A text below a table, and its style."""


def print_table(columns: Sequence[Column], target: Console, *notes: Note) -> None:
    """Print columns as wide as the terminal allows, and notes below them."""
    width = width_of(target)
    below = [line for text, style in notes for line in paragraph(text, width, style)]
    write(target, [*table(columns, width), *below])


def width_of(target: Console) -> int | None:
    """Cells across a terminal; None for a file or a pipe, where lines stay whole, in colour or not."""
    coloured_file = "FORCE_COLOR" in os.environ and not target.file.isatty()
    return target.width if target.is_terminal and not coloured_file else None


def write(target: Console, lines: Iterable[Text]) -> None:
    """Write lines; an encoding without shades and arrows gets ASCII in their place."""
    encoding = terminal_encoding(target.file, target.encoding)
    for line in lines:
        plain = writable(printable(line.plain), encoding)
        target.print(line if plain == line.plain else Text(plain, style=line.style), soft_wrap=True)


def _across(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _narrowed(columns: Sequence[Column], width: int | None) -> list[int]:
    """The widths of columns, the widest of words narrowed until all fit, as far as they can be."""
    widths = [column.width for column in columns]
    least = [max(NARROWEST, cell_len(column.title)) if column.words else column.width for column in columns]
    while width is not None and _across(widths) > width:
        can = [i for i, cells in enumerate(widths) if cells > least[i]]
        if not can:
            break
        widths[max(can, key=lambda i: widths[i])] -= 1
    return widths


def _parts(column: Column, width: int, cell: str) -> list[str]:
    """The lines of a cell."""
    return wrapped(cell, width) if column.words == "wrap" and cell_len(cell) > width else [cut(cell, width)]


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    parts = []
    for column, width, cell in zip(columns, widths, cells, strict=True):
        space = " " * (width - cell_len(cell))
        parts.append(space + cell if column.right else cell + space)
    return (" " * GAP).join(parts).rstrip()
