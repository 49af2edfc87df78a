"""What the processes beside the main one do: they train when it does, and wait."""

import os
import time

from pear_cli.stages.job import Task
from pear_cli.stages.train import train_beside
from pear_cli.system.streams import QUIET
from pear_cli.system.team import END, Failed, Lost, this_team

PATIENCE = 60.0  # seconds in which a launcher ends what is left of a job


def serve() -> int:
    """Carry out what the main process orders until it has no more; return the exit code."""
    os.environ[QUIET] = "1"
    os.dup2(2, 1)
    try:
        while (order := this_team().share()) != END:
            if isinstance(order, Task):  # or the end of work that has failed
                _carry_out(order)
    except Lost:
        time.sleep(PATIENCE)  # the launcher has seen who was first to end, and tells it
        return 1
    return 0


def _carry_out(task: Task) -> None:
    try:
        train_beside(task)
    except Failed:  # on all processes: the main one has the error
        return
