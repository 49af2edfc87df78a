"""What a running stage says: a live line on a terminal, plain lines elsewhere; always on stderr."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from pear_cli.streams import QUIET, printable, printable_lines

PATIENCE = 3.0  # seconds before work that is mostly short shows how far it is


class _Stderr(Console):
    """Stderr, unless it is to be quiet; work goes on when its reader goes away."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


console = _Stderr(stderr=True, highlight=False)


def is_quiet() -> bool:
    """Whether only errors are wanted on stderr."""
    return console.quiet or os.environ.get(QUIET) == "1"


class Ticker:
    """Counts the steps of one piece of work."""

    def __init__(self, progress: Progress | None, total: int, title: str) -> None:
        self.progress, self.title, self.total, self.done = progress, title, total, 0
        self.task = progress.add_task(printable(title), total=total or None, note="") if progress else None

    def step(self, note: str = "", to: int | None = None) -> None:
        """One step, or all up to `to`, is done; `note` says how it went."""
        self.done = self.done + 1 if to is None else to
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=self.done, note=note)
        elif note:
            say(f"{self.title} {self.done}/{self.total} {note}")


@contextmanager
def ticker(title: str, total: int, *, late: bool = False, bytes: bool = False) -> Iterator[Ticker]:
    """Show the progress of `total` steps while the block runs.

    Args:
        late: show nothing before `PATIENCE` seconds are over; then say so also where there is no terminal.
        bytes: the steps are bytes; 0 of them in all where nobody knows.
    """
    if late:
        yield from _late(title, total)
        return
    if is_quiet() or not console.is_terminal:
        yield Ticker(None, total, title)
        return
    columns = (
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(bar_width=20),
        DownloadColumn() if bytes else MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Ticker(progress, total, title)


class _Late(Ticker):
    """A ticker that opens another one when the work has lasted."""

    def __init__(self, total: int, title: str, opened: ExitStack) -> None:
        super().__init__(None, total, title)
        self.opened, self.start, self.shown = opened, time.monotonic(), Ticker(None, total, title)

    def step(self, note: str = "", to: int | None = None) -> None:
        self.done = self.done + 1 if to is None else to
        if self.start and time.monotonic() - self.start > PATIENCE:
            self.start = 0.0
            if console.is_terminal:
                self.shown = self.opened.enter_context(ticker(self.title, self.total))
            else:
                say(f"{self.title}: {self.done} of {self.total} so far")
        self.shown.step(note, to=self.done)


def _late(title: str, total: int) -> Iterator[Ticker]:
    with ExitStack() as opened:
        yield _Late(total, title, opened)


def size(count: float) -> str:
    """A number of bytes for a reader: 812 B, 104 KiB, 3.3 MiB."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(count) >= 1024 and units[1:]:
        count, units = count / 1024, units[1:]
    return f"{count:.0f} {units[0]}" if units[0] == "B" or abs(count) >= 100 else f"{count:.1f} {units[0]}"


def say(text: str) -> None:
    """One line on stderr."""
    if not is_quiet():
        console.print(printable_lines(text), soft_wrap=True, markup=False, emoji=False)
