"""SIGKILL at random moments of a run, then the same run again: the same result, and no litter."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

CONFIGS = Path(__file__).parent.parent / "configs"
RUN = [
    *(sys.executable, "-m", "pear_cli", "run", "--config-dir", str(CONFIGS), "--json"),
    *("backbone=tiny", "dataset=digits", "method.rank=2", "optim.epochs=12", "optim.batch_size=100"),
    *("runtime.threads=1", "runtime.store=store", "prune.ratio=0.5"),
]


def files(store):
    return {
        str(path.relative_to(store)): json.loads(path.read_text())["files"]
        for path in store.glob("*/*/manifest.json")
    }


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_result(tmp_path):
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    calm.mkdir()
    wild.mkdir()
    subprocess.run(RUN, cwd=calm, check=True, capture_output=True)
    moments = random.Random(0)
    killed = 0
    for _ in range(4):
        process = subprocess.Popen(RUN, cwd=wild, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(list(wild.glob("store/*/*")))
        while process.poll() is None and len(list(wild.glob("store/*/*"))) <= before:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2

    last = subprocess.run(RUN, cwd=wild, check=True, capture_output=True, text=True)
    assert json.loads(last.stdout)["metrics"]["accuracy"] > 0
    assert files(wild / "store") == files(calm / "store")

    pear = [sys.executable, "-m", "pear_cli", "gc", "runtime.store=store"]
    subprocess.run(pear, cwd=wild, check=True, capture_output=True)
    litter = [p.name for p in (wild / "store").rglob(".*") if p.is_dir() and p.name != ".locks"]
    assert not litter
