"""Hydra's task functions: one job is one command on one composed config.

A job leaves `result.json` in its output folder, whatever becomes of it, and writes nothing to stdout: under
a launcher it may run in another process, and whoever started it reads the file.
"""

import json
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from pear_cli.backbone import BUNDLED
from pear_cli.errors import ConfigError, PearError
from pear_cli.streams import stdout_to_stderr

if TYPE_CHECKING:
    from pear_cli.data.base import Dataset
    from pear_cli.experiment import Experiment
    from pear_cli.stages.perform import Outcome
    from pear_cli.store import Store

Record = dict[str, Any]
Work = Callable[["Experiment", "Store"], Record]

RESULT = "result.json"
ROOT = "config"
"""Name of the root config."""


class JobFailed(CompactHydraException):
    """A job failed; its result file has the whole error."""


def train(cfg: DictConfig) -> float | None:
    """Train the adapters: dense, or with phase=shared after sharing."""
    from pear_cli.choices import Phase

    return _job("train", cfg, _step_of(lambda e: "adapt" if e.phase is Phase.shared else "train"))


def score(cfg: DictConfig) -> float | None:
    """Score the importance of every unit."""
    return _job("score", cfg, _step_of(lambda e: "score"))


def prune_share(cfg: DictConfig) -> float | None:
    """Choose what is pruned and who serves in its place."""
    return _job("prune-share", cfg, _step_of(lambda e: "prune-share"))


def checkpoint(cfg: DictConfig) -> float | None:
    """Make the knowledge checkpoint."""
    return _job("checkpoint", cfg, _step_of(lambda e: "checkpoint"))


def evaluate(cfg: DictConfig) -> float | None:
    """Evaluate on the test set."""
    return _job("eval", cfg, _step_of(lambda e: "eval"))


def evaluate_model(cfg: DictConfig, model: str, weights: str | None) -> float | None:
    """Evaluate the model at `model`, trained anywhere, on the dataset of the experiment.

    Args:
        model: an artifact's folder or key, or an exported file.
        weights: a file with its frozen weights, where they are elsewhere than it says.
    """

    def work(experiment: "Experiment", store: "Store") -> Record:
        from pear_cli import api, progress

        named = [word.partition("=")[0].lstrip("+") for word in experiment.overrides]
        metrics = dict(api.evaluate(model, experiment.dataset, experiment.runtime, store, weights, named))
        split = f"{experiment.dataset.test_split} of {experiment.dataset.name}"
        metric = experiment.dataset.metric.value
        progress.say(f"{metric} {100 * metrics[metric]:.2f}% on {metrics['images']} images, {split}")
        return {"artifact": model, "metrics": metrics}

    return _job("eval", cfg, work)


def run(cfg: DictConfig) -> float | None:
    """Perform every stage of the experiment."""
    return _job("run", cfg, _every_step)


def audit(cfg: DictConfig) -> float | None:
    """Check the model of an experiment on noise, before it is trained."""
    return _job("audit", cfg, _checks)


def slots(cfg: DictConfig) -> Iterator[str]:
    """The slots of a backbone, one line each: slot, sites, channels read and added to."""
    from collections import Counter
    from dataclasses import replace

    from pear_cli import backbone
    from pear_cli.config import node
    from pear_cli.nodes import Backbone
    from pear_cli.sites import all_sites

    config = node(cfg.get("backbone"), Backbone, "backbone")
    model = backbone.build(
        replace(config, pretrained=False, weights=None), num_classes=2
    )  # weights don't matter
    for (slot, reads, adds), count in Counter(site.group for site in all_sites(model)).items():
        yield f"{slot}\t{count}\t{reads}\t{adds}"


def dataset(cfg: DictConfig) -> "Dataset":
    """The dataset of an experiment, the whole of which is validated."""
    from pear_cli.experiment import Experiment

    _check_whole(cfg)
    _make_absolute(cfg, Path.cwd())
    return Experiment.from_config(cfg).dataset


def datasets(presets: Mapping[str, DictConfig]) -> "Iterator[Dataset]":
    """The dataset of each preset; of VTAB-1k every task that is there."""
    from pear_cli.config import node
    from pear_cli.data.base import Dataset
    from pear_cli.data.vtab import Vtab

    for preset in presets.values():
        with open_dict(preset):
            preset.train_split = preset.train_split or "train800val200"
        found = node(preset, Dataset, "dataset")  # type: ignore[type-abstract]
        yield from found.tasks() if isinstance(found, Vtab) else (found,)


def _step_of(name: "Callable[[Experiment], str]") -> Work:
    def work(experiment: "Experiment", store: "Store") -> Record:
        step = name(experiment)
        rounds = experiment.prune.steps
        if rounds > 1 and step not in ("train", "eval"):
            raise ConfigError(f"prune.steps = {rounds} goes round {rounds} times; use pear run for it")
        if step not in experiment.plan:
            method = type(experiment.method).__name__
            raise ConfigError(f"{method} has no adapters to score, prune or share; run: pear run method=lora")
        from pear_cli.stages.perform import perform

        _warn(experiment)
        return _record(perform(step, experiment, store))

    return work


def _warn(experiment: "Experiment") -> None:
    """Say that the frozen weights are random, where they are: what follows is no result of transfer."""
    from pear_cli import backbone, progress

    if backbone.is_random(experiment.backbone):
        name, remedy = experiment.backbone.name, "backbone.pretrained=true or backbone.weights=FILE"
        progress.say(f"warning: {name} has random weights; trained ones: {remedy}")


def _refuse_phase(command: str, experiment: "Experiment") -> None:
    if experiment.phase is not None:
        phase = experiment.phase.value
        raise ConfigError(f"phase = {phase}: pear {command} goes through both; leave phase out")


def _every_step(experiment: "Experiment", store: "Store") -> Record:
    _refuse_phase("run", experiment)
    from pear_cli import progress
    from pear_cli.stages.perform import perform_all

    _warn(experiment)
    if not experiment.prunes:
        method = type(experiment.method).__name__
        progress.say(f"{method} has no adapters: {experiment.dense_epochs} epochs of training, then eval")
    return _record(perform_all(experiment, store)[-1])


def _checks(experiment: "Experiment", store: "Store") -> Record:
    from pear_cli import backbone, progress

    _refuse_phase("audit", experiment)
    backbone.weights_hash(experiment.backbone)  # weights that are not there are known before torch is loaded
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


def _record(outcome: "Outcome") -> Record:
    artifact = outcome.artifact
    return {
        "artifact": str(artifact.path),
        "stage": artifact.stage,
        "key": artifact.key,
        "reused": outcome.reused,
        "metrics": artifact.manifest["metrics"],
        "accounting": artifact.manifest["accounting"],
    }


def _job(command: str, cfg: DictConfig, work: Work) -> float | None:
    """Carry out a command and leave its result file.

    Returns:
        The accuracy on val200 of a training, or that of an evaluation, which a sweeper may optimise;
        None where there is none. Nan for a
        failed job of a sweep, which goes on: the result file tells of the failure.

    Raises:
        JobFailed: whatever went wrong with a single job, in one or two lines.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    sweeping = hydra.mode == RunMode.MULTIRUN
    overrides = OmegaConf.to_container(hydra.overrides.task)  # unresolved: they are text, not config
    assert isinstance(overrides, list)
    number = hydra.job.num if sweeping else None
    record: Record = {"command": command, "job": number, "overrides": overrides}
    (folder / RESULT).unlink(missing_ok=True)
    with stdout_to_stderr():
        try:
            words = (*_flags(hydra), *map(str, overrides))
            record |= _carry_out(cfg, Path(hydra.runtime.cwd), words, work)
        except Exception as error:
            message = describe(error)
            kind, trace = type(error).__name__, traceback.format_exc()
            record |= {"error": {"type": kind, "message": message, "traceback": trace}}
            if sweeping:
                return math.nan
            raise JobFailed(message) from error
        finally:
            if len(record) > 3:  # an interrupted job has no result
                _write(folder / RESULT, record)
    if "error" in record:  # an audit has a result all the same
        if sweeping:
            return math.nan
        raise JobFailed(record["error"]["message"])
    metrics = record.get("metrics", {})
    accuracy = metrics.get("val200_accuracy", metrics.get("accuracy"))
    return None if accuracy is None else float(accuracy)


def _flags(hydra: Any) -> Iterator[str]:
    """What a command needs, beside overrides of the experiment, to mean the same one."""
    yield from (
        f"--config-dir={s.path}" for s in hydra.runtime.config_sources if s.provider == "command-line"
    )
    if hydra.job.config_name != ROOT:
        yield f"--config-name={hydra.job.config_name}"
    yield from (word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath="))


def _carry_out(cfg: DictConfig, launched_from: Path, words: tuple[str, ...], work: Work) -> Record:
    from pear_cli.experiment import Experiment
    from pear_cli.store import Store

    start = time.perf_counter()
    _check_whole(cfg)
    _make_absolute(cfg, launched_from)
    experiment = Experiment.from_config(cfg, words)
    record = work(experiment, Store(Path(experiment.runtime.store)))
    return {**record, "seconds": time.perf_counter() - start}


def _check_whole(cfg: DictConfig) -> None:
    """Refuse what Hydra lets pass: a part that was deleted, and a seed such as 00, which it reads as text."""
    from pear_cli.experiment import GROUPS

    for name in (*GROUPS, "seed", "select"):
        if cfg.get(name) is None:
            raise ConfigError(f"{name} is gone: every experiment has one; leave out ~{name} and {name}=null")
    if isinstance(cfg.seed, str):
        raise ConfigError(f'seed = "{cfg.seed}" is text; write a whole number without leading zeros: seed=0')


def _make_absolute(cfg: DictConfig, folder: Path) -> None:
    """Let relative paths count from where pear was started, wherever the job runs."""
    with open_dict(cfg):
        for key in ("runtime.store", "dataset.root", "dataset.path", "backbone.weights"):
            path = OmegaConf.select(cfg, key)
            if not isinstance(path, str):
                continue
            place = os.path.abspath(folder / Path(path).expanduser())
            bundled = (BUNDLED / f"{path}.safetensors").is_file() or not os.path.isfile(place)
            named = {"backbone.weights": bundled, "dataset.path": not os.path.isdir(place)}
            if not named.get(key, False):
                OmegaConf.update(cfg, key, place)


def _write(path: Path, record: Record) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def describe(error: BaseException) -> str:
    """What went wrong in one or two lines; an error that is not the user's says where to look."""
    if isinstance(error, PearError):
        return str(error)
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}; PEAR_TRACEBACK=1 shows where" if first else type(error).__name__
