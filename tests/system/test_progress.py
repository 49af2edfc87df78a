"""The rows of live progress, and what is said where there is no terminal."""

import io
import threading
import time

import pytest
from rich.cells import cell_len
from rich.console import Console

from pear_cli.system import progress
from pear_cli.system.progress import rows
from pear_cli.system.progress.board import Board
from pear_cli.system.progress.rows import Doing, Ticker, cut, fitted
from pear_cli.system.streams import terminal_encoding, writable


class Clock:
    """Seconds that pass when they are told to."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(rows, "time", clock)
    return clock


@pytest.mark.parametrize("width", [20, 40, 60, 79, 200])
@pytest.mark.parametrize("title", ["train", "reading 画像データセット画像データセット", "x" * 90])
def test_a_row_fits_every_width_and_keeps_its_count(width, title):
    line = fitted(title, "3/10", ["12s left", "loss 0.231 accuracy 0.934", "1234 images/s"], width, 0.3)
    assert cell_len(line) <= width
    assert "3/10" in line


def test_the_least_important_goes_first():
    parts = ["12s left", "loss 0.231 accuracy 0.934", "1234 images/s"]
    assert fitted("train", "3/10", parts, 79, 0.5).endswith("  ".join(["3/10", *parts]))
    assert fitted("train", "3/10", parts, 60, 0.5).endswith("  ".join(["3/10", *parts[:2]]))
    assert fitted("train", "3/10", parts, 30, 0.5).endswith("12s left")


def test_a_row_has_count_time_left_note_and_rate(clock):
    told = Ticker("train", 10, print, live=True, images=1000)
    clock.now += 2
    told.step("loss 1.0", to=2)
    told.within(0.5, lambda: "loss 0.9")
    clock.now += 0.5
    (line,) = told.lines(100)
    assert line.split("  ")[-4:] == ["3/10", "7.5s left", "loss 0.9", "1000 images/s"]


def test_time_left_counts_from_where_training_went_on(clock):
    told = Ticker("train", 10, print, live=True, done=8)
    clock.now += 5
    told.step()
    assert "5.0s left" in told.lines(80)[0]


def test_a_note_is_asked_ten_times_a_second_at_most(clock):
    asked = []
    told = Ticker("train", 10, print, live=True)
    for _ in range(1000):
        clock.now += 0.001
        told.within(0.5, lambda: asked.append(1) or "note")
    assert len(asked) == 10


def test_without_a_terminal_a_step_is_a_line_and_its_parts_are_none():
    said = []
    told = Ticker("train", 2, said.append)
    told.within(0.5, lambda: pytest.fail("nobody looks"))
    told.step("loss 0.5")
    told.step()
    assert said == ["train 1/2 loss 0.5"]


def test_short_work_is_not_shown_and_long_work_is_said_once(clock):
    said = []
    told = Ticker("reading", 100, said.append, late=True)
    live = Ticker("reading", 100, said.append, late=True, live=True)
    told.step()
    assert (said, live.lines(80)) == ([], [])
    clock.now += rows.PATIENCE + 1
    told.step()
    told.step()
    assert said == ["reading: 2 of 100 so far"]
    assert live.lines(80)


def test_bytes_are_counted_as_such():
    told = Ticker("download", 3_000_000, print, live=True, bytes=True)
    told.step(to=1_500_000)
    assert "1.5 MB/3.0 MB" in told.lines(80)[0]


class Screen(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self):
        return True


def test_a_board_shows_what_stays_and_the_innermost_of_the_rest():
    file = Screen()
    console = Console(file=file, force_terminal=True, width=80, color_system=None)
    board = Board(console)

    def row(title, stays):
        return Doing(title, str, time.monotonic(), stays)

    def shown():
        segments = "".join(segment.text for segment in console.render(board))
        return [line.split()[0] for line in segments.splitlines()]

    with board.showing(row("run", True), True), board.showing(row("train", False), True):
        with board.showing(row("decode", False), True):
            assert shown() == ["run", "decode"]
        assert shown() == ["run", "train"]
    assert board.rows == []
    assert file.getvalue().rfind("\x1b[?25h") > file.getvalue().rfind("\x1b[?25l") >= 0


@pytest.mark.parametrize("variables", [{"TERM": "xterm", "PEAR_QUIET": "1"}, {"TERM": "dumb"}], ids=str)
def test_nothing_is_live_where_it_is_quiet_or_lines_cannot_be_taken_back(variables, monkeypatch):
    monkeypatch.setattr("sys.stderr", Screen())
    monkeypatch.setenv("TERM", "xterm")
    assert progress.is_live()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not progress.is_live()


def test_a_row_ends_with_an_error_too():
    board = Board(Console(file=io.StringIO()))
    with pytest.raises(KeyboardInterrupt), board.showing(Doing("train", str, 0.0, False), True):
        raise KeyboardInterrupt
    assert board.rows == []
    assert threading.active_count() < 20


def test_force_color_makes_no_terminal_of_a_file(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert not progress.is_live()


def test_letters_that_an_encoding_lacks_are_ascii():
    assert writable("█ → ×2 … τ", "ascii") == "# > x2 . tau"
    assert writable("█ → ×2 … τ", "utf-8") == "█ → ×2 … τ"
    assert writable("画 →", "ascii") == "? >"


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"LANG": "C"}, "ascii"),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "ascii"),
        ({"LC_ALL": "POSIX", "LANG": "de_DE.UTF-8"}, "ascii"),
        ({"LANG": "C.UTF-8"}, "utf-8"),
        ({}, "utf-8"),
    ],
    ids=str,
)
def test_the_locale_c_means_ascii_on_a_terminal_only(variables, found, monkeypatch):
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert terminal_encoding(Screen(), "utf-8") == found
    assert terminal_encoding(io.StringIO(), "utf-8") == "utf-8"


def test_a_text_is_cut_at_cells_not_at_letters():
    assert cut("画像データ", 7) == "画像デ…"
    assert cut("digits", 6) == "digits"
    assert [cell_len(cut("画像データ", width)) <= width for width in range(12)] == [True] * 12
