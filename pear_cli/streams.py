"""What becomes of stdout and stderr: only results on one, on the other nothing that is not wanted."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

QUIET = "PEAR_QUIET"
"""Set to 1 in the environment, which reaches the processes of a launcher too, only errors are told."""


def printable(text: str) -> str:
    """The text with control and unprintable characters escaped: a name is never a terminal command."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(printable, text.splitlines()))


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
def until_closed() -> Iterator[None]:
    """End the block quietly where the reader of stdout has gone away, as `head` does."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is still buffered would fail once more when Python ends
        os.close(nowhere)
