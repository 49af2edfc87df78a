"""A sweep before it starts: its jobs, what it cannot do, the threads of its jobs, its line in the book."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pear_cli.config.choices import Select
from pear_cli.errors import ConfigError
from pear_cli.launch.composing import Flags, Job, grid
from pear_cli.launch.sweep.ledger import Ledger
from pear_cli.launch.sweep.outlook import Outlook, planned
from pear_cli.launch.sweep.watching import Watch
from pear_cli.store.sweeps import STORED, Sweep

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"

MEASURED = ("run", "train", "eval")
"""Commands whose jobs measure what a sweeper may optimise."""


GPUS = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""One of these exists where there is a GPU: NVIDIA's, AMD's, or that of Windows seen from Linux."""

SETS = ("experiment=", "benchmark=")
"""Begin the choice of presets that may make a sweep of any command, as the tasks of a benchmark do."""


def is_multirun(flags: Flags, overrides: Sequence[str]) -> bool:
    """Whether a command line asks for a sweep, by its words or by a preset that it takes."""
    if "--multirun" in flags or "hydra.mode=MULTIRUN" in overrides:
        return True
    if not any(word.lstrip("+").startswith(SETS) for word in overrides):
        return False
    try:
        return bool(grid(flags, overrides)[1].hydra.mode == RunMode.MULTIRUN)
    except (HydraException, OmegaConfBaseException, ConfigError, ValueError):  # Hydra will say so
        return False


@dataclass(frozen=True)
class Multirun:
    """The jobs of a sweep.

    Args:
        command: what each of them carries out.
        jobs: the overrides of each; None where a sweeper chooses them as it goes.
        config: of the first job, with Hydra's own part.
    """

    command: str
    jobs: tuple[Job, ...] | None
    config: DictConfig

    @classmethod
    def of(cls, command: str, flags: Flags, overrides: Sequence[str]) -> "Multirun | None":
        """Look ahead at a sweep; None where it does not compose, which Hydra will say."""
        try:
            return cls(command, *grid(flags, overrides))
        except (HydraException, OmegaConfBaseException, ConfigError, ValueError):
            return None

    def check(self) -> None:
        """Refuse a sweep that would never end, or whose sweeper has nothing to go by, before any job runs.

        Raises:
            ConfigError: jobs that would wait for a GPU for ever, or a sweeper whose jobs do not measure
                accuracy on val200; the test set is never optimised.
        """
        wanted = OmegaConf.select(self.config, "hydra.launcher.ray.remote.num_gpus") or 0
        alone = not OmegaConf.select(self.config, "hydra.launcher.ray.init.address")
        if wanted and alone and not any(Path(device).exists() for device in GPUS):
            raise ConfigError(
                f"hydra.launcher.ray.remote.num_gpus = {wanted}: this machine has no GPU, and Ray would wait "
                "for one for ever; use hydra.launcher.ray.remote.num_gpus=0"
            )
        if self.jobs is not None:
            return
        if self.command not in MEASURED:
            raise ConfigError(
                f"pear {self.command} measures nothing that a sweeper could optimise; use pear run"
            )
        if self.config.get("select") != Select.val.value:
            raise ConfigError(
                f"select = {self.config.get('select')}: a sweeper optimises the accuracy on val200, never "
                "that on the test set; add select=val"
            )

    @property
    def size(self) -> int | None:
        """Number of jobs, where it is known."""
        return self.config.hydra.sweeper.get("n_trials") if self.jobs is None else len(self.jobs)

    @property
    def here(self) -> bool:
        """Whether the jobs run in this process, one after another."""
        return bool(self.config.hydra.launcher.get("_target_") == BASIC_LAUNCHER)

    def outlook(self, flags: Flags, overrides: Sequence[str]) -> Outlook:
        """What there is to compute; nothing where that is not known yet."""
        known = self.command in STORED and self.jobs is not None
        return Outlook(planned(self.command, flags, overrides, self.jobs or ()) if known else [])

    def watch(self, outlook: Outlook, ledger: Ledger) -> Watch:
        """What shows the sweep."""
        return Watch(ledger, self.jobs, self.size, outlook, self.here)

    def threads(self) -> int | None:
        """Threads for each job where several share the cores of this machine; None to leave them alone."""
        launcher = self.config.hydra.launcher
        if launcher.get("_target_") != JOBLIB or OmegaConf.select(self.config, "runtime.threads") is not None:
            return None
        from joblib import cpu_count, effective_n_jobs

        together = min(effective_n_jobs(launcher.n_jobs), self.size or launcher.n_jobs)
        return max(1, cpu_count() // together) if together > 1 else None

    def with_override(self, more: Sequence[str]) -> "Multirun":
        """The same sweep with further overrides for all of its jobs."""
        return self if self.jobs is None else replace(self, jobs=tuple((*job, *more) for job in self.jobs))

    def sweep(self, words: Sequence[str], keep_going: bool, folder: Path) -> Sweep:
        """What the book of the store says of it.

        Args:
            words: the command line as it was typed.
            keep_going: whether the other jobs run when one fails.
            folder: its output folder.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        cwd = str(Path.cwd())
        return Sweep(
            self.command, tuple(words), keep_going, cwd, str(folder), self.jobs, self.size, started=now
        )

    @property
    def store(self) -> Path | None:
        """The store of its first job; None for a command that leaves nothing there."""
        root = Path(str(self.config.runtime.store)).expanduser()
        return Path.cwd() / root if self.command in STORED else None
