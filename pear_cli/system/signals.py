"""Ctrl-C, TERM and HUP end pear alike, and what a process started ends with it."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a command that was interrupted, before `exit_code` names the signal."""

TOGETHER = 5.0  # seconds: a terminal that closes sends HUP, and so does its shell
GRACE = 5.0  # seconds in which an interrupted process removes its drafts

Stop = Callable[[], BaseException]


class _Ending:
    """How this process was told to end.

    Args:
        stop: makes what the first signal raises.
    """

    def __init__(self, stop: Stop) -> None:
        self.stop, self.number, self.at = stop, 0, 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number, self.at = number, time.monotonic()
            raise self.stop()
        if number == signal.SIGINT or time.monotonic() - self.at > TOGETHER:
            os._exit(128 + self.number)  # asked again: what others are left with, they find by themselves


_ending = _Ending(KeyboardInterrupt)


def install(*, told_by_parent: bool = False) -> None:
    """Let TERM and HUP raise what Ctrl-C does; what is ignored from the start, as by nohup, stays so.

    Args:
        told_by_parent: the parent takes the signals, and sends INT if this process is to end as by Ctrl-C.
    """
    if told_by_parent:
        signal.signal(signal.SIGINT, _ending)
        return
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _ending)


def ignore() -> None:
    """Be deaf to them, since all is done."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def received(number: int = 0) -> int:
    """The signal that this process was told to end by, or 0; `number` notes one that a library took."""
    _ending.number = _ending.number or number
    return _ending.number


def raising(stop: Stop) -> None:
    """Let the first signal raise something else from now on."""
    _ending.stop = stop


def exit_code(code: int) -> int:
    """The exit code of a command: 130, 143 or 129 where it was interrupted."""
    return 128 + _ending.number if code == INTERRUPTED and _ending.number else code


def end_with(parent: int) -> None:
    """End this process when its parent does, however that comes; first what Ctrl-C would do.

    The death signal of Linux is no way to learn of it: that comes when the *thread* that started this process ends.

    Args:
        parent: process number; where it has ended already, this process does at once.
    """
    if os.getppid() != parent:
        os._exit(1)
    _watch(parent)


@functools.cache
def _watch(parent: int) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
