"""TERM and HUP as Ctrl-C: real command lines end with all of their processes, and resume."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PEAR = (sys.executable, "-m", "pear_cli")
TINY = (
    *("--config-dir", str(Path(__file__).parent.parent / "configs"), "backbone=tiny", "dataset=digits"),
    *("method.rank=2", "optim.epochs=20", "optim.batch_size=100", "runtime.threads=1", "runtime.store=store"),
)
KINDS = {
    "run": ("run",),
    "basic": ("train", "-m", "seed=0,1"),
    "joblib": ("train", "-m", "seed=0,1,2", "hydra/launcher=pear_joblib", "hydra.launcher.n_jobs=2"),
    "processes": ("train", "runtime.processes=2"),
    "ray": (
        *("train", "-m", "seed=0,1,2", "hydra/launcher=pear_ray", "hydra.launcher.ray.remote.num_gpus=0"),
        "+hydra.launcher.ray.init.num_cpus=2",
    ),
}
CODES = {"INT": 130, "TERM": 143, "HUP": 129, "KILL": -signal.SIGKILL}
SPAWNS = ("joblib", "processes", "ray")
KEPT = "kept: train up to epoch"
MESSAGE = {"run": KEPT, "basic": "pear sweeps resume", "joblib": "pear sweeps resume", "processes": KEPT}
MESSAGE["ray"] = MESSAGE["joblib"]


def start(folder, words, ignored=()):
    """Begin a command line in a session of its own; its stderr goes to a file."""

    def as_in_a_shell():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    with open(folder / "err", "w") as err:
        return subprocess.Popen(
            [*PEAR, *words],
            cwd=folder,
            stdout=err,
            stderr=err,
            start_new_session=True,
            preexec_fn=as_in_a_shell,
        )


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)


def alive(processes):
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def workspaces(folder):
    return {path.parent.name.removeprefix(".work-") for path in folder.glob("store/train/.work-*/*")}


def drafts(folder):
    return [*folder.glob("store/*/.tmp-*")]


OFTEN = {("run", "TERM"), ("basic", "HUP"), ("joblib", "TERM"), ("joblib", "KILL"), ("processes", "INT")}
CASES = [
    pytest.param(kind, name, marks=() if (kind, name) in OFTEN else pytest.mark.slow)
    for kind in KINDS
    for name in CODES
    if (kind, name) != ("ray", "KILL")  # its processes end when Ray itself finds out
]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_signal_ends_all_processes_of_a_command_and_the_same_command_resumes(kind, name, tmp_path):
    if kind == "ray":
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    words, together = (*KINDS[kind], *TINY), 2 if kind in ("joblib", "ray") else 1
    process = start(tmp_path, words)
    wait_for(lambda: len(workspaces(tmp_path)) == together and drafts(tmp_path), process)
    begun = workspaces(tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)
    assert bool(children) == (kind in SPAWNS)
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.wait(30) == CODES[name]
    psutil.wait_procs(children, timeout=10)
    assert not alive(children)
    said = (tmp_path / "err").read_text()
    assert "Traceback" not in said
    if name != "KILL":
        assert MESSAGE[kind] in said.splitlines()[-1]
    assert not drafts(tmp_path) or (name == "KILL" and kind not in SPAWNS)
    if name == "TERM":
        again = subprocess.run([*PEAR, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "resuming after epoch" in again.stderr + "".join(
            log.read_text() for log in tmp_path.rglob("stderr.log")
        )
        assert begun <= {path.parent.name for path in tmp_path.glob("store/train/*/manifest.json")}
        assert not workspaces(tmp_path)


def test_what_is_ignored_from_the_start_stays_ignored(tmp_path):
    process = start(tmp_path, ("train", *TINY, "optim.epochs=3"), ignored=(signal.SIGHUP, signal.SIGINT))
    wait_for(lambda: drafts(tmp_path), process)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
