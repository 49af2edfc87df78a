"""A sweep on each engine, one of its jobs killed midway: the results of jobs in turn.

Needs the real engines: joblib comes with the tests; `bash scripts/ci/launchers.sh` brings Ray and a Slurm of
one node, and runs this.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parent.parent / "configs"
SWEEP = (
    *(sys.executable, "-m", "pear_cli", "run", "-m", "--config-dir", str(CONFIGS), "--json"),
    *("backbone=tiny", "dataset=digits", "method.rank=2", "optim.batch_size=100", "optim.epochs=6"),
    *("runtime.threads=1", "prune.ratio=0.25,0.5", "seed=0,1,2"),
)


def kill_a_child(sweep, name):
    """SIGKILL to one of a sweep's descendants; tell whether there was one."""
    for pid in descendants(sweep.pid):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        if name in words:
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def descendants(pid):
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return
    for child in map(int, children):
        yield child
        yield from descendants(child)


def requeue_a_job(sweep, _name):
    """What a preemption does: Slurm kills a running job, and queues it again."""
    running = subprocess.run(
        ["squeue", "--noheader", "--states=RUNNING", "--array", "--format=%i"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return bool(running) and subprocess.run(["scontrol", "requeue", running[0]], check=False).returncode == 0


ENGINES = {
    "joblib": (("hydra.launcher.n_jobs=2",), kill_a_child, "LokyProcess"),
    "ray": (
        ("hydra.launcher.ray.remote.num_gpus=0", "+hydra.launcher.ray.init.num_cpus=2"),
        kill_a_child,
        "ray::_run_job",
    ),
    "slurm": (("hydra.launcher.gpus_per_node=0", "hydra.launcher.cpus_per_task=1"), requeue_a_job, ""),
}
PLUGINS = {"joblib": "hydra_joblib_launcher", "ray": "hydra_ray_launcher", "slurm": "hydra_submitit_launcher"}


def skip_without(engine):
    if importlib.util.find_spec(f"hydra_plugins.{PLUGINS[engine]}") is None:
        pytest.skip(f"no {PLUGINS[engine]}")
    if engine == "slurm":
        if shutil.which("sinfo") is None:
            pytest.skip("no Slurm")
        if subprocess.run(["sinfo"], capture_output=True, check=False).returncode:
            pytest.skip("no Slurm answers")


def files(store):
    """What every artifact of a store holds."""
    return {
        str(path.relative_to(store)): json.loads(path.read_text())["files"]
        for path in store.glob("*/*/manifest.json")
    }


@pytest.fixture(scope="module")
def in_turn(tmp_path_factory):
    """The same sweep without a launcher: the accuracies in order, and the files of all artifacts."""
    folder = tmp_path_factory.mktemp("in_turn")
    done = subprocess.run(
        [*SWEEP, "runtime.store=store"], cwd=folder, capture_output=True, text=True, check=True
    )
    return accuracies(done.stdout), files(folder / "store")


def accuracies(out):
    return [json.loads(line)["metrics"]["accuracy"] for line in out.splitlines()]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_sweep_that_loses_a_worker_has_the_results_of_jobs_in_turn(engine, tmp_path, request):
    skip_without(engine)
    expected, whole = request.getfixturevalue("in_turn")
    settings, strike, name = ENGINES[engine]
    words = [*SWEEP, "runtime.store=store", f"hydra/launcher=pear_{engine}", *settings]
    # A file and no pipe: what a launcher leaves running would keep a pipe open.
    with open(tmp_path / "out", "w") as out, open(tmp_path / "err", "w") as err:
        sweep = subprocess.Popen(words, cwd=tmp_path, stdout=out, stderr=err)
        store, struck = tmp_path / "store", False
        while sweep.poll() is None:
            time.sleep(0.05)
            if not struck and any(store.glob("eval/*/manifest.json")) and any(store.glob("train/.tmp-*")):
                struck = strike(sweep, name)
    assert struck, (tmp_path / "err").read_text()
    if sweep.returncode:  # this engine does not start a job anew; the same command does what is missing
        again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stderr
        (tmp_path / "out").write_text(again.stdout)
    assert accuracies((tmp_path / "out").read_text()) == expected
    assert files(store) == whole
    assert not list(store.glob("*/.tmp-*"))


def test_a_launcher_that_gives_up_leaves_jobs_that_were_not_run(tmp_path):
    from pear_cli.launch.sweep.ledger import NOT_RUN, Ledger

    ledger = Ledger()
    ledger.open(str(tmp_path), sweep=True)
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "overrides.yaml").write_text("[seed=0]")
    jobs = [["seed=0"], ["seed=1"], ["seed=2"]]
    found = ledger.records(jobs, complete=True)
    assert [record["error"].get("type") for record in found] == [None, NOT_RUN, NOT_RUN]
    assert len(ledger.records(jobs, complete=False)) == 0
