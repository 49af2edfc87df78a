"""Ctrl-C, TERM and HUP end pear alike, and what a process started ends with it."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a command that was interrupted, before `exit_code` names the signal."""

TOGETHER = 5.0  # seconds: a terminal that closes sends HUP, and so does its shell
GRACE = 5.0  # seconds in which an interrupted process removes its drafts


class Interrupted(KeyboardInterrupt):
    """Raised by these signals. Python remembers a plain KeyboardInterrupt in `exec`,
    and dies of it in the end."""


class _Ending:
    """How this process was told to end.

    Args:
        stop: makes what the first signal raises; None ends the process at once.
    """

    def __init__(self, stop: Callable[[], BaseException] | None = None) -> None:
        self.stop, self.number, self.at = stop, 0, 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        first = not self.number
        self.number = self.number or number
        if self.stop is None:
            _leave(self.number, "interrupted before it began")
        elif first:
            self.at = time.monotonic()
            raise self.stop()
        elif number == signal.SIGINT or time.monotonic() - self.at > TOGETHER:
            _leave(self.number, "ended at once; the same command resumes from what is finished")


_ending = _Ending()


def _leave(number: int, message: str) -> None:
    with suppress(OSError):
        os.write(2, f"pear: {message}\n".encode())
    os._exit(128 + number)


def install(*, told_by_parent: bool = False) -> None:
    """Take Ctrl-C, TERM and HUP; what is ignored from the start, as HUP is by nohup, stays so.

    Args:
        told_by_parent: the parent takes them, and sends INT where this process is to end, too.
    """
    for number in ENDING:
        if told_by_parent:
            signal.signal(signal.SIGINT, _ending)
        elif signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _ending)


def leave_to_others() -> None:
    """End without a word by Ctrl-C, which another process tells of."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ignore() -> None:
    """Be deaf to signals, since all is done."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def raising(stop: Callable[[], BaseException]) -> None:
    """From now on, let the first signal raise what `stop` makes; the next may end the process at once."""
    _ending.stop = stop


def note(number: int) -> None:
    """Take a signal that a library has caught as what ended this process, unless another was before."""
    _ending.number = _ending.number or number


def exit_code(code: int) -> int:
    """The exit code of a command: 130, 143 or 129 where it was interrupted."""
    return 128 + _ending.number if code == INTERRUPTED and _ending.number else code


def end_with(parent: int | None) -> None:
    """End this process when its parent does, however that comes; a job ends as by Ctrl-C.

    Linux can send a signal at that moment, but does so when the *thread* ends that started this process.

    Args:
        parent: process number; where it has ended already, this process does at once.
    """
    if os.getppid() != parent:
        os._exit(1)
    _watch(parent)


@functools.cache
def _watch(parent: int | None) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
