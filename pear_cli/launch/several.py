"""One launch as several processes: `accelerate launch` with the same command line."""

import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from pear_cli.errors import ConfigError, PearError
from pear_cli.experiment.planning import THERE, plan
from pear_cli.launch.composing import Flags, Job, compositions, grid, single
from pear_cli.launch.jobs import experiment_of
from pear_cli.launch.sweep.multirun import Multirun
from pear_cli.system import processes, progress, signals
from pear_cli.system.streams import complain
from pear_cli.system.threads import cores

TRAINING = ("run", "train")
"""Commands that several processes speed up; all that the others do is for a single one."""

ELSEWHERE = ("--config-dir", "--config-name")
"""Flags that bring presets which may ask for several processes."""

BASIC = f"{BasicLauncher.__module__}.{BasicLauncher.__qualname__}"
FAILED, INTERRUPTED = 1, 130


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


def start(command: str, words: Sequence[str], count: int, quiet: bool) -> int:
    """Start a command line as several processes, and wait for them.

    The main one reads it, prints the results and tells of errors; this one only tells of what that cannot
    tell: that a process was killed.

    Args:
        command: its name, for messages.
        words: the command line, whole.
        count: how many processes.
        quiet: nothing but errors on stderr.

    Returns:
        The exit code of the main process.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, cores() // count))
    if not quiet:
        progress.say(f"{count} processes, with {threads} thread{'s' if threads > 1 else ''} each")
    logging.disable(logging.CRITICAL)  # the launchers' own words about children that fail
    try:
        _accelerate_launch(count, threads, words)
    except ChildFailedError as error:
        return _tell(command, {rank: each.exitcode for rank, each in error.failures.items()}, count)
    except SignalException as error:
        signals.note(error.sigval)
        return INTERRUPTED  # the main process has said so
    except KeyboardInterrupt:
        complain(command, "interrupted before it began; the same command begins again")
        return INTERRUPTED
    finally:
        logging.disable(logging.NOTSET)
    return 0


def _accelerate_launch(count: int, threads: int, words: Sequence[str]) -> None:
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException

    settings: dict[str, Any] = {
        "num_processes": count,
        "num_machines": 1,
        "num_cpu_threads_per_process": threads,
        "main_process_port": 0,  # any that is free
        "gpu_ids": "all",
        "mixed_precision": "no",  # runtime.precision decides
        "dynamo_backend": "no",
    }
    given = [f"--{name}={value}" for name, value in settings.items()]
    # The launcher that `--multi_gpu` names starts processes on a CPU just as well.
    parsed = launch_command_parser().parse_args([*given, "--multi_gpu", "--module", "pear_cli"])
    parsed.training_script_args = list(words)
    parsed.signals_to_handle = os.environ[processes.SIGNALS] = ""
    signals.raising(
        lambda: SignalException("told to end", signal.SIGINT)
    )  # torch passes INT on to the processes
    launch_command(parsed)


def _tell(command: str, codes: dict[int, int], count: int) -> int:
    """Say who was first to end, unless the main process has said what went wrong; return the exit code."""
    main = codes.get(0, 0)
    if main > 0:
        return main
    rank = next((r for r, code in codes.items() if code != -signal.SIGTERM), next(iter(codes)))
    code = codes[rank]
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    complain(
        command,
        f"process {rank} of {count} {how}; what is finished is kept, the same command resumes from there",
    )
    return FAILED
