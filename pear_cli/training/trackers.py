"""Trackers: TensorBoard and others are told the metrics of every epoch, through Accelerate.

They are spectators: one that fails, for want of a network or of anything else, is left out with a warning,
and the training continues.
"""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pear_cli.config.choices import Tracker
from pear_cli.errors import ConfigError
from pear_cli.store.canonical import dotted
from pear_cli.system import processes, progress

PROJECT = "pear"
"""What trackers that have projects file their runs under."""


def check(tracker: Tracker) -> None:
    """Refuse a tracker whose packages are not there, before any work.

    Raises:
        ConfigError: it has the command that installs them.
    """
    packages = () if tracker is Tracker.none else ("accelerate", tracker.value)
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"runtime.tracker = {tracker.value} needs {' and '.join(missing)}; install it: "
            f"pip install 'pear-cli[{tracker.value}]'"
        )


class Listener:
    """One training as a tracker follows it; here there is none.

    Args:
        tracker: Accelerate's, started; None where there is nobody to tell.
    """

    def __init__(self, name: str, tracker: Any = None) -> None:
        self.name, self.tracker = name, tracker

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """Tell the metrics of an epoch, counted from 1."""
        self._tell(lambda tracker: tracker.log(dict(values), step=epoch))

    def finish(self) -> None:
        """Tell that it is over."""
        self._tell(lambda tracker: tracker.finish())

    def _tell(self, what: Callable[[Any], None]) -> None:
        if self.tracker is None:
            return
        try:
            what(self.tracker)
        except Exception as error:  # whatever a tracker does, the training is worth more
            self.tracker = None
            _warn(self.name, error)


@contextmanager
def following(
    kind: Tracker, folder: Path | None, name: str, settings: Mapping[str, Any]
) -> Iterator[Listener]:
    """Let a tracker follow a training while the block runs.

    Args:
        kind: which one.
        folder: for its files, but for those of Trackio, which has a place of its own; None for no tracker.
        name: of the training.
        settings: nested, what the training depends on.
    """
    listener = Listener(kind.value)
    if kind is not Tracker.none and folder is not None:
        try:
            listener.tracker = _started(kind, folder, name, _plain(settings))
        except Exception as error:
            _warn(kind.value, error)
    try:
        yield listener
    finally:
        listener.finish()


def _started(kind: Tracker, folder: Path, name: str, settings: dict[str, Any]) -> Any:
    if processes.size() == 1:
        processes.accelerate().PartialState(cpu=True)  # its logging asks for it; the device is ours
    tracking: Any = import_module("accelerate.tracking")
    if kind is Tracker.tensorboard:
        tracker = tracking.TensorBoardTracker(name, folder / "tensorboard")
    elif kind is Tracker.wandb:
        offline = {} if _may_go_online() else {"mode": "offline"}
        tracker = tracking.WandBTracker(PROJECT, name=name, dir=str(folder), **offline)
    elif kind is Tracker.mlflow:
        if "MLFLOW_TRACKING_URI" not in os.environ:
            import_module("mlflow").set_tracking_uri(f"sqlite:///{folder.absolute()}/mlflow.db")
        tracker = tracking.MLflowTracker(PROJECT, (folder / "mlflow").absolute().as_uri(), run_name=name)
    else:
        tracker = tracking.TrackioTracker(PROJECT, name=name)
    tracker.main_process_only = False  # it is the main process that speaks: no other one has a tracker
    tracker.start()
    tracker.store_init_configuration(settings)
    return tracker


def _may_go_online() -> bool:
    """Whether runs can go to the server: a key is there, and the server within reach; or the user decides."""
    if "WANDB_MODE" in os.environ:
        return True
    server = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    try:
        known = "WANDB_API_KEY" in os.environ or netrc().authenticators(server.hostname or "") is not None
    except (OSError, NetrcParseError):
        known = False
    if not known:
        return False
    try:
        socket.create_connection((server.hostname, server.port or 443), timeout=3).close()
    except OSError:
        return False
    return True


def _plain(settings: Mapping[str, Any]) -> dict[str, str | int | float]:
    """What trackers can hold, by dotted name."""
    return {
        name: value if isinstance(value, str | int | float) else str(value)
        for name, value in dotted(settings)
    }


def _warn(name: str, error: Exception) -> None:
    first = next(iter(str(error).strip().splitlines()), "")
    progress.say(
        f"warning: runtime.tracker = {name} fails ({type(error).__name__}: {first}); "
        "training continues without it"
    )
