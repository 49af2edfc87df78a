"""What a sweep has still to do: its stages, each once, and about how long they take."""

import threading
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

from pear_cli.errors import ConfigError, StoreError
from pear_cli.experiment.estimate import estimates
from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.planning import THERE, Planned, plan
from pear_cli.launch.composing import Flags, Job, compositions
from pear_cli.launch.jobs import experiment_of
from pear_cli.store.artifact import MANIFEST, Artifact

PATIENCE = 3.0
"""Seconds that a sweep may wait for its outlook; one that takes longer goes without."""

AGAIN = 10.0
"""Seconds before times that the store did not know are looked for once more."""


def planned(command: str, flags: Flags, overrides: Sequence[str], jobs: Sequence[Job]) -> list[Planned]:
    """The stages of the jobs that can be planned; none where that takes too long, or data are missing."""
    start = time.monotonic()
    experiments: dict[int, Experiment] = {}
    try:
        for number, (_, config) in enumerate(compositions(flags, overrides, jobs)):
            try:
                experiments[number] = experiment_of(config, Path.cwd(), ())
                _ = experiments[number].plan
            except ConfigError:  # the job says so itself
                experiments.pop(number, None)
            if time.monotonic() - start > PATIENCE:
                return []
        return plan(command, experiments)
    except Exception:  # whatever it is, the jobs say so themselves
        return []


class Outlook:
    """What is missing of the stages of a sweep.

    Args:
        stages: all that its jobs need, each once.
    """

    def __init__(self, stages: Sequence[Planned]) -> None:
        self.stages = list(stages)
        self.missing = [stage for stage in stages if stage.state != THERE]
        self.there = len(stages) - len(self.missing)
        self.seconds: dict[Path, float | None] = estimates(self.missing)
        self.expected = self.spent = 0.0
        self._one = threading.Lock()  # the board asks in a thread of its own
        self.since = self.asked = time.monotonic()

    def look(self, ended: AbstractSet[int]) -> None:
        """Leave out the stages that are there by now, and those of jobs that have ended all the same."""
        with self._one:
            self._look(ended)

    def _look(self, ended: AbstractSet[int]) -> None:
        now = time.monotonic()
        left = [
            stage
            for stage in self.missing
            if not (stage.folder / MANIFEST).is_file() and not set(stage.jobs) <= ended
        ]
        if len(left) == len(self.missing):
            return
        for stage in self.missing:
            if stage not in left:
                self._compare(stage)
        self.missing, self.since = left, now
        if now - self.asked > AGAIN and any(self.seconds[stage.folder] is None for stage in left):
            self.seconds, self.asked = estimates(left), now

    def left(self, together: int) -> float | None:
        """Seconds to the end; None where the store has no stages like those missing, or it is overdue.

        Args:
            together: how many jobs work side by side.
        """
        with self._one:
            times = [self.seconds[stage.folder] for stage in self.missing]
        known = [seconds for seconds in times if seconds is not None]
        if not self.stages or len(known) < len(times):
            return None
        pace = self.spent / self.expected if self.expected > 1 else 1.0
        if not times:
            return 0.0
        left = sum(known) * pace / max(1, together) - (time.monotonic() - self.since)
        return left if left > 0 else None

    def _compare(self, stage: Planned) -> None:
        """Learn from a stage that is done how far such times are off."""
        expected = self.seconds[stage.folder]
        with suppress(StoreError):  # it was not made, or is gone again
            seconds = Artifact.at(stage.folder).manifest["seconds"]
            if expected is not None:
                self.expected, self.spent = self.expected + expected, self.spent + seconds
