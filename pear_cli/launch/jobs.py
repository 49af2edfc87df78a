"""Hydra's task functions: one job is one command on one composed config.

A job leaves `result.json` in its output folder, whatever becomes of it, and writes nothing to stdout: under
a launcher it may run in another process, and whoever started it reads the file.
"""

import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from pear_cli.backbone.identity import BUNDLED
from pear_cli.config.node import node, refuse_environment
from pear_cli.data.dataset import Dataset
from pear_cli.errors import ConfigError, PearError, describe
from pear_cli.experiment.experiment import GROUPS, Experiment
from pear_cli.experiment.read import read
from pear_cli.launch.work import Record, Work, checking, evaluating, performing, slots
from pear_cli.store.store import Store
from pear_cli.store.sweeps import RESULT, STOPPED, held
from pear_cli.system import signals
from pear_cli.system.streams import LOG, is_elsewhere, stderr_to, stdout_to_stderr

__all__ = ["KEEP_GOING", "ROOT", "JobFailed", "Record", "experiment_of", "slots"]

ROOT = "config"
"""Name of the root config."""

KEEP_GOING = "PEAR_KEEP_GOING"
"""Set to false in the environment, the first job of a sweep that fails stops it."""


class JobFailed(CompactHydraException):
    """A job failed; its result file has the whole error."""


class Stopped(PearError):
    """Another job of the sweep failed, and none was to continue."""


def train(cfg: DictConfig) -> float | None:
    """Train the adapters: dense, or with phase=shared after sharing."""
    return _job("train", cfg, _performing("train"))


def score(cfg: DictConfig) -> float | None:
    """Score the importance of every unit."""
    return _job("score", cfg, _performing("score"))


def prune_share(cfg: DictConfig) -> float | None:
    """Choose what is pruned and who serves in its place."""
    return _job("prune-share", cfg, _performing("prune-share"))


def checkpoint(cfg: DictConfig) -> float | None:
    """Make the knowledge checkpoint."""
    return _job("checkpoint", cfg, _performing("checkpoint"))


def evaluate(cfg: DictConfig) -> float | None:
    """Evaluate on the test set."""
    return _job("eval", cfg, _performing("eval"))


def evaluate_model(cfg: DictConfig, model: str, weights: str | None) -> float | None:
    """Evaluate the model at `model`, trained anywhere, on the dataset of the experiment.

    Args:
        model: an artifact's folder or key, or an exported file.
        weights: a file with its frozen weights, where they are elsewhere than it says.
    """
    return _job("eval", cfg, evaluating(model, weights))


def run(cfg: DictConfig) -> float | None:
    """Perform every stage of the experiment."""
    return _job("run", cfg, _performing("run"))


def audit(cfg: DictConfig) -> float | None:
    """Check the model of an experiment on noise, before it is trained."""
    return _job("audit", cfg, checking)


def experiment_of(cfg: DictConfig, launched_from: Path, words: tuple[str, ...]) -> Experiment:
    """The experiment of a composed config.

    Args:
        cfg: the root config; relative paths in it are made absolute.
        launched_from: the folder that they count from, wherever the job runs.
        words: what names the experiment to another command.

    Raises:
        ConfigError: it names the key, the value and the remedy.
    """
    _check_whole(cfg)
    refuse_environment(cfg)
    _make_absolute(cfg, launched_from)
    return read(cfg, words)


def dataset(cfg: DictConfig) -> Dataset:
    """The dataset of an experiment, the whole of which is validated."""
    return experiment_of(cfg, Path.cwd(), ()).dataset


def datasets(presets: Mapping[str, DictConfig]) -> Iterator[Dataset]:
    """The dataset of each preset; of VTAB-1k every task that is there."""
    for preset in presets.values():
        with open_dict(preset):
            preset.train_split = preset.train_split or "train800val200"
        yield from node(preset, Dataset, "dataset").tasks()  # type: ignore[type-abstract]


def _job(command: str, cfg: DictConfig, work: Work) -> float | None:
    """Carry out a command and leave its result file.

    Returns:
        What a sweeper may optimise, the accuracy on val200; None where there is none, and for a failed job of
        a sweep, which continues: the result file tells of the failure.

    Raises:
        JobFailed: whatever went wrong with a single job, in one or two lines.
    """
    hydra = HydraConfig.get()
    sweep = _sweep_folder()
    if sweep is not None and _stopped(sweep):
        return None  # it leaves no result: it was not run
    folder = Path(hydra.runtime.output_dir)
    overrides = OmegaConf.to_container(hydra.overrides.task)  # unresolved: they are text, not config
    assert isinstance(overrides, list)
    number = hydra.job.num if sweep is not None else None
    record: Record = {"command": command, "job": number, "overrides": overrides}
    if parent := multiprocessing.parent_process():  # of joblib's; other launchers end theirs
        signals.end_with(parent.pid)
    told = stderr_to(folder / LOG) if is_elsewhere() else nullcontext()
    with told, stdout_to_stderr(), held(folder):
        (folder / RESULT).unlink(missing_ok=True)
        try:
            words = (*_flags(hydra), *map(str, overrides))
            record |= _carry_out(cfg, Path(hydra.runtime.cwd), words, work)
        except Exception as error:
            message = describe(error)
            kind, trace = type(error).__name__, traceback.format_exc()
            record |= {"error": {"type": kind, "message": message, "traceback": trace}}
            if sweep is None:
                raise JobFailed(message) from error
        finally:
            if len(record) > 3:  # an interrupted job has no result
                _write(folder / RESULT, record)
    if "error" not in record:
        return record.get("objective")
    if sweep is None:  # an audit has a result all the same
        raise JobFailed(record["error"]["message"])
    if os.environ.get(KEEP_GOING) == "false":
        (sweep / STOPPED).touch()
    return None


def _performing(command: str) -> Work:
    return performing(command, _stop_if_told, lambda: Path(HydraConfig.get().runtime.output_dir))


def _sweep_folder() -> Path | None:
    """The folder of the sweep that this job is of."""
    hydra = HydraConfig.get()
    sweeping = hydra.mode == RunMode.MULTIRUN
    return Path(hydra.runtime.cwd, hydra.sweep.dir) if sweeping else None


def _stopped(sweep: Path) -> bool:
    return os.environ.get(KEEP_GOING) == "false" and (sweep / STOPPED).exists()


def _stop_if_told() -> None:
    """End a job between two stages when another one of its sweep has failed, and none is to continue."""
    sweep = _sweep_folder()
    if sweep is not None and _stopped(sweep):
        raise Stopped("stopped between two stages, since another job failed")


def _flags(hydra: Any) -> Iterator[str]:
    """What a command needs, beside overrides of the experiment, to mean the same one."""
    yield from (
        f"--config-dir={s.path}" for s in hydra.runtime.config_sources if s.provider == "command-line"
    )
    if hydra.job.config_name != ROOT:
        yield f"--config-name={hydra.job.config_name}"
    yield from (word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath="))


def _carry_out(cfg: DictConfig, launched_from: Path, words: tuple[str, ...], work: Work) -> Record:
    start = time.perf_counter()
    experiment = experiment_of(cfg, launched_from, words)
    record = work(experiment, Store(Path(experiment.runtime.store)))
    return {**record, "seconds": time.perf_counter() - start}


def _check_whole(cfg: DictConfig) -> None:
    """Refuse what Hydra lets pass: a part that was deleted, and a seed such as 00, which it reads as text."""
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
            if not path or not isinstance(path, str):  # an empty one is refused where it is read
                continue
            place = os.path.abspath(folder / Path(path).expanduser())
            bundled = (BUNDLED / f"{path}.safetensors").is_file() or not os.path.isfile(place)
            named = {"backbone.weights": bundled, "dataset.path": not os.path.isdir(place)}
            if not named.get(key, False):
                OmegaConf.update(cfg, key, place.replace("${", "\\${"))  # resolved already


def _write(path: Path, record: Record) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
