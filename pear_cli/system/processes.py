"""The processes of one job: the first is an ordinary pear, the others train beside it when it asks them to.

`accelerate launch` starts them and numbers them in their environment. Only the main process reads a command
line, writes, prints and holds locks; so what a job leaves does not depend on their number.
"""

import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from pear_cli.errors import ConfigError

NUMBERED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
"""What a launcher sets for each process; torch.distributed reads it too."""

SIGNALS = "TORCHELASTIC_SIGNALS_TO_HANDLE"
"""Which signals torch's launcher takes from the process that it runs in: none where that is pear."""


def launched() -> bool:
    """Whether a launcher has started this process with others."""
    return all(name in os.environ for name in NUMBERED) and os.environ["WORLD_SIZE"] != "1"


def launched_by_pear() -> bool:
    """Whether that launcher is a pear: TERM then means that another process has ended, INT interruption."""
    return launched() and os.environ.get(SIGNALS) == ""


def size() -> int:
    """How many processes the job has, on all machines."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def is_main() -> bool:
    """Whether this process is the one that reads the command line."""
    return not launched() or os.environ["RANK"] == "0"


def leave(code: int) -> NoReturn:
    """End one of several processes at once: threads of torch's may abort one that Python takes down."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # its reader may be gone
            stream.flush()
    os._exit(code)


def accelerate() -> Any:
    """The library, which is an extra.

    Raises:
        ConfigError: it is not there; the message has the command that installs it.
    """
    try:
        return import_module("accelerate")
    except ImportError:
        raise ConfigError(
            "several processes need accelerate; install it: pip install 'pear-cli[accelerate]'"
        ) from None
