"""The bridge from the command line to Hydra: words in, jobs run, results on stdout, an exit code."""

import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from pear_cli.config import config_dir
from pear_cli.errors import ConfigError
from pear_cli.flags import FLAGS, UsageError, reorder, spelled
from pear_cli.hydra_app.completion import complete, searched
from pear_cli.hydra_app.explain import explain
from pear_cli.hydra_app.ledger import Ledger
from pear_cli.hydra_app.results import complain, report
from pear_cli.jobs import ROOT, JobFailed
from pear_cli.streams import QUIET, stdout_to_stderr, until_closed

__all__ = ["Folders", "complete", "composed", "launch", "presets"]

Task = Callable[[DictConfig], float | None]

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
LOGGING = ("hydra/hydra_logging", "hydra/job_logging")

_ledger: ContextVar[Ledger | None] = ContextVar("ledger", default=None)


class Folders(Callback):
    """Tells the launch where Hydra puts the output; the root config names this class."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if (ledger := _ledger.get()) is not None:
            ledger.open(config.hydra.run.dir, sweep=False)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if (ledger := _ledger.get()) is not None:
            ledger.open(config.hydra.sweep.dir, sweep=True)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """End the launch here when its one job failed: Hydra would go on to print the overrides."""
        job = kwargs["job_return"]
        if _ledger.get() is not None and job.status.name == "FAILED":
            raise SystemExit(FAILED)


def launch(command: str, task: Task, words: Sequence[str], as_json: bool = False, quiet: bool = False) -> int:
    """Run a command's jobs and print one line a job.

    Args:
        command: its name, for messages.
        task: a function of one composed config, at the top level of a module.
        words: overrides and flags as they were typed.
        as_json: print each job's whole result instead of its artifact's folder.
        quiet: nothing but errors on stderr.

    Returns:
        The exit code: 0 done, 1 a job failed or the config is wrong, 2 usage, 130 interrupted.
    """
    try:
        flags, overrides = reorder(words)
    except UsageError as error:
        complain(command, str(error))
        return USAGE
    quiet = quiet or os.environ.get(QUIET) == "1"
    shows = any(FLAGS[name].shows for name in flags)
    overrides = _open(overrides)
    unset = [group for group in LOGGING if not any(word.startswith(f"{group}=") for word in overrides)]
    silent = [f"{group}=none" for group in unset] if quiet and not shows else []
    argv = ["pear", *spelled(flags), *silent, *overrides]
    ledger = Ledger()
    token = _ledger.set(ledger)
    code = DONE
    try:
        with _shown_whole() if shows else stdout_to_stderr(), _as_hydra(argv, {QUIET: "1"} if quiet else {}):
            hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=ROOT)(task)()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else FAILED if end.code else DONE
    except JobFailed:
        code = FAILED
    except Exception as error:
        code = USAGE if isinstance(error, OverrideParseException) else FAILED
        complain(command, ledger.refusal(error) or explain(error, overrides), traceback.format_exc())
    finally:
        _ledger.reset(token)
    records = ledger.records(complete=code != INTERRUPTED)
    report(command, records, as_json, quiet)
    if code == INTERRUPTED:
        complain(command, "interrupted; what is finished is kept, the same command goes on from there")
    return FAILED if code == DONE and any("error" in record for record in records) else code


def composed(words: Sequence[str], further: Path | None = None) -> DictConfig:
    """The root config with overrides, for commands that run no job.

    Args:
        words: overrides.
        further: a folder with further presets.

    Raises:
        ConfigError: it does not compose.
    """
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
            return hydra.compose(ROOT, [*searched(further), *_open(words)])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(explain(error, words)) from error


def presets(group: str, further: Path | None = None) -> dict[str, DictConfig]:
    """The presets of a group by name, each as its node in the root.

    Args:
        further: a folder with further presets, which go first.
    """
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        names = GlobalHydra.instance().config_loader().get_group_options(group, overrides=searched(further))
        return {name: hydra.compose(f"{group}/{name}", searched(further))[group] for name in names}


def _open(words: Iterable[str]) -> list[str]:
    """Let `backbone.args` and `dataset.args` have keys that no preset has: they take whatever timm takes."""
    return [re.sub(r"^(?=(backbone|dataset)\.args[.=])", "++", word) for word in words]


@contextmanager
def _shown_whole() -> Iterator[None]:
    """Print what Hydra shows at once: it logs line by line, and would log an error for each unread one."""
    shown = io.StringIO()
    try:
        with redirect_stdout(shown):
            yield
    finally:
        with until_closed():
            print(shown.getvalue(), end="")


@contextmanager
def _as_hydra(argv: list[str], environment: Mapping[str, str]) -> Iterator[None]:
    """Set what Hydra reads from the process: its arguments, and that exceptions are ours to tell."""
    changes = {"HYDRA_FULL_ERROR": "1", **environment}
    kept_argv, kept = sys.argv, {name: os.environ.get(name) for name in changes}
    sys.argv = argv
    os.environ.update(changes)
    try:
        yield
    finally:
        sys.argv = kept_argv
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
