"""A stage that another process computes is waited for, and that is said."""

import threading

from pear_cli.stages import perform as performing
from pear_cli.stages.perform import perform
from pear_cli.store.store import Store
from pear_cli.system import progress


def test_a_stage_says_whom_it_waits_for_and_how_long_it_was(make, store, monkeypatch):
    experiment = make()
    step = experiment.plan["train"]
    said, waiting = [], threading.Event()
    held, made = threading.Event(), object()

    def say(text):
        said.append(text)
        waiting.set()

    def hold():
        with Store(store.root).lock(step.stage, step.key):
            held.set()
            waiting.wait(10)

    monkeypatch.setattr(progress, "say", say)
    monkeypatch.setattr(performing, "make", lambda *args: made)
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    assert perform("train", experiment, store).artifact is made
    holder.join()
    assert said[0] == f"train: another process is working on train/{step.key}; waiting for it"
    assert said[1].startswith("train: waited ")
    assert said[1].endswith("s for another process")
