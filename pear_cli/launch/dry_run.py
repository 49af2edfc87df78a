"""What a command would do: its jobs composed and looked up in the store, nothing run or written."""

import json
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pear_cli.errors import ConfigError, describe
from pear_cli.experiment.estimate import estimates
from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.planning import Planned, plan, steps_of
from pear_cli.launch.composing import Flags, Job, compositions, grid, single
from pear_cli.launch.explain import explain
from pear_cli.launch.jobs import experiment_of
from pear_cli.report.terminal.stages import print_plan
from pear_cli.stages.perform import input_of
from pear_cli.store.store import Store
from pear_cli.system.progress import console
from pear_cli.system.streams import complain, until_closed

DONE, FAILED = 0, 1


def dry_run(
    command: str, flags: Flags, overrides: Sequence[str], sweeping: bool, as_json: bool, quiet: bool
) -> int:
    """Show the plan of a command: a table on stderr, with `as_json` a line a stage on stdout.

    Returns:
        The exit code: 1 where a job would fail before it starts.
    """
    experiments: dict[int, Experiment] = {}
    code = DONE
    try:
        jobs = _jobs(flags, overrides) if sweeping else (single(overrides),)
        common = set.intersection(*map(set, jobs))
        for number, (job, config) in enumerate(compositions(flags, overrides, jobs)):
            try:
                experiments[number] = experiment_of(config, Path.cwd(), (*_spelled(flags), *job))
                _check_inputs(command, experiments[number])
            except Exception as error:
                experiments.pop(number, None)
                code = FAILED
                own = " ".join(word for word in job if word not in common)
                which = f"job {number} ({own}): " if sweeping else ""
                complain(command, which + describe(error), traceback.format_exc())
    except Exception as error:
        complain(command, explain(error, overrides), traceback.format_exc())
        return FAILED
    planned = plan(command, experiments)
    seconds = estimates(planned)
    if as_json:
        with until_closed():
            for each in planned:
                print(json.dumps(_to_json(each, seconds)), flush=True)
    if planned and not quiet:
        print_plan(planned, seconds, console)
    return code


def _jobs(flags: Flags, overrides: Sequence[str]) -> tuple[Job, ...]:
    given = flags.get("--config-dir")
    if given is not None and not os.path.isdir(given):
        raise ConfigError(f"there is no folder {given}; check --config-dir")
    jobs, config = grid(flags, overrides)
    if jobs is None:
        sweeper = config.hydra.sweeper.get("_target_")
        raise ConfigError(f"{sweeper} chooses its jobs as it goes; --dry-run knows those of a grid only")
    return jobs


def _spelled(flags: Flags) -> Iterator[str]:
    return (f"{name}={flags[name]}" for name in ("--config-dir", "--config-name") if flags.get(name))


def _check_inputs(command: str, experiment: Experiment) -> None:
    """Refuse what the command itself would: a step that it has not, a stage whose input nobody has made."""
    steps = steps_of(command, experiment)
    store = Store(Path(experiment.runtime.store))
    for step in [experiment.plan[name] for name in steps] if command != "run" else []:
        if store.find(step.stage, step.key) is None:
            for role, needed in step.inputs.items():
                input_of(role, needed, experiment, store)


def _to_json(each: Planned, seconds: Mapping[Path, float | None]) -> dict[str, Any]:
    return {
        "step": each.step.name,
        "stage": each.step.stage,
        "key": each.step.key,
        "path": str(each.folder),
        "state": each.state,
        "jobs": list(each.jobs),
        "seconds": seconds.get(each.folder),
    }
