"""Carry out a stage, and publish what it made."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.step import Step
from pear_cli.stages.checkpoint import checkpoint
from pear_cli.stages.evaluate import evaluate
from pear_cli.stages.job import Job, Result
from pear_cli.stages.prune_share import prune_share
from pear_cli.stages.score import score
from pear_cli.stages.train import train
from pear_cli.store.artifact import Artifact
from pear_cli.store.store import Store
from pear_cli.system import processes
from pear_cli.system.environment import environment

STAGES: dict[str, Callable[[Job], Result]] = {
    "train": train,
    "score": score,
    "prune-share": prune_share,
    "checkpoint": checkpoint,
    "eval": evaluate,
}


def make(
    step: Step, experiment: Experiment, store: Store, inputs: Mapping[str, Artifact], output: Path | None
) -> Artifact:
    """The artifact of a step that is not in the store yet.

    Args:
        step: what is made.
        experiment, store, output: as for `perform`.
        inputs: the artifacts that it reads, by step.
    """
    start, title = time.perf_counter(), experiment.dataset.title
    with store.draft(step.stage, step.key) as draft:
        job = Job(experiment, step, inputs, draft, lambda: store.workspace(step.stage, step.key), output)
        result = STAGES[step.stage](job)
        together = processes.size() if step.stage == "train" else 1  # the main process alone does the rest
        return draft.publish(
            inputs={name: needed.key for name, needed in step.inputs.items()},
            config=step.config,
            metrics=result.metrics,
            accounting=dict(result.accounting) | job.stored_bytes(),
            seconds=time.perf_counter() - start,
            environment={
                **environment(
                    device=str(job.device.device), threads=torch.get_num_threads(), processes=together
                ),
                "weights": step.backbone,
                "data": dict(step.data),
                **({} if title == experiment.dataset.name else {"task": title}),
            },
        )
