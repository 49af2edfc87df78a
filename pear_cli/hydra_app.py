"""The bridge from the command line to Hydra: words in, jobs run, results on stdout, an exit code."""

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from pear_cli.config import config_dir
from pear_cli.errors import ConfigError, PearError, near
from pear_cli.jobs import RESULT, JobFailed, describe, stdout_to_stderr

Task = Callable[[DictConfig], float | None]
Record = dict[str, Any]

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class UsageError(PearError):
    """The words of a command line make no command."""


@dataclass(frozen=True)
class Flag:
    """A flag of Hydra's.

    Args:
        short: its other name.
        takes: how many words follow it: 0, 1, or "?" for one of `choices` or none.
        choices: what may follow; empty for anything.
        shows: it shows something instead of running jobs.
    """

    short: str
    takes: int | str = 0
    choices: tuple[str, ...] = ()
    shows: bool = False


INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
FLAGS: Mapping[str, Flag] = {
    "--multirun": Flag("-m"),
    "--run": Flag("-r"),
    "--cfg": Flag("-c", 1, ("job", "hydra", "all"), shows=True),
    "--info": Flag("-i", "?", INFO, shows=True),
    "--hydra-help": Flag("--hydra-help", shows=True),
    "--resolve": Flag("--resolve"),
    "--package": Flag("-p", 1),
    "--config-dir": Flag("-cd", 1),
    "--config-name": Flag("-cn", 1),
}
MODES = ("--multirun", "--run", "--cfg", "--info", "--hydra-help")


def reorder(words: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """Part the words of a command line into Hydra's flags, with their values, and overrides.

    Hydra takes overrides only after all flags; here a flag may stand anywhere.

    Raises:
        UsageError: an unknown flag, a missing or impossible value, flags that exclude each other.
    """
    names = {flag.short: name for name, flag in FLAGS.items()}
    flags: dict[str, str | None] = {}
    overrides = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        given, equals, attached = word.partition("=")
        name = names.get(given, given)
        if name == "--experimental-rerun":
            raise UsageError("--experimental-rerun is refused: it loads a pickle; repeat the overrides instead")
        if name not in FLAGS:
            raise UsageError(f"no flag {given}{near(given, FLAGS)} flags: {', '.join(FLAGS)}")
        flags[name] = _value(name, attached if equals else None, rest)
    modes = [name for name in MODES if name in flags]
    if len(modes) > 1:
        raise UsageError(f"{' and '.join(modes)} exclude each other")
    if "--resolve" in flags and "--cfg" not in flags:
        raise UsageError("--resolve needs --cfg: it resolves what --cfg shows")
    return flags, overrides


def _value(name: str, attached: str | None, rest: list[str]) -> str | None:
    flag = FLAGS[name]
    if flag.takes == 0:
        if attached is not None:
            raise UsageError(f"{name} takes no value")
        return None
    value = attached
    if value is None and rest and (flag.takes == 1 or rest[0] in flag.choices):
        value = rest.pop(0)
    if value is None and flag.takes == "?":
        return flag.choices[0]
    if value is None or (flag.choices and value not in flag.choices):
        given = "nothing" if value is None else f'"{value}"'
        one_of = f": one of {', '.join(flag.choices)}" if flag.choices else ""
        raise UsageError(f"{name} needs a value{one_of}; it has {given}{near(value or '', flag.choices)}")
    return value


@dataclass
class Ledger:
    """Where a launch leaves its result files, and which of those there are its own."""

    folder: Path | None = None
    sweep: bool = False
    before: dict[Path, int] = field(default_factory=dict)

    def open(self, folder: str, sweep: bool) -> None:
        """Note the output folder; what is in it already is another launch's."""
        self.folder, self.sweep = Path(folder).absolute(), sweep
        self.before = self._stamps()

    def records(self, complete: bool) -> list[Record]:
        """The result of each job, in order.

        Args:
            complete: a job that began and left no result has failed.
        """
        fresh = {path for path, stamp in self._stamps().items() if self.before.get(path) != stamp}
        records = [json.loads(path.read_text(encoding="utf-8")) for path in fresh if path.name == RESULT]
        done = {path.parent for path in fresh if path.name == RESULT}
        for began in sorted(path for path in fresh if path.name != RESULT):
            folder = began.parent.parent
            if complete and folder not in done:
                message = f"the job ended without a result; see {folder}"
                overrides = OmegaConf.to_container(OmegaConf.load(began))
                number = int(folder.name) if folder.name.isdigit() else None
                records.append({"job": number, "overrides": overrides, "error": {"message": message}})
        return sorted(records, key=lambda record: (record["job"] is None, record["job"] or 0))

    def _stamps(self) -> dict[Path, int]:
        if self.folder is None:
            return {}
        where = "**/" if self.sweep else ""
        found = [p for name in (RESULT, ".hydra/overrides.yaml") for p in self.folder.glob(where + name)]
        return {path: path.stat().st_mtime_ns for path in found}


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


def launch(command: str, task: Task, words: Sequence[str], as_json: bool = False) -> int:
    """Run a command's jobs and print one line a job.

    Args:
        command: its name, for messages.
        task: a function of one composed config, at the top level of a module.
        words: overrides and flags as they were typed.
        as_json: print each job's whole result instead of its artifact's folder.

    Returns:
        The exit code: 0 done, 1 a job failed or the config is wrong, 2 usage, 130 interrupted.
    """
    try:
        flags, overrides = reorder(words)
    except UsageError as error:
        complain(command, str(error))
        return USAGE
    shows = any(FLAGS[name].shows for name in flags)
    argv = [name if value is None else f"{name}={value}" for name, value in flags.items()]
    ledger = Ledger()
    token = _ledger.set(ledger)
    code = DONE
    try:
        with nullcontext() if shows else stdout_to_stderr(), _as_hydra(["pear", *argv, *overrides]):
            hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(task)()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else FAILED if end.code else DONE
    except JobFailed:
        code = FAILED
    except Exception as error:
        code = USAGE if isinstance(error, OverrideParseException) else FAILED
        complain(command, explain(error, overrides), traceback.format_exc())
    finally:
        _ledger.reset(token)
    records = ledger.records(complete=code != INTERRUPTED)
    _report(command, records, as_json)
    if code == INTERRUPTED:
        complain(command, "interrupted; what is finished is kept, the same command goes on from there")
    return FAILED if code == DONE and any("error" in record for record in records) else code


@contextmanager
def _as_hydra(argv: list[str]) -> Iterator[None]:
    """Set what Hydra reads from the process: its arguments, and that exceptions are ours to tell."""
    kept_argv, kept = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = argv, "1"
    try:
        yield
    finally:
        sys.argv = kept_argv
        if kept is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = kept


def _report(command: str, records: list[Record], as_json: bool) -> None:
    """Results to stdout, one line a job; errors to stderr, each with the overrides that only its job has."""
    common = set.intersection(*(set(record["overrides"]) for record in records)) if records else set()
    for record in records:
        error = record.get("error")
        if error is not None:
            own = " ".join(word for word in record["overrides"] if word not in common)
            job = f"job {record['job']} ({own}): " if own else ""
            complain(command, job + error["message"], error.get("traceback", ""))
        if as_json:
            print(json.dumps(record), flush=True)
        elif error is None:
            print(record["artifact"], flush=True)


def complain(command: str, message: str, trace: str = "") -> None:
    """Print an error to stderr, after its traceback if PEAR_TRACEBACK=1."""
    if trace and os.environ.get("PEAR_TRACEBACK") == "1":
        print(trace, file=sys.stderr, end="")
    print(f"pear {command}: {message}", file=sys.stderr, flush=True)


def explain(error: Exception, overrides: Iterable[str]) -> str:
    """Say in one or two lines what of a config does not compose, and what was probably meant."""
    cause = error.__cause__
    text = str(error).strip()
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return _no_preset(group, name, error.options)
    if isinstance(error, OverrideParseException):
        return f'"{error.override}" is not an override: {text.splitlines()[-2]}; write KEY=VALUE or GROUP=PRESET'
    if isinstance(error, ConfigCompositionException) and isinstance(cause, ConfigKeyError):
        return _no_setting(str(re.findall(r"'(.+)'", text.splitlines()[0])[0]), cause)
    if text.startswith("Ambiguous value"):
        return f"{text.splitlines()[0].split(chr(39))[1]} has several values; add -m to sweep over them"
    if text.startswith("Config group override must be"):
        return _group_with_value(overrides)
    if isinstance(error, HydraException | OmegaConfBaseException | ConfigError):
        lines = [line.strip() for line in (text, str(cause or "")) for line in line.splitlines()[:1]]
        return ": ".join(line.rstrip(".") for line in lines)
    return describe(error)


def _no_preset(group: str, name: str, options: Iterable[str]) -> str:
    many = {"dataset": "datasets", "backbone": "backbones", "method": "methods"}.get(group, "presets")
    there = sorted(options)
    return f'no {group} "{name}"{near(name, there) or ";"} {many}: {", ".join(there)}'


def _no_setting(key: str, error: ConfigKeyError) -> str:
    node: Any = error.parent_node
    root = node._get_root()
    keys = [key for key in _keys(root) if not key.startswith("hydra.")]
    same_name = [there for there in keys if there.endswith(f".{key.rpartition('.')[2]}")]
    meant = f'; did you mean "{same_name[0]}"?' if same_name else near(key, keys)
    group = key.partition(".")[0]
    there = [there for there in keys if there.startswith(f"{group}.")] or [str(name) for name in root if name != "hydra"]
    return f'no setting "{key}"{meant or ";"} settings: {", ".join(there)}'


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    for name, value in node.items_ex(resolve=False):
        if OmegaConf.is_dict(value) and value:
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _group_with_value(overrides: Iterable[str]) -> str:
    groups = {path.name: sorted(p.stem for p in path.glob("*.yaml")) for path in config_dir().iterdir() if path.is_dir()}
    for key, value in (word.partition("=")[::2] for word in overrides):
        if key in groups and value not in groups[key]:
            return f'{key} = {value}: {key} is a group; presets: {", ".join(groups[key])}; for one value: {key}.KEY=VALUE'
    return "a group takes the name of a preset; for one value write GROUP.KEY=VALUE"


def complete(words: Sequence[str], word: str) -> list[str]:
    """The groups, presets and keys that an unfinished override may become.

    Args:
        words: the overrides before it.
        word: what is typed of it.
    """
    from hydra._internal.core_plugins.bash_completion import BashCompletion
    from hydra.core.global_hydra import GlobalHydra

    line = " ".join([*(done for done in words if not done.startswith("-")), word])
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        loader = GlobalHydra.instance().config_loader()
        return [str(found) for found in BashCompletion(loader)._query("config", line)]
