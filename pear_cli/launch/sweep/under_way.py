"""A launch under way: what Hydra's callbacks tell it, and the locks that it holds."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from pear_cli.errors import PearError, StoreError
from pear_cli.launch.sweep.ledger import Ledger
from pear_cli.launch.sweep.watching import Watch
from pear_cli.store import sweeps
from pear_cli.store.sweeps import Sweep
from pear_cli.system import progress, signals

FAILED = 1


@dataclass
class UnderWay:
    """A launch, from its start to the last job.

    Args:
        describe: says of a sweep, given its folder, what the store is to know of it.
        store: where that is kept; None keeps nothing.
        ledger: the result files of the jobs.
        sweep: the sweep that was begun, if it is one.
        refused: why it was not.
        watching: makes what shows a sweep, given the ledger; None shows nothing.
        watch: what does.
        kept: in words, what is kept of a job that was interrupted.
    """

    describe: Callable[[Path], Sweep] | None = None
    store: Path | None = None
    ledger: Ledger = field(default_factory=Ledger)
    sweep: Sweep | None = None
    refused: PearError | None = None
    watching: Callable[[Ledger], Watch] | None = None
    watch: Watch | None = None
    kept: tuple[str, ...] = ()
    locks: ExitStack = field(default_factory=ExitStack)

    def begin(self, folder: Path) -> None:
        """Mark a sweep as running, and note it in the store.

        Raises:
            StoreError: it is running already.
        """
        if self.describe is None:
            return
        sweep = self.describe(folder)
        try:
            self.locks.enter_context(sweeps.leading(sweep))
        except OSError:
            return  # Hydra cannot make the folder either, and will say so
        if self.store is None:
            return
        try:
            sweeps.note(self.store, sweep)
            self.sweep = sweep
        except StoreError as error:  # a sweep of what is all there needs no store that can be written
            progress.say(f"{error}; pear sweeps will not list this one")

    def show(self) -> None:
        """Show the sweep that has begun, until the launch ends."""
        if self.watching is not None and self.ledger.can_be_written:
            self.watch = self.watching(self.ledger)
            self.locks.enter_context(self.watch.over())

    def look(self) -> None:
        """Tell of jobs that have begun or ended in this process."""
        if self.watch is not None and self.watch.here:
            self.watch.look()


_current: ContextVar[UnderWay | None] = ContextVar("launch", default=None)


@contextmanager
def current(launch: UnderWay) -> Iterator[None]:
    """Let the callbacks know of a launch, and release its locks at the end."""
    token = _current.set(launch)
    try:
        with launch.locks:
            yield
    finally:
        _current.reset(token)


class Folders(Callback):
    """Tells the launch where Hydra puts the output; the root config names this class."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if (launch := _current.get()) is not None:
            launch.ledger.open(config.hydra.run.dir, sweep=False)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if (launch := _current.get()) is None:
            return
        try:
            launch.begin(Path(config.hydra.sweep.dir).absolute())
        except PearError as error:  # Hydra makes warnings of what callbacks raise, but for exits
            launch.refused = error
            raise SystemExit(FAILED) from error
        launch.ledger.open(config.hydra.sweep.dir, sweep=True)
        if settings := config.hydra.launcher.get("ray"):
            _start_ray(settings.init)
        launch.show()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if (launch := _current.get()) is not None:
            launch.look()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """End a sweep in this process when a job has failed and none is to continue."""
        if (launch := _current.get()) is None:
            return
        launch.look()
        if launch.ledger.stopped:
            raise SystemExit(FAILED)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """End the launch here when its one job failed: Hydra would print the overrides."""
        job = kwargs["job_return"]
        if _current.get() is not None and job.status.name == "FAILED":
            raise SystemExit(FAILED)


def _start_ray(settings: DictConfig) -> None:
    """Start Ray before its launcher does, for it puts a handler of its own in the place of pear's."""
    from hydra_plugins.hydra_ray_launcher._core import start_ray

    with open_dict(settings):
        settings.setdefault("object_store_memory", 78643200)  # as the launcher has it
    start_ray(settings)
    signals.install()


def end_ray() -> None:
    """End the processes of Ray, where it was started."""
    if "ray" in sys.modules:
        with suppress(Exception):
            sys.modules["ray"].shutdown()
