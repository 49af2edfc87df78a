"""A job's way through its stages: which are done, which is under way, and about how long the rest takes."""

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from pear_cli.errors import PearError
from pear_cli.experiment.estimate import estimates
from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.planning import plan
from pear_cli.stages.perform import Outcome
from pear_cli.store.store import Store
from pear_cli.system.progress.rows import duration


class Course:
    """The stages of one job.

    Args:
        experiment: the validated root config.
        steps: names of the steps that the job performs, in order.
        store: where their artifacts are.
        alone: no sweep tells how long all takes.
    """

    def __init__(self, experiment: Experiment, steps: Sequence[str], store: Store, alone: bool) -> None:
        self.experiment, self.steps, self.store, self.alone = experiment, tuple(steps), store, alone
        self.done: dict[str, Outcome] = {}
        self.now, self.since = self.steps[0], time.monotonic()

    def begin(self, name: str) -> None:
        """Note that a step is under way."""
        self.now, self.since = name, time.monotonic()

    def tell(self) -> str:
        """The stage that is under way, and what is known of the others."""
        reused = sum(outcome.reused for outcome in self.done.values())
        words = [f"stage {self.steps.index(self.now) + 1} of {len(self.steps)}"]
        words += [f"{reused} reused"] if reused else []
        left = self._left()
        words += [] if left is None else [f"about {duration(left)} left"]
        return ", ".join(words)

    def _left(self) -> float | None:
        """Seconds, None where the store has no stages like those that are to come."""
        if not self.alone or not self._seconds:
            return None
        rest = self.steps[self.steps.index(self.now) :]
        times = [self._seconds.get(self._folder(name), 0.0) for name in rest]
        if any(seconds is None for seconds in times):
            return None
        first, *others = (seconds or 0.0 for seconds in times)
        return max(0.0, first - (time.monotonic() - self.since)) + sum(others)

    @cached_property
    def _seconds(self) -> Mapping[Path, float | None]:
        """What each stage that is not there may take, judged by past ones; read when first asked for."""
        try:
            return estimates(plan("run", {0: self.experiment}))
        except PearError:  # what the stages meet too, and tell
            return {}

    def _folder(self, name: str) -> Path:
        step = self.experiment.plan[name]
        return self.store.path(step.stage, step.key)
