"""The lines at the bottom of a terminal that change while work is under way."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from pear_cli.errors import printable
from pear_cli.system.streams import terminal_encoding, writable

RATE = 5
"""Drawings a second."""


ROOM = 3
"""Cells that stay free: some terminals wrap in the last one, and Ctrl-C writes `^C` behind a line."""


class Row(Protocol):
    """One piece of work that is under way."""

    stays: bool
    """Whether it is shown also while work inside of it has a line."""

    def lines(self, width: int) -> Sequence[str]:
        """What to show, in at most `width` cells a line."""
        ...


class Board:
    """The rows of all that is under way, outermost first; drawn by a thread of rich's while there are any.

    Of rows that do not stay, only the innermost is shown. What is printed meanwhile goes above them; nothing
    is left of them when the last one ends, however it ends.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rows: list[Row] = []

    @contextmanager
    def showing(self, row: Row, live: bool) -> Iterator[None]:
        """Show a row while the block runs, unless `live` is false."""
        if not live:
            yield
            return
        self.rows.append(row)
        try:
            if len(self.rows) > 1:
                yield
                return
            drawing = Live(
                self, console=self.console, refresh_per_second=RATE, transient=True, vertical_overflow="crop"
            )
            with drawing:
                yield
        finally:
            self.rows.remove(row)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = list(self.rows)
        inner = [row for row in rows if not row.stays][-1:]
        encoding = terminal_encoding(console.file, console.encoding)
        for row in [row for row in rows if row.stays] + inner:
            for line in row.lines(options.max_width - ROOM):
                yield Text(writable(printable(line), encoding), no_wrap=True, overflow="crop")
