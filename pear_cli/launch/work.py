"""What each command does with an experiment: stages performed or checks made, and the record of them."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pear_cli.backbone import identity
from pear_cli.config.node import node
from pear_cli.config.settings import Backbone
from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.planning import refuse_phase, steps_of
from pear_cli.experiment.step import Step
from pear_cli.launch.course import Course
from pear_cli.stages.perform import Outcome, perform
from pear_cli.store.lease import leased
from pear_cli.store.store import Store
from pear_cli.system import progress
from pear_cli.training import trackers

Record = dict[str, Any]
Work = Callable[[Experiment, Store], Record]

OBJECTIVE = "val200_accuracy"
"""What a sweeper may optimise: it is measured where `select=val`, and never on the test set."""


def performing(command: str, between: Callable[[], None], output: Callable[[], Path]) -> Work:
    """The work of a command that performs stages; its record is of the last one.

    Args:
        command: such as `run` or `prune-share`.
        between: called before each stage; it may raise to end the work there.
        output: gives the job's folder.
    """

    def work(experiment: Experiment, store: Store) -> Record:
        steps = steps_of(command, experiment)
        trackers.check(experiment.runtime.tracker)
        _warn(experiment)
        if command == "run" and not experiment.prunes:
            method = type(experiment.method).__name__
            epochs, unused = experiment.dense_epochs, _without_effect(experiment)
            progress.say(f"{method} has no adapters: {epochs} epochs of training, then eval{unused}")
        course = Course(experiment, steps, store, alone=HydraConfig.get().mode == RunMode.RUN)
        whole = progress.doing(command, course.tell, stays=True) if len(steps) > 1 else nullcontext()
        ours = [experiment.plan[name] for name in steps]
        needed = {(s.stage, s.key) for step in ours for s in (step, *step.inputs.values())}
        with whole, _told(course), leased(store, needed):
            for name in steps:
                between()
                course.begin(name)
                course.done[name] = perform(name, experiment, store, output())
        record = _record(course.done[name]) | {"stages": [_brief(*each) for each in course.done.items()]}
        return record | _objective(experiment.plan[name], store)

    return work


def _without_effect(experiment: Experiment) -> str:
    """What was asked of scoring and pruning all the same, in words; empty where nothing was."""
    of_pruning = re.compile(r"[+~]*(score|prune|share|knowledge)[.=]")
    asked = [word for word in experiment.overrides if of_pruning.match(word)]
    return f"; without effect: {' '.join(asked)}" if asked else ""


@contextmanager
def _told(course: Course) -> Iterator[None]:
    """Let an interruption say which stages are kept, before what of the last one is."""
    try:
        yield
    except KeyboardInterrupt as stop:
        parts = [", ".join(course.done)] if course.done else []
        stop.__notes__ = parts + getattr(stop, "__notes__", [])
        raise


def _brief(name: str, outcome: Outcome) -> Record:
    """What a record says of one of its stages."""
    manifest = outcome.artifact.manifest
    brief = {"step": name, "stage": outcome.artifact.stage, "key": outcome.artifact.key}
    return brief | {"reused": outcome.reused, "seconds": manifest["seconds"]}


def _warn(experiment: Experiment) -> None:
    """Say that the frozen weights are random, where they are: what follows is no result of transfer."""
    if identity.is_random(experiment.backbone):
        name, remedy = experiment.backbone.name, "backbone.pretrained=true or backbone.weights=FILE"
        progress.say(f"warning: {name} has random weights; trained ones: {remedy}")


def evaluating(model: str, weights: str | None) -> Work:
    """The work of `pear eval MODEL`: nothing of it is stored."""

    def work(experiment: Experiment, store: Store) -> Record:
        from pear_cli.export import load

        named = [word.partition("=")[0].lstrip("+") for word in experiment.overrides]
        metrics = dict(load.evaluate(model, experiment.dataset, experiment.runtime, store, weights, named))
        split = f"{experiment.dataset.test_split} of {experiment.dataset.name}"
        metric = experiment.dataset.metric.value
        progress.say(f"{metric} {100 * metrics[metric]:.2f}% on {metrics['images']} images, {split}")
        return {"artifact": model, "metrics": metrics}

    return work


def checking(experiment: Experiment, store: Store) -> Record:
    """The work of `pear audit`: its record has an error where a check has failed."""
    refuse_phase("audit", experiment)
    identity.weights_hash(experiment.backbone)  # weights that are not there are known before torch is loaded
    from pear_cli.audit.perform import ROWS, audit

    checks: list[Record] = []
    with progress.ticker("audit", ROWS) as ticker:
        for name, finding in audit(experiment):
            checks.append({"check": name, **finding.to_json()})
            ticker.step()
    failed = [check["check"] for check in checks if check["result"] == "FAIL"]
    record: Record = {"checks": checks}
    if failed:
        message = f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}"
        record["error"] = {"type": "AuditFailed", "message": message}
    return record


def slots(cfg: DictConfig) -> Iterator[tuple[str, int, int, int]]:
    """The slots of a backbone: slot, number of sites, channels read and added to."""
    from pear_cli.backbone import backbones, sites

    config = node(cfg.get("backbone"), Backbone, "backbone")
    model = backbones.build(replace(config, pretrained=False, weights=None), num_classes=2)  # any weights do
    for (slot, reads, adds), count in Counter(site.group for site in sites.all_sites(model)).items():
        yield slot, count, reads, adds


def _record(outcome: Outcome) -> Record:
    artifact = outcome.artifact
    return {
        "artifact": str(artifact.path),
        "stage": artifact.stage,
        "key": artifact.key,
        "reused": outcome.reused,
        "metrics": artifact.manifest["metrics"],
        "accounting": artifact.manifest["accounting"],
    }


def _objective(step: Step, store: Store) -> Record:
    """The accuracy on val200 of the training that a step is, or evaluates; empty where there is none."""
    read = step.inputs.values() if step.stage == "eval" else ()
    for training in (s for s in (step, *read) if s.stage == "train"):
        found = store.find(training.stage, training.key)
        if found is not None and OBJECTIVE in found.manifest["metrics"]:
            return {"objective": float(found.manifest["metrics"][OBJECTIVE])}
    return {}
