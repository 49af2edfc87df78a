"""What a sweep says of its jobs, with jobs that take no time."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pear_cli.errors import DataError
from pear_cli.experiment.planning import THERE, Planned
from pear_cli.experiment.step import Step
from pear_cli.launch.sweep import outlook as outlook_module
from pear_cli.launch.sweep.outlook import Outlook
from pear_cli.launch.sweep.watching import came_to, last_line

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture
def quick_jobs(monkeypatch):
    """Jobs of four stages, two of them reused; seed 1 fails, seed 3 is interrupted."""

    def carry_out(cfg, launched_from, overrides, work):
        if cfg.seed == 1:
            raise DataError("images are missing: /nowhere", "run: make images")
        if cfg.seed == 3:
            raise KeyboardInterrupt
        stage = {"step": "train", "stage": "train", "key": "0" * 32, "seconds": 1.0}
        stages = [stage | {"reused": number < 2} for number in range(4)]
        metrics = {"accuracy": 0.931}
        return {"artifact": f"/store/{cfg.seed}", "metrics": metrics, "stages": stages, "seconds": 12.0}

    monkeypatch.setattr("pear_cli.launch.jobs._carry_out", carry_out)
    monkeypatch.setattr(outlook_module, "plan", lambda command, experiments: [])


@pytest.mark.usefixtures("quick_jobs")
def test_without_a_terminal_a_sweep_says_when_a_job_begins_and_what_it_came_to(pear, quiet):
    said = pear("train", "-m", *quiet, "seed=0,1,2", "optim.epochs=2")
    assert said.code == 1
    lines = [re.sub(r"\d{4}-\d\d-\d\d/\S+", "DATE", line) for line in said.err.splitlines()]
    assert lines[0] == "sweep: 3 jobs; outputs/sweeps/DATE"
    assert lines[1:3] == ["job 0 (seed=0): begins", lines[2]]
    done = r"job 0 \(seed=0\): done, 93.10 %, 2 of 4 reused, 12s; 1/3 jobs, about \S+ left"
    assert re.fullmatch(done, lines[2])
    assert lines[3] == "job 1 (seed=1): begins"
    failed = r"job 1 \(seed=1\): failed, images are missing: /nowhere; 2/3 jobs, about \S+ left"
    assert re.fullmatch(failed, lines[4])
    assert lines[5] == "job 2 (seed=2): begins"
    assert lines[6] == "job 2 (seed=2): done, 93.10 %, 2 of 4 reused, 12s; 3/3 jobs"
    assert re.fullmatch(r"sweep: 2 done, 1 failed, 4 of 8 stages reused, in \S+", lines[7])


@pytest.mark.usefixtures("quick_jobs")
def test_a_quiet_sweep_says_nothing_of_its_jobs(pear, quiet):
    said = pear("train", "-m", "-q", *quiet, "seed=0,2")
    assert (said.code, said.err) == (0, "")


@pytest.mark.usefixtures("quick_jobs")
def test_an_interrupted_sweep_says_in_one_line_how_to_go_on(pear, quiet):
    said = pear("train", "-m", *quiet, "seed=0,3,4")
    assert said.code == 130
    told = r"pear train: interrupted after 1 of 3 jobs; to resume: pear sweeps resume [0-9a-f]{8}"
    assert re.fullmatch(told, said.err.splitlines()[-1])
    assert said.err.count("interrupted") == 1


def test_jobs_in_other_processes_write_to_a_file_each_and_the_sweep_tells_of_them(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = "-m hydra/launcher=pear_joblib seed=0,-1 dataset=digits backbone=tiny optim.epochs=2"
    line = [sys.executable, "-m", "pear_cli", "train", *words.split(), "--config-dir", str(CONFIGS)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert "train 1/2" not in done.stderr
    assert re.search(r"^job 0 \(seed=0\): done, 0 of 1 reused, ", done.stderr, re.M)
    assert re.search(r"^job 1 \(seed=-1\): failed, seed = -1 is out of range", done.stderr, re.M)
    begun = r"^sweep: 2 jobs, 1 stage, 0 there already; outputs/sweeps/.*; logs in \*/stderr.log$"
    assert re.search(begun, done.stderr, re.M)
    (log,) = tmp_path.glob("outputs/sweeps/*/*/0/stderr.log")
    assert re.search(r"^train 2/2 loss ", log.read_text(), re.M)
    assert last_line(log).startswith("train 2/2 loss ")


def planned(tmp_path, name, jobs=(0,), state="to do"):
    step = Step(name, "train", {}, {}, {}, "a")
    return Planned(step, tmp_path / "train" / name, state, jobs, None)


@pytest.fixture
def outlook(tmp_path, monkeypatch):
    """Three stages of 10 s each, one of them there; the clock stands still."""
    monkeypatch.setattr(outlook_module, "estimates", lambda stages: {s.folder: 10.0 for s in stages})
    monkeypatch.setattr("pear_cli.launch.sweep.outlook.time.monotonic", lambda: 0.0)
    stages = [
        planned(tmp_path, "a", (0, 1)),
        planned(tmp_path, "b", (1,)),
        planned(tmp_path, "c", state=THERE),
    ]
    return Outlook(stages)


def test_the_time_left_is_that_of_the_stages_that_are_missing(outlook):
    assert (outlook.there, outlook.left(1), outlook.left(2)) == (1, 20.0, 10.0)
    folder = outlook.missing[0].folder
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    outlook.look(set())
    assert outlook.left(1) == 10.0


def test_stages_of_failed_jobs_alone_are_not_waited_for(outlook):
    outlook.look({1})
    assert outlook.left(1) == 10.0
    outlook.look({0, 1})
    assert outlook.left(1) == 0.0


def test_a_machine_that_is_slower_than_once_takes_longer(outlook, monkeypatch):
    outlook.expected, outlook.spent = 10.0, 30.0
    assert outlook.left(1) == 60.0


def test_a_time_that_is_over_and_one_that_nobody_knows_are_not_told(outlook, monkeypatch):
    monkeypatch.setattr("pear_cli.launch.sweep.outlook.time.monotonic", lambda: 99.0)
    assert outlook.left(1) is None
    outlook.seconds = dict.fromkeys(outlook.seconds)
    assert outlook.left(1) is None


def test_what_a_job_came_to_is_a_few_words():
    assert came_to({"error": {"message": "no images\nrun: x"}}) == "failed, no images"
    assert came_to({"metrics": {}, "seconds": 3.21}) == "done, 3.2s"


def test_the_last_line_of_a_log_cannot_command_the_terminal(tmp_path):
    log = tmp_path / "stderr.log"
    assert last_line(log) == ""
    log.write_bytes(b"x" * 5000 + b"\ntrain 1/2 \x1b[2J\xff\n")
    assert last_line(log) == r"train 1/2 \x1b[2J" + "\N{REPLACEMENT CHARACTER}"


def test_a_sweep_of_which_all_is_there_takes_no_time(tmp_path):
    outlook = Outlook([planned(tmp_path, "c", state=THERE)])
    outlook.since -= 5
    assert outlook.left(1) == 0.0
