"""What becomes of stdout and stderr: only results on one, on the other nothing that is not wanted."""

import os
import shutil
import socket
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import IO

from pear_cli.errors import printable

ASCII = str.maketrans(
    {"━": "#", "░": ".", "▒": ":", "▓": "=", "█": "#", "→": ">", "·": ".", "×": "x", "±": "~", "…": "."}
    | {"–": "-", "−": "-", "τ": "tau", "Δ": "delta ", "≠": "!=", "≥": ">=", "≤": "<="}
)
"""What stands for the letters of tables and drawings where there is only ASCII."""

QUIET = "PEAR_QUIET"
"""Set to 1 in the environment, which reaches the processes of a launcher too, only errors are told."""


PARENT = "PEAR_PARENT"
"""In the environment, the process that shows a sweep whose jobs may run in others; those write to `LOG`."""

LOG = "stderr.log"
"""In a job's output folder: what it said, where it ran in another process."""


def printable_lines(text: str) -> str:
    """A text of several lines, each of them printable."""
    return "\n".join(map(printable, text.splitlines()))


def complain(command: str, message: object, trace: str = "") -> None:
    """Print an error or a warning to stderr: `pear COMMAND: message`; on a terminal it is wrapped at words.

    Args:
        trace: a traceback that stands before it if PEAR_TRACEBACK=1.
    """
    if trace and os.environ.get("PEAR_TRACEBACK") == "1":
        print(trace, file=sys.stderr, end="")
    said = f"{f'pear {command}'.rstrip()}: {printable_lines(str(message))}"
    print(at_words(said) if sys.stderr.isatty() else said, file=sys.stderr, flush=True)


def at_words(text: str) -> str:
    """A text whose lines are wrapped to the terminal's width, but never within a word, path or address."""
    width = shutil.get_terminal_size().columns
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(part for line in text.splitlines() for part in wrapper.wrap(line) or [""])


FORMULA = "=+-@\t\r"
"""What a text must not begin with, or a spreadsheet would compute it."""


def formula_free(text: str) -> str:
    """A text that a spreadsheet takes for text."""
    return f"'{text}" if text.startswith(tuple(FORMULA)) else text


def this_process() -> str:
    """A name of this process that no other one has, on whatever machine."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_elsewhere() -> bool:
    """Whether another process shows what this one does."""
    return os.environ.get(PARENT, this_process()) != this_process()


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send all that is written to stdout to stderr, also by other libraries and child processes."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def stderr_to(path: Path) -> Iterator[None]:
    """Append all that is written to stderr to a file, also by other libraries and child processes."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(path, "ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def writable(text: str, encoding: str) -> str:
    """The text, with ASCII in place of shades and arrows where the encoding lacks one of its letters."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(ASCII).encode(encoding, "replace").decode(encoding)
    return text


def terminal_encoding(stream: IO[str], encoding: str) -> str:
    """The encoding of a stream; of a terminal that the locale C or POSIX was asked for, ASCII.

    Python writes UTF-8 in that locale, and sets LC_CTYPE so; what was asked for is in the other variables.
    """
    asked = os.environ.get("LC_ALL") or os.environ.get("LANG")
    return "ascii" if asked in ("C", "POSIX") and stream.isatty() else encoding


@contextmanager
def until_closed() -> Iterator[None]:
    """End the block quietly where the reader of stdout has gone away, as `head` does."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is still buffered would fail once more when Python ends
        os.close(nowhere)
