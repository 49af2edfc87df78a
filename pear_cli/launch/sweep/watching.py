"""What a sweep shows while its jobs run, here or in other processes: read from the files that they leave."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from pear_cli.errors import printable
from pear_cli.launch.composing import Job
from pear_cli.launch.sweep.ledger import Ledger
from pear_cli.launch.sweep.outlook import Outlook
from pear_cli.launch.work import Record
from pear_cli.store.store import is_locked
from pear_cli.store.sweeps import LOCK, RESULT
from pear_cli.system import progress
from pear_cli.system.progress.rows import GAP, cut, duration, fitted
from pear_cli.system.streams import LOG

EVERY = 1.0
"""Seconds between two looks at the folders of jobs in other processes."""

MOST = 8
"""Running jobs that have a line of their own."""

TAIL = 2048


@dataclass
class At:
    """A job at work: its number and overrides in words, and where it is."""

    name: str
    folder: Path


class Watch:
    """The rows and lines of a sweep.

    Args:
        ledger: knows the result files of its jobs.
        jobs: their overrides, None where a sweeper chooses them as it goes.
        size: how many they are, None if unknown.
        outlook: what is to compute.
        here: the jobs run in this process, one by one.
    """

    stays = True

    def __init__(
        self, ledger: Ledger, jobs: Sequence[Job] | None, size: int | None, outlook: Outlook, here: bool
    ) -> None:
        self.ledger, self.size, self.outlook, self.here = ledger, size, outlook, here
        self.common = set.intersection(*map(set, jobs)) if jobs else set()
        self.running: dict[Path, At] = {}
        self.ended: dict[Path, Record] = {}
        self.start = time.monotonic()

    @contextmanager
    def over(self) -> Iterator[None]:
        """Show the sweep while the block runs; jobs in other processes are looked for all the time."""
        self._tell_of_the_beginning()
        over = threading.Event()
        thread = threading.Thread(target=self._look_often, args=(over,), daemon=True)
        with progress.board.showing(self, live=progress.is_live()):
            if not self.here:
                thread.start()
            try:
                yield
            finally:
                over.set()
                if not self.here:
                    thread.join()
                self.look()
        if self.ended:
            progress.say(f"sweep: {self._sum()}, in {duration(time.monotonic() - self.start)}")

    def look(self) -> None:
        """Tell of jobs that have begun or ended since the last look."""
        fresh = self.ledger.fresh()
        for path in sorted(fresh):
            folder = path.parent if path.name == RESULT else path.parent.parent
            if path.name != RESULT and folder not in self.running and folder not in self.ended:
                self._begin(folder, path)
        for path in sorted(fresh):
            if path.name == RESULT and path.parent not in self.ended:
                self._end(path)

    def lines(self, width: int) -> Sequence[str]:
        """The rows of the board: the sweep as a whole, then its jobs at work."""
        self.outlook.look(self._numbers())
        done = len(self.ended)
        count = f"{done}/{self.size} jobs" if self.size else f"{done} jobs"
        failed = sum("error" in record for record in self.ended.values())
        parts = [self._left(), f"{failed} failed" if failed else ""]
        working = [at for at in list(self.running.values()) if self.here or is_locked(at.folder / LOCK)]
        parts += ["" if self.here else f"{len(working)} running", self._reused()]
        rows = [fitted("sweep", count, parts, width, done / self.size if self.size else None)]
        for at in working[:MOST]:
            said = "" if self.here else last_line(at.folder / LOG)
            rows.append(cut(GAP.join(filter(None, (at.name, said))), width))
        return rows

    def _begin(self, folder: Path, overrides: Path) -> None:
        words = OmegaConf.to_container(OmegaConf.load(overrides))
        assert isinstance(words, list)
        self.running[folder] = at = At(self._name(folder.name, [str(word) for word in words]), folder)
        if not progress.is_live():
            progress.say(f"{at.name}: begins")

    def _end(self, path: Path) -> None:
        record = self.ledger.read(path)
        self.running.pop(path.parent, None)
        self.ended[path.parent] = record
        self.outlook.look(self._numbers())
        count = f"{len(self.ended)}/{self.size} jobs" if self.size else f"{len(self.ended)} jobs"
        standing = ", ".join(filter(None, (count, self._left())))
        name = self._name(str(record["job"]), record["overrides"])
        progress.say(f"{name}: {came_to(record)}; {standing}")

    def _name(self, number: str, overrides: Sequence[str]) -> str:
        own = " ".join(word for word in overrides if word not in self.common)
        return f"job {number} ({printable(own)})" if own else f"job {number}"

    def _numbers(self) -> set[int]:
        return {record["job"] for record in list(self.ended.values())}

    def _left(self) -> str:
        together = 1 if self.here else len(self.running)
        seconds = self.outlook.left(together)
        if seconds is None and self.ended and self.size:
            spent = time.monotonic() - self.start
            seconds = spent / len(self.ended) * (self.size - len(self.ended))
        if not seconds or len(self.ended) == self.size:
            return ""
        return f"about {duration(seconds)} left"

    def _reused(self) -> str:
        stages = [stage for record in list(self.ended.values()) for stage in record.get("stages", ())]
        reused = sum(stage["reused"] for stage in stages)
        return f"{reused} of {len(stages)} stages reused" if stages else ""

    def _sum(self) -> str:
        failed = sum("error" in record for record in self.ended.values())
        parts = [f"{len(self.ended) - failed} done", f"{failed} failed" if failed else "", self._reused()]
        return ", ".join(filter(None, parts))

    def _tell_of_the_beginning(self) -> None:
        stages, parts = self.outlook.stages, [_several(self.size, "job") if self.size else "jobs"]
        if stages:
            parts += [_several(len(stages), "stage"), f"{self.outlook.there} there already"]
            left = self.outlook.left(1)
            parts += [f"about {duration(left)} one after another"] if left else []
        folder = self.ledger.folder
        assert folder is not None
        place = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        logs = "" if self.here else f"; logs in */{LOG}"
        progress.say(f"sweep: {', '.join(parts)}; {place}{logs}")

    def _look_often(self, over: threading.Event) -> None:
        while not over.wait(EVERY):
            self.look()


def _several(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def came_to(record: Record) -> str:
    """How a job ended, in a few words."""
    if "error" in record:
        return f"failed, {next(iter(record['error']['message'].splitlines()), '')}"
    words = ["done"]
    accuracy = record.get("metrics", {}).get("accuracy")
    words += [f"{100 * accuracy:.2f} %"] if isinstance(accuracy, float) else []
    if stages := record.get("stages", ()):
        words.append(f"{sum(stage['reused'] for stage in stages)} of {len(stages)} reused")
    words += [duration(record["seconds"])] if "seconds" in record else []
    return ", ".join(words)


def last_line(log: Path) -> str:
    """What a job in another process said last."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            said = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return printable(said[-1]) if said else ""
