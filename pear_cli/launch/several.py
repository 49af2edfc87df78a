"""One launch as several processes: `accelerate launch` with the same command line."""

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from pear_cli.errors import ConfigError, PearError
from pear_cli.experiment.planning import THERE, plan
from pear_cli.launch.composing import Flags, Job, compositions, grid, single
from pear_cli.launch.jobs import experiment_of
from pear_cli.launch.sweep.multirun import Multirun
from pear_cli.system import processes

TRAINING = ("run", "train")
"""Commands that several processes speed up; all that the others do is for a single one."""

ELSEWHERE = ("--config-dir", "--config-name")
"""Flags that bring presets which may ask for several processes."""

BASIC = f"{BasicLauncher.__module__}.{BasicLauncher.__qualname__}"


def wanted(command: str, flags: Flags, overrides: Sequence[str], multirun: Multirun | None) -> int:
    """How many processes a launch needs; 1 where this one is enough, or is to say what is wrong.

    It is enough where `runtime.processes` is null or 1, where others have been started with it already, and
    where nothing is left to train.

    Raises:
        ConfigError: several processes are asked for in a way that cannot work.
    """
    launched = processes.launched()
    quick = not any("runtime" in word or "searchpath" in word for word in overrides)
    if launched and multirun is None:
        return 1
    if not launched and (command not in TRAINING or (quick and not set(ELSEWHERE) & set(flags))):
        return 1
    jobs: Sequence[Job] | None
    try:
        if multirun is not None:
            jobs, config = multirun.jobs, multirun.config
        else:
            jobs, config = (single(overrides),), grid(flags, overrides)[1]
        asked, device = config.runtime.processes, str(config.runtime.device)
    except (HydraException, OmegaConfBaseException, PearError, ValueError):
        return 1
    several = isinstance(asked, int) and asked > 1
    launcher = str(config.hydra.launcher.get("_target_"))
    if multirun is not None and launcher != BASIC and (launched or several):
        what = "accelerate launch" if launched else f"runtime.processes = {asked}"
        raise ConfigError(
            f"{what} does not go with {launcher.rpartition('.')[2]}, which runs each job as a process of its "
            "own; leave out one of them, or start every job of the sweep by itself"
        )
    if launched or not several or not _is_training_left(command, flags, overrides, jobs):
        return 1
    processes.accelerate()
    from pear_cli.training import devices

    devices.check(devices.chosen(device), asked)
    return int(asked)


def _is_training_left(
    command: str, flags: Flags, overrides: Sequence[str], jobs: Sequence[Job] | None
) -> bool:
    """Whether any job has a training that is not in the store; what is wrong with one, it says itself."""
    if jobs is None:
        return True
    for _, config in compositions(flags, overrides, jobs):
        try:
            planned = plan(command, {0: experiment_of(config, Path.cwd(), ())})
        except (HydraException, OmegaConfBaseException, PearError):
            continue
        if any(each.step.stage == "train" and each.state != THERE for each in planned):
            return True
    return False
