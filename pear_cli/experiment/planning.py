"""What jobs would do: the stages that are there already, and those to compute, each once over all jobs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pear_cli.config.choices import Phase
from pear_cli.errors import ConfigError, StoreError
from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.step import Step
from pear_cli.store.store import Store

THERE, RUNNING, STARTED, TO_DO = "there", "running", "started", "to do"
"""States of a stage: started is a training that was interrupted, which resumes after its last epoch."""


@dataclass(frozen=True)
class Planned:
    """One stage that one or more jobs need.

    Args:
        step: the stage and its key.
        folder: where its artifact is, or will be.
        state: `there`, `running` in another process, `started`, or `to do`.
        jobs: numbers of the jobs that need it.
        epochs: that it trains; None for other stages.
    """

    step: Step
    folder: Path
    state: str
    jobs: tuple[int, ...]
    epochs: int | None


def refuse_phase(command: str, experiment: Experiment) -> None:
    """Refuse `phase` for a command that goes through both."""
    if experiment.phase is not None:
        phase = experiment.phase.value
        raise ConfigError(f"phase = {phase}: pear {command} goes through both; leave phase out")


def steps_of(command: str, experiment: Experiment) -> list[str]:
    """Names of the steps that a command performs, in order.

    Args:
        command: `run` has all steps, the others one.
        experiment: the validated root config.

    Raises:
        ConfigError: the experiment has no such step.
    """
    if command == "run":
        refuse_phase(command, experiment)
        return list(experiment.plan)
    step = "adapt" if command == "train" and experiment.phase is Phase.shared else command
    rounds = experiment.prune.steps
    if rounds > 1 and step not in ("train", "eval"):
        raise ConfigError(f"prune.steps = {rounds} goes round {rounds} times; use pear run for it")
    if step not in experiment.plan:
        method = type(experiment.method).__name__
        raise ConfigError(f"{method} has no adapters to score, prune or share; run: pear run method=lora")
    return [step]


def plan(command: str, experiments: Mapping[int, Experiment]) -> list[Planned]:
    """All stages that jobs need, in the order in which they are first needed; shared ones once.

    Args:
        command: what the jobs are of.
        experiments: by number of the job.
    """
    needed: dict[tuple[Path, str, str], tuple[Step, int | None, list[int]]] = {}
    for job, experiment in experiments.items():
        for name in steps_of(command, experiment):
            step = experiment.plan[name]
            place = (Path(experiment.runtime.store), step.stage, step.key)
            needed.setdefault(place, (step, _epochs(step, experiment), []))[2].append(job)
    found = []
    for (root, stage, key), (step, epochs, jobs) in needed.items():
        store = Store(root)
        folder = store.path(stage, key)
        found.append(Planned(step, folder, _state(store, stage, key), tuple(jobs), epochs))
    return found


def _state(store: Store, stage: str, key: str) -> str:
    try:
        there = store.find(stage, key) is not None
    except StoreError:
        there = False  # damaged: it is made again
    if there:
        return THERE
    if store.is_busy(stage, key):
        return RUNNING
    return STARTED if store.work_path(stage, key).is_dir() else TO_DO


def _epochs(step: Step, experiment: Experiment) -> int | None:
    if step.stage != "train":
        return None
    return len(experiment.adaptation(step.round)) if "checkpoint" in step.inputs else experiment.dense_epochs
