"""Perform one stage of an experiment, or all of them; what is in the store already is reused."""

import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pear_cli.errors import CorruptArtifact, MissingArtifact
from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.step import ORDER, Step
from pear_cli.stages import make
from pear_cli.store.artifact import Artifact
from pear_cli.store.store import Store
from pear_cli.system import progress

COMMANDS = {
    "train": "train",
    "adapt": "train phase=shared",
    **{s: s for s in ORDER if s not in ("train", "adapt")},
}

MISSING = {
    "train": "nothing trained",
    "score": "no importance scored",
    "prune-share": "nothing pruned and shared",
    "checkpoint": "no knowledge checkpoint made",
    "adapt": "nothing adapted after sharing",
}


@dataclass(frozen=True)
class Outcome:
    """The artifact of a step, and whether it was there before."""

    artifact: Artifact
    reused: bool


def perform(name: str, experiment: Experiment, store: Store, output: Path | None = None) -> Outcome:
    """Make the artifact of one step, unless it is there.

    Args:
        name: of the step, in `experiment.plan`.
        experiment: the validated root config.
        store: where artifacts are.
        output: folder of the job, for what is no part of an artifact, such as a tracker's files.

    Raises:
        MissingArtifact: an input is not there yet; the message has the command that makes it.
    """
    step = experiment.plan[name]
    found = _find(step, store)
    if found is not None:
        return Outcome(found, reused=True)
    inputs = {i: input_of(name, needed, experiment, store) for i, needed in step.inputs.items()}
    with _alone(step, store):
        found = _find(step, store)
        if found is not None:
            return Outcome(found, reused=True)
        with progress.doing(name):
            return Outcome(make(step, experiment, store, inputs, output), reused=False)


def perform_all(experiment: Experiment, store: Store) -> list[Outcome]:
    """Every step up to the evaluation, in order."""
    return [perform(name, experiment, store) for name in experiment.plan]


@contextmanager
def _alone(step: Step, store: Store) -> Iterator[None]:
    """Hold the lock of a step; say whom it waits for, and how long."""
    start, waited = time.monotonic(), []

    def wait(message: str) -> None:
        waited.append(message)
        if not progress.is_live():
            progress.say(f"{step.name}: {message}")

    def tell() -> str:
        return "waiting for another process that computes it" if waited else ""

    with ExitStack() as locked:
        with progress.doing(step.name, tell):
            locked.enter_context(store.lock(step.stage, step.key, on_wait=wait))
        if waited:
            seconds = progress.duration(time.monotonic() - start)
            progress.say(f"{step.name}: waited {seconds} for another process")
        yield


def _find(step: Step, store: Store) -> Artifact | None:
    """The artifact of a step; one with a damaged manifest is made again, and publishing replaces it."""
    try:
        return store.find(step.stage, step.key)
    except CorruptArtifact as error:
        progress.say(f"{error}; it is made again")
        return None


def input_of(name: str, needed: Step, experiment: Experiment, store: Store) -> Artifact:
    """The artifact of a step that the step `name` reads.

    Raises:
        MissingArtifact: it is not there yet; the message has the command that makes it.
    """
    found = store.find(needed.stage, needed.key)
    if found is None:
        ready = all(store.find(step.stage, step.key) for step in needed.inputs.values())
        command = COMMANDS[needed.name] if ready and name != "eval" else "run"
        overrides = [override for override in experiment.overrides if not override.startswith("phase=")]
        remedy = shlex.join(["pear", *command.split(), *overrides])
        raise MissingArtifact(f"{MISSING[needed.name]} for this configuration yet; run: {remedy}")
    return found
