"""Whole command lines in a terminal: what it shows meanwhile, and what is left in the end."""

import re
import signal
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parent.parent / "configs"
TINY = ("--config-dir", str(CONFIGS), "backbone=tiny", "dataset=digits", "runtime.threads=1")
BAR = re.compile(r"━|·{4,}|\d+/\d+ epochs| left\b|^run  ")
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"


def written(lines):
    return "\n".join(lines)


def test_a_run_shows_its_stages_and_leaves_the_closing_table(terminal):
    ran = terminal("run", *TINY, "optim.epochs=3")
    assert ran.code == 0, written(ran.lines)
    shown = "\n".join(ran.frames)
    assert re.search(r"^run +\S+  stage [1-6] of 6", shown, re.M)
    assert re.search(r"^train +━*·*  \d/3 +.*left  loss \d\.\d+ accuracy \d\.\d+  \d+ images/s", shown, re.M)
    assert re.search(r"^importing torch and timm +\d", shown, re.M)
    assert re.search(r"^score +━*·*  \d+/\d+", shown, re.M)
    assert "\x1b" not in written(ran.lines)
    left = written(ran.lines)
    for stage in ("train", "score", "prune-share", "checkpoint", "adapt", "eval"):
        assert re.search(rf"^{stage} +[0-9a-f]{{8}}  computed ", left, re.M)
    assert re.search(r"^eval .* \d+\.\d\d \(test\)$", left, re.M)
    assert "stages: 6 computed in" in left
    assert "prune + share + knowledge" in left
    assert not [line for line in ran.lines if BAR.search(line)]
    assert ran.raw.rfind(SHOW) > ran.raw.rfind(HIDE) > 0
    assert max(map(len, ran.lines)) <= 80


def test_ctrl_c_leaves_a_clean_terminal_and_one_line_with_what_is_kept(terminal):
    def interrupt(ran, process):
        if ran.width == 80 and re.search(r"^train .*  [2-9]/500 ", ran.frames[-1], re.M):
            ran.resize(60)
        if re.search(r"^train .*  ([5-9]|\d{2,})/500 ", ran.frames[-1], re.M) and process.poll() is None:
            ran.interrupted = getattr(ran, "interrupted", False) or not process.send_signal(signal.SIGINT)

    ran = terminal("run", *TINY, "optim.epochs=500", act=interrupt)
    assert ran.code == 130, written(ran.lines)
    assert ran.raw.rfind(SHOW) > ran.raw.rfind(HIDE) > 0
    assert re.search(
        r"pear run: interrupted; kept: train up to epoch \d+ of 500; the same command resumes from there",
        " ".join(ran.lines).replace("  ", " "),
    ) or re.search(r"kept: train up to epoch \d+ of 500", "".join(ran.lines))
    assert not [line for line in ran.lines if BAR.search(line)]
    assert "Traceback" not in written(ran.lines)


def test_a_sweep_shows_itself_as_a_whole_and_its_jobs_as_they_end(terminal):
    ran = terminal("train", "-m", *TINY, "optim.epochs=1", "seed=0,-1,1")
    assert ran.code == 1, written(ran.lines)
    shown = "\n".join(ran.frames)
    assert re.search(r"^sweep +[━·]+  [0-2]/3 jobs", shown, re.M)
    assert "job 1 (seed=-1): failed, seed = -1 is out of range" in shown
    left = written(ran.lines)
    assert re.search(r"^job 0 \(seed=0\): done, 0 of 1 reused, \S+; 1/3 jobs", left, re.M)
    assert re.search(r"^sweep: 2 done, 1 failed, 0 of 2 stages reused, in ", left, re.M)
    assert not [line for line in ran.lines if re.search("━|·{4,}|^sweep  ", line)]
    assert max(map(len, ran.lines)) <= 80


@pytest.mark.parametrize(
    ("environment", "letters", "coloured"),
    [
        ({}, "█→×", True),
        ({"NO_COLOR": "1"}, "█→×", False),
        ({"TERM": "dumb"}, "█→×", False),
        ({"LC_ALL": "", "LANG": "C"}, "#>x", True),
        ({"PYTHONIOENCODING": "ascii"}, "#>x", True),
    ],
    ids=["colour", "NO_COLOR", "dumb", "LANG=C", "ascii"],
)
def test_a_share_map_is_readable_in_every_terminal(terminal, finished, environment, letters, coloured):
    ran = terminal("show", str(finished.made["eval"].path), **environment)
    assert ran.code == 0, written(ran.lines)
    text = written(ran.lines)
    assert all(letter in text for letter in letters)
    assert (re.search(rb"\x1b\[[0-9;]*3[0-9]", ran.raw) is not None) is coloured
    assert (ran.raw.isascii()) is (letters == "#>x")


def test_messages_break_between_words_and_paths_stay_whole(terminal, finished):
    missing = "/nowhere/" + "a-folder-of-some-length/" * 2 + "weights.safetensors"
    words = ("train", "dataset=digits", f"backbone.weights={missing}")
    ran = terminal(*words)
    assert ran.code == 1
    lines = [line.rstrip() for line in ran.lines]
    assert any(line.endswith(f"{missing}:") or f"{missing}:" in line for line in lines)
    words = " ".join(lines).split()
    assert "bundled" in words
    assert "weights:" in words


def test_sites_are_a_table_on_a_terminal(terminal):
    ran = terminal("sites")
    assert ran.lines[0].split() == ["slot", "sites", "channels", "in", "channels", "out"]
    assert b"\t" not in ran.raw
