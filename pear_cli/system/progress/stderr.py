"""Stderr: what a person reads while a command runs, on a terminal or elsewhere."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from pear_cli.system.progress.board import Board
from pear_cli.system.progress.rows import Doing, Ticker
from pear_cli.system.streams import QUIET, printable_lines, terminal_encoding, writable


class _Stderr(Console):
    """Stderr, unless it is to be quiet; work continues when its reader goes away."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


console = _Stderr(stderr=True, highlight=False)
board = Board(console)


def is_quiet() -> bool:
    """Whether only errors are wanted on stderr."""
    return console.quiet or os.environ.get(QUIET) == "1"


def is_live() -> bool:
    """Whether stderr is a terminal that can take lines back; FORCE_COLOR makes none of a file."""
    return not is_quiet() and console.is_terminal and console.file.isatty() and not console.is_dumb_terminal


@contextmanager
def ticker(
    title: str, total: int, *, done: int = 0, images: int = 0, late: bool = False, bytes: bool = False
) -> Iterator[Ticker]:
    """Show the progress of `total` steps while the block runs.

    Args:
        title: what is done.
        total: steps in all, 0 where nobody knows.
        done: steps that were done before.
        images: that one step goes through; then images a second are shown.
        late: show nothing before `rows.PATIENCE` seconds are over; then also where there is no terminal.
        bytes: the steps are bytes.
    """
    row = Ticker(title, total, say, live=is_live(), done=done, images=images, late=late, bytes=bytes)
    with board.showing(row, live=row.live):
        yield row


@contextmanager
def doing(title: str, tell: Callable[[], str] = str, *, stays: bool = False) -> Iterator[Doing]:
    """Show on a terminal that something is under way, and for how long.

    Args:
        title: what is.
        tell: more about it, asked whenever the line is drawn.
        stays: the line is shown also while others, of its parts, are.
    """
    row = Doing(title, tell, time.monotonic(), stays)
    with board.showing(row, live=is_live()):
        yield row


def say(text: str, *, whole: bool = False) -> None:
    """One line on stderr, on a terminal wrapped at words.

    Args:
        whole: leave the wrapping to the terminal, so that a command in it can be copied.
    """
    if not is_quiet():
        written = writable(printable_lines(text), terminal_encoding(console.file, console.encoding))
        console.print(written, soft_wrap=whole or not is_live(), overflow="ignore", markup=False, emoji=False)
