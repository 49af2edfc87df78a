"""A command line as several processes, which the launcher of Accelerate starts."""

import logging
import os
import signal
from collections.abc import Sequence
from typing import Any

from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from pear_cli.system import processes, progress, signals
from pear_cli.system.streams import complain
from pear_cli.system.threads import cores

FAILED, INTERRUPTED = 1, 130


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
