"""The rows of a board: a count of steps with a bar, and work that has none."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.filesize import decimal

PATIENCE = 3.0
"""Seconds before work that is mostly short shows how far it is."""

PERIOD = 0.1
"""Seconds between two notes on a part of a step."""

TITLE = 12
BAR = 24
LEAST_BAR = 4
GAP = "  "


@dataclass
class Doing:
    """Work that has no steps to count.

    Args:
        title: what is done.
        tell: more about it.
        start: when it began, in seconds of the monotonic clock.
        stays: see `Row`.
    """

    title: str
    tell: Callable[[], str]
    start: float
    stays: bool

    def lines(self, width: int) -> Sequence[str]:
        spent = duration(time.monotonic() - self.start)
        return [fitted(self.title, "", [spent, self.tell()], width)]


class Ticker:
    """Counts the steps of one piece of work (see `progress.ticker`)."""

    stays = False

    def __init__(
        self,
        title: str,
        total: int,
        say: Callable[[str], None],
        *,
        live: bool = False,
        done: int = 0,
        images: int = 0,
        late: bool = False,
        bytes: bool = False,
    ) -> None:
        self.title, self.total, self.say, self.live = title, total, say, live
        self.first = self.done = done
        self.images, self.late, self.bytes = images, late, bytes
        self.start = time.monotonic()
        self.part, self.note, self.due = 0.0, "", 0.0

    def step(self, note: str = "", to: int | None = None) -> None:
        """One step, or all up to `to`, is done; `note` says how it went."""
        self.done = self.done + 1 if to is None else to
        self.part = 0.0
        if self.live:
            self.note = note or self.note
        elif note:
            self.say(f"{self.title} {self.done}/{self.total} {note}")
        elif self.late and self._lasts:
            self.late = False
            self.say(f"{self.title}: {self.done} of {self.total} so far")

    def within(self, part: float, note: Callable[[], str]) -> None:
        """A part of the next step is done, in [0, 1]; `note` is asked at most ten times a second.

        On no terminal it does nothing: it may be called after every update.
        """
        if not self.live or (now := time.monotonic()) < self.due:
            return
        self.due = now + PERIOD
        self.part, self.note = part, note()

    @property
    def _lasts(self) -> bool:
        return time.monotonic() - self.start > PATIENCE

    def lines(self, width: int) -> Sequence[str]:
        """The row of a board."""
        if self.late and not self._lasts:
            return []
        spent = time.monotonic() - self.start
        done, since = self.done + self.part, self.done + self.part - self.first
        if self.bytes:
            count = decimal(self.done) + (f"/{decimal(self.total)}" if self.total else "")
        else:
            now = min(self.done + 1, self.total) if self.part else self.done
            count = f"{now}/{self.total}" if self.total else f"{now} so far"
        left = ""
        if self.total and since:
            left = f"{duration(spent / since * (self.total - done))} left"
        rate = f"{_short(since * self.images / spent)} images/s" if self.images and since and spent else ""
        bar = done / self.total if self.total else None
        return [fitted(self.title, count, [left, self.note, rate], width, bar)]


def fitted(title: str, count: str, parts: Sequence[str], width: int, bar: float | None = None) -> str:
    """One line of at most `width` cells: what comes later among `parts` goes first where there is no room.

    Args:
        title: what is done; cut where it takes more than half of the width.
        count: how far.
        parts: further words, most important first.
        width: in cells.
        bar: the share that is done, drawn where there is room.
    """
    words = [GAP.join(filter(None, (padded(title, width // 2), count)))]
    for part in filter(None, parts):
        if cell_len(GAP.join([*words, part])) > width:
            break
        words.append(part)
    room = width - cell_len(GAP.join(words)) - len(GAP)
    if bar is not None and room >= LEAST_BAR:
        size = min(BAR, room)
        full = round(size * min(1.0, bar))
        head = words[0].removesuffix(count)
        words[0] = f"{head}{'━' * full}{'·' * (size - full)}{GAP}{count}"
    return cut(GAP.join(words), width)


def padded(title: str, most: int) -> str:
    """A title, cut at `most` cells, in a column of at least `TITLE`."""
    return cut(title, most) + " " * max(0, min(TITLE, most) - cell_len(title))


def cut(text: str, width: int) -> str:
    """A text in at most `width` cells; where it is longer, its end is replaced by an ellipsis."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)).rstrip() + "…" if width > 0 else ""


def duration(seconds: float | None) -> str:
    """A time: 0.4s, 31s, 12m05, 3h20."""
    if seconds is None:
        return ""
    if seconds < 59.5:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02}" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}"


def size(count: float) -> str:
    """A number of bytes for a reader: 812 B, 104 KiB, 3.3 MiB."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(count) >= 1024 and units[1:]:
        count, units = count / 1024, units[1:]
    return f"{count:.0f} {units[0]}" if units[0] == "B" or abs(count) >= 100 else f"{count:.1f} {units[0]}"


def _short(n: float) -> str:
    return f"{n:.0f}" if n < 9_999.5 else f"{n / 1000:.1f}k"
