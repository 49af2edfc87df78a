"""The bridge from the command line to Hydra: words in, jobs run, results on stdout, an exit code."""

import io
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import OverrideParseException
from omegaconf import DictConfig

from pear_cli.config.presets import config_dir
from pear_cli.errors import ConfigError
from pear_cli.launch import several
from pear_cli.launch.completion import complete, searched
from pear_cli.launch.composing import check_size, composed, opened
from pear_cli.launch.explain import explain
from pear_cli.launch.flags import FLAGS, UsageError, reorder, spelled
from pear_cli.launch.guard import guarded
from pear_cli.launch.jobs import KEEP_GOING, ROOT, JobFailed
from pear_cli.launch.sweep.multirun import Multirun, is_multirun
from pear_cli.launch.sweep.under_way import FAILED, Folders, UnderWay, current, end_ray
from pear_cli.launch.work import Record
from pear_cli.store import gc
from pear_cli.store.store import Store
from pear_cli.system import progress
from pear_cli.system.streams import PARENT, QUIET, complain, stdout_to_stderr, this_process, until_closed

__all__ = ["Asked", "Folders", "complete", "composed", "launch", "presets"]

Task = Callable[[DictConfig], float | None]

DONE, USAGE, INTERRUPTED = 0, 2, 130
LOGGING = ("hydra/hydra_logging", "hydra/job_logging")


@dataclass(frozen=True)
class Asked:
    """What pear's own options ask of a launch.

    Args:
        as_json: print each job's whole result instead of its artifact's folder.
        quiet: nothing but errors on stderr.
        dry_run: say what would be done, and do nothing.
        keep_going: the other jobs of a sweep run when one fails.
        typed: overrides that the user has typed, where not all of the words are; see `guard`.
    """

    as_json: bool = False
    quiet: bool = False
    dry_run: bool = False
    keep_going: bool = True
    typed: tuple[str, ...] | None = None

    @property
    def words(self) -> list[str]:
        """The options as words again."""
        asked = {"--json": self.as_json, "--quiet": self.quiet, "--keep-going=false": not self.keep_going}
        return [word for word, wanted in asked.items() if wanted]


def launch(command: str, task: Task, words: Sequence[str], asked: Asked | None = None) -> int:
    """Run a command's jobs and print one line a job.

    Args:
        command: its name, for messages.
        task: a function of one composed config, at the top level of a module.
        words: overrides and flags as they were typed.
        asked: what pear's own options ask for.

    Returns:
        The exit code: 0 done, 1 a job failed or the config is wrong, 2 usage, 130 interrupted.
    """
    try:
        flags, overrides = reorder(words)
    except UsageError as error:
        complain(command, str(error))
        return USAGE
    asked = asked or Asked()
    asked = replace(asked, quiet=asked.quiet or os.environ.get(QUIET) == "1")
    overrides = opened(overrides)
    with guarded(overrides if asked.typed is None else asked.typed):
        return _launch(command, task, words, flags, overrides, asked)


def _check_folder() -> None:
    """Refuse a folder that Hydra would take for another one: it resolves what stands in its paths.

    Raises:
        ConfigError: it names the folder.
    """
    here = str(Path.cwd())
    if "${" in here:
        raise ConfigError(
            f"pear was started in {here}, whose name Hydra would take for an interpolation (${{…}}); "
            "start it in another folder, or rename this one"
        )


def _launch(
    command: str,
    task: Task,
    words: Sequence[str],
    flags: Mapping[str, str | None],
    overrides: list[str],
    asked: Asked,
) -> int:
    try:
        _check_folder()
        check_size(overrides)
    except ConfigError as error:
        complain(command, str(error))
        return FAILED
    shows = any(FLAGS[name].shows for name in flags)
    sweeping = not shows and is_multirun(flags, overrides)
    if asked.dry_run and not shows:
        from pear_cli.launch.dry_run import dry_run

        return dry_run(command, flags, overrides, sweeping, asked.as_json, asked.quiet)
    multirun = Multirun.of(command, flags, overrides) if sweeping else None
    under_way = UnderWay()
    try:
        if multirun is not None:
            multirun.check()
        count = 1 if shows else several.wanted(command, flags, overrides, multirun)
    except ConfigError as error:
        complain(command, str(error))
        return FAILED
    if count > 1:
        from pear_cli.launch import accelerated

        return accelerated.start(command, [command, *words, *asked.words], count, asked.quiet)
    if multirun is not None:
        overrides += (shared := _share_of_cores(multirun, asked.quiet))
        multirun = multirun.with_override(shared)
        under_way = UnderWay(partial(multirun.sweep, words, asked.keep_going), multirun.store)
        if not asked.quiet:
            under_way.watching = partial(multirun.watch, multirun.outlook(flags, overrides))
    silent = _silent(overrides) if asked.quiet and not shows else []
    argv = ["pear", *spelled(flags), *silent, *overrides]
    environment = {QUIET: "1"} if asked.quiet else {}
    environment |= {} if asked.keep_going else {KEEP_GOING: "false"}
    environment |= {PARENT: this_process()} if multirun is not None and not multirun.here else {}
    if asked.typed is not None:  # the folder is not the user's choice: its files are not for Python to import
        environment |= {"PYTHONSAFEPATH": "1"}
    with _shown_whole() if shows else stdout_to_stderr(), current(under_way), _as_hydra(argv, environment):
        code = _carry_out(command, task, overrides, under_way)
    if under_way.refused is not None:
        complain(command, str(under_way.refused))
        return FAILED
    jobs = multirun.jobs if multirun is not None else None
    records = under_way.ledger.records(jobs or (), complete=code != INTERRUPTED)
    if records:
        from pear_cli.launch.results import report

        report(command, records, sweeping, asked.as_json, asked.quiet)
    if code == INTERRUPTED:
        if multirun is not None and not multirun.here and multirun.store is not None:
            gc.remove_leftovers(Store(multirun.store))  # of processes that its launcher has killed
        complain(command, _interrupted(under_way, records))
    elif code == DONE and any("error" in record for record in records):
        code = FAILED
    if code == FAILED and under_way.sweep is not None and records and not asked.quiet:
        progress.say(f"to resume what is missing: {_resuming(under_way)}", whole=True)
    return code


def _carry_out(command: str, task: Task, overrides: Sequence[str], under_way: UnderWay) -> int:
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=ROOT)(task)()
    except KeyboardInterrupt as stop:
        under_way.kept = tuple(getattr(stop, "__notes__", ()))
        return INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED if end.code else DONE
    except JobFailed:
        return FAILED
    except Exception as error:
        message = under_way.ledger.refusal(error) or explain(error, overrides)
        complain(command, message, traceback.format_exc())
        return USAGE if isinstance(error, OverrideParseException) else FAILED
    finally:
        end_ray()
    return DONE


def _share_of_cores(multirun: Multirun, quiet: bool) -> list[str]:
    """The override that gives each of several jobs on this machine its threads; says so."""
    threads = multirun.threads()
    if threads is None:
        return []
    override = f"runtime.threads={threads}"
    if not quiet:
        progress.say(f"jobs run side by side, each with {override}")
    return [override]


def _interrupted(under_way: UnderWay, records: Sequence[Record]) -> str:
    """What is kept of an interrupted launch, and how to resume."""
    if under_way.sweep is not None:
        size = under_way.sweep.size
        done = f"{len(records)} of {size} jobs" if size else f"{len(records)} jobs"
        return f"interrupted after {done}; to resume: {_resuming(under_way)}"
    if not under_way.kept:
        return "interrupted; what was finished is kept, the same command resumes from there"
    return f"interrupted; kept: {', '.join(under_way.kept)}; the same command resumes from there"


def _resuming(under_way: UnderWay) -> str:
    """The command that resumes a sweep."""
    assert under_way.sweep is not None
    store = under_way.store
    where = [] if store == Path("outputs/store").absolute() else ["--store", str(store)]
    return shlex.join(["pear", "sweeps", "resume", under_way.sweep.id, *where])


def _silent(overrides: Sequence[str]) -> list[str]:
    """Overrides that turn Hydra's logs off where none of them is asked for."""
    unset = [group for group in LOGGING if not any(word.startswith(f"{group}=") for word in overrides)]
    return [f"{group}=none" for group in unset]


def presets(group: str, further: Path | None = None) -> dict[str, DictConfig]:
    """The presets of a group by name, each as its node in the root.

    Args:
        further: a folder with further presets, which go first.
    """
    start = hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_dir()))
    with guarded(searched(further)), start:
        names = GlobalHydra.instance().config_loader().get_group_options(group, overrides=searched(further))
        return {name: hydra.compose(f"{group}/{name}", searched(further))[group] for name in names}


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
