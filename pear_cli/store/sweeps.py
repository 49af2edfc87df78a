"""The sweeps of a store: a line each in a file that only grows; what became of them is in their folders.

Nothing watches over a sweep. The process that started it holds a lock on the sweep's folder, each job one on
its own: what is locked is running, on whatever machine, and what was killed is not.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pear_cli.errors import StoreError, near
from pear_cli.store.artifact import MANIFEST
from pear_cli.store.draft import refuse_link, writing
from pear_cli.store.store import is_locked

RESULT = "result.json"
"""What a job leaves in its output folder."""

STORED = ("run", "train", "score", "prune-share", "checkpoint", "eval")
"""Commands whose sweeps can be resumed: they leave artifacts."""

STOPPED = ".stopped"
"""In the folder of a sweep, the first job that failed has ended it."""

LOCK = ".lock"
BOOK = Path(".sweeps", "sweeps.jsonl")
"""In the store: the sweeps that were started on it."""


@dataclass(frozen=True)
class Sweep:
    """A sweep as it was started.

    Args:
        command: such as `run`.
        words: flags and overrides, as they were typed.
        keep_going: whether the other jobs run when one fails.
        cwd: the folder where it was started.
        folder: its output folder, which names it: the same folder is the same sweep, resumed.
        jobs: the overrides of each job; None where a sweeper chooses them as it goes.
        size: number of jobs, None if unknown.
        started: when, in ISO 8601 with a time zone.
    """

    command: str
    words: tuple[str, ...]
    keep_going: bool
    cwd: str
    folder: str
    jobs: tuple[tuple[str, ...], ...] | None
    size: int | None
    started: str

    @property
    def id(self) -> str:
        """Eight hex digits that name it."""
        return hashlib.sha256(self.folder.encode()).hexdigest()[:8]

    @property
    def line(self) -> str:
        """The command line that started it."""
        stop = [] if self.keep_going else ["--keep-going=false"]
        return shlex.join(["pear", self.command, *self.words, *stop])

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Sweep":
        """The sweep that a line of the book, which a stranger may have written, is about.

        Raises:
            TypeError, ValueError: it is about none.
        """
        sweep = cls(**record)
        words = _texts(sweep.words)
        jobs = None if sweep.jobs is None else tuple(map(_texts, sweep.jobs))
        _texts([sweep.cwd, sweep.folder, sweep.started])
        datetime.fromisoformat(sweep.started)
        known = sweep.command in STORED and isinstance(sweep.keep_going, bool)
        place = os.path.isabs(sweep.folder) and "\0" not in sweep.folder + sweep.cwd
        if not (known and place and isinstance(sweep.size, int | None)):
            raise ValueError("no sweep")
        return replace(sweep, words=words, jobs=jobs)


@dataclass(frozen=True)
class Progress:
    """What became of the jobs of a sweep.

    Args:
        done: jobs with a result whose artifact is still there.
        failed: jobs that left an error.
        running: jobs at work.
        missing: jobs that are still to do; None if their number is unknown.
        active: whether the process that started the sweep, or one of its jobs, is at work.
        began: whether any job was ever begun; a sweep that does not compose has none.
    """

    done: int
    failed: int
    running: int
    missing: int | None
    active: bool
    began: bool

    @property
    def state(self) -> str:
        """One word: running, done, failed (all were tried), or incomplete."""
        if self.active:
            return "running"
        if self.missing:
            return "incomplete"
        return "failed" if self.failed else "done"


def note(store: Path, sweep: Sweep) -> None:
    """Add a line to the book of a store, whole whoever else writes, after a torn one too.

    A sweep that is resumed has its line.
    """
    if any((known.folder, known.jobs) == (sweep.folder, sweep.jobs) for known in noted(store)):
        return
    book = store / BOOK
    line = json.dumps(asdict(sweep)).encode() + b"\n"
    for own in (book.parent, book, book.with_name(LOCK)):
        refuse_link(own)
    with writing(book.parent):
        book.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(book.with_name(LOCK)), open(book, "ab+") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def noted(store: Path) -> list[Sweep]:
    """The sweeps in the book of a store, oldest first; of two in one folder the later; no torn lines."""
    try:
        lines = (store / BOOK).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found: dict[str, Sweep] = {}
    for line in lines:
        try:
            sweep = Sweep.from_json(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            continue
        found.pop(sweep.id, None)
        found[sweep.id] = sweep
    return list(found.values())


def locate(store: Path, text: str) -> Sweep:
    """The sweep that an id, or its first digits, mean.

    Raises:
        StoreError: none has that name, or several have.
    """
    known = noted(store)
    found = [sweep for sweep in known if text and sweep.id.startswith(text)]
    if not found:
        hint = near(text, [sweep.id for sweep in known]) or "; see what there is: pear sweeps"
        raise StoreError(f'{store} knows no sweep "{text}"{hint}')
    if len(found) > 1:
        names = ", ".join(sweep.id for sweep in found)
        raise StoreError(f'"{text}" can mean {len(found)} sweeps: {names}; give more digits')
    return found[0]


def progress_of(sweep: Sweep) -> Progress:
    """Look up in a sweep's folder what became of its jobs."""
    folder = Path(sweep.folder)
    records = [record for path in folder.glob(f"**/{RESULT}") if (record := _read(path)) is not None]
    if sweep.jobs is not None:  # what an earlier sweep has left in the same folder is not this one's
        jobs = dict(enumerate(map(list, sweep.jobs)))
        records = [record for record in records if record["overrides"] == jobs.get(record["job"])]
    failed = sum("error" in record for record in records)
    done = sum("error" not in record and _is_there(record) for record in records)
    locks = [path for path in folder.glob(f"*/**/{LOCK}") if is_locked(path)]
    missing = None if sweep.size is None else max(0, sweep.size - done - failed - len(locks))
    active = bool(locks) or is_locked(folder / LOCK)
    began = active or any(folder.glob("*/**/.hydra"))
    return Progress(done, failed, len(locks), missing, active, began)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Mark a job's output folder as at work; waits for a process that is at work in it."""
    with FileLock(folder / LOCK):
        yield


@contextmanager
def leading(sweep: Sweep) -> Iterator[None]:
    """Mark a sweep as running.

    Raises:
        StoreError: it, or a job of it, is running already.
    """
    folder = Path(sweep.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if progress_of(sweep).active:
        raise StoreError(f"sweep {sweep.id} is running already, in {folder}; wait for it or stop it")
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout:
        raise StoreError(f"sweep {sweep.id} is running already, in {folder}; wait or stop it") from None


def _texts(value: Any) -> tuple[str, ...]:
    if not (isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)):
        raise TypeError("no list of texts")
    return tuple(value)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and {"job", "overrides"} <= set(record) else None


def _is_there(record: dict[str, Any]) -> bool:
    return "stage" not in record or Path(str(record.get("artifact")), MANIFEST).is_file()
