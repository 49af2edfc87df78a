"""Where and how fast an experiment runs."""

import re
from dataclasses import dataclass

from pear_cli.config.choices import Precision, Tracker
from pear_cli.config.settings import require
from pear_cli.errors import ConfigError

DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]+)?")


@dataclass(frozen=True)
class Runtime:
    """Where and how fast; nothing here but `precision` enters a key.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`; whether it is there is known when it is used.
        precision: of the forward pass; adapters and optimizer stay in float32.
        threads: CPU threads, at least 1; null takes torch's own choice.
        workers: processes that decode ahead where decoded images are not kept (`dataset.cache=none`), at
            least 0; 0 takes threads.
        store: folder of the artifacts; a relative one counts from where pear was started.
        processes: that train together, at least 1; null: as many as `accelerate launch` has started, or 1.
        tracker: who else is told the metrics of every epoch.
    """

    device: str
    precision: Precision
    threads: int | None
    workers: int
    store: str
    processes: int | None
    tracker: Tracker

    def __post_init__(self) -> None:
        if not DEVICE.fullmatch(self.device):
            raise ConfigError(
                f'runtime.device = "{self.device}" is unknown; use auto, cpu, cuda, cuda:N or mps'
            )
        require(self.threads is None or self.threads >= 1, "runtime.threads", self.threads, "at least 1")
        require(self.workers >= 0, "runtime.workers", self.workers, "at least 0")
        known = self.processes is None or self.processes >= 1
        require(known, "runtime.processes", self.processes, "at least 1")
