"""Command lines in a terminal of their own, and the screen that it shows."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass, field

import pyte
import pytest

SECONDS = 120
SET_BY_USERS = ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR", "PEAR_QUIET")


@dataclass
class Terminal:
    """A terminal in which one command line runs.

    Args:
        width: cells of a line.
        code: exit code, once it has ended.
        raw: all that was written to it.
        frames: what it showed, one text a change.
    """

    width: int
    code: int | None = None
    raw: bytes = b""
    frames: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.screen = pyte.HistoryScreen(self.width, 24, history=1000)
        self.stream = pyte.ByteStream(self.screen)

    def resize(self, width: int) -> None:
        self.width = width
        self.screen.resize(columns=width)
        fcntl.ioctl(self.device, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))

    def run(self, words, cwd, act=None, **environment) -> "Terminal":
        """Run `pear WORDS`; `act` is called with the terminal and the process after each change."""
        self.device, inside = pty.openpty()
        self.resize(self.width)
        plain = {name: value for name, value in os.environ.items() if name not in SET_BY_USERS}
        process = subprocess.Popen(
            [sys.executable, "-m", "pear_cli", *words],
            stdin=inside, stdout=inside, stderr=inside, cwd=cwd, start_new_session=True,
            env=plain | {"TERM": "xterm-256color"} | environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's `&` ignores it
        )  # fmt: skip
        os.close(inside)
        try:
            self._read(process, act)
        finally:
            if process.poll() is None:
                process.kill()
            self.code = process.wait()
            os.close(self.device)
        return self

    def _read(self, process, act) -> None:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if not select.select([self.device], [], [], 0.2)[0]:
                if process.poll() is not None:
                    return
                continue
            try:
                data = os.read(self.device, 65536)
            except OSError:  # nobody has it open any more
                data = b""
            if not data:
                process.wait(10)
                return
            self.raw += data
            self.stream.feed(data)
            self.frames.append("\n".join(line.rstrip() for line in self.screen.display))
            if act is not None:
                act(self, process)

    @property
    def lines(self) -> list[str]:
        """All that was not taken back, what has scrolled away included."""
        above = [[line[x].data for x in range(self.screen.columns)] for line in self.screen.history.top]
        text = ["".join(cells).rstrip() for cells in above] + [line.rstrip() for line in self.screen.display]
        while text and not text[-1]:
            text.pop()
        return text


@pytest.fixture
def terminal(tmp_path):
    def run(*words: str, width: int = 80, act=None, **environment: str) -> Terminal:
        environment.setdefault("OMP_NUM_THREADS", "1")
        return Terminal(width).run(words, tmp_path, act, **environment)

    return run
