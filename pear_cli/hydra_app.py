"""The bridge from the command line to Hydra: words in, jobs run, results on stdout, an exit code."""

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from pear_cli.config import config_dir
from pear_cli.errors import ConfigError, near
from pear_cli.flags import FLAGS, UsageError, reorder
from pear_cli.jobs import RESULT, JobFailed, Record, describe, stdout_to_stderr

Task = Callable[[DictConfig], float | None]

UNKNOWN = (ConfigKeyError, ConfigAttributeError)
DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


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


def composed(words: Sequence[str]) -> DictConfig:
    """The root config with overrides, for commands that run no job.

    Raises:
        ConfigError: it does not compose.
    """
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
            return hydra.compose("config", list(words))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(explain(error, words)) from error


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
            error.pop("traceback", None)
        if as_json:
            print(json.dumps(record), flush=True)
        elif error is None:
            print(record["artifact"], flush=True)
    evaluated = [record["artifact"] for record in records if record.get("stage") == "eval"]
    if evaluated:
        _show_table(list(map(Path, evaluated)))


def _show_table(evaluated: list[Path]) -> None:
    """What the evaluations came to, on stderr."""
    from pear_cli import progress
    from pear_cli.report import table
    from pear_cli.store import Artifact, Store

    store = Store(evaluated[0].parent.parent)
    table.print_closing(
        table.closing_rows([Artifact.at(path) for path in evaluated], store), progress.console
    )


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
        why = text.splitlines()[-2]
        return f'"{error.override}" is not an override ({why}); write KEY=VALUE or GROUP=PRESET'
    if isinstance(error, ConfigCompositionException) and isinstance(cause, UNKNOWN):
        return _no_setting(str(re.findall(r"'(.+)'", text.splitlines()[0])[0]), cause)
    if text.startswith("Ambiguous value"):
        return f"{text.splitlines()[0].split(chr(39))[1]} has several values; add -m to sweep over them"
    if text.startswith("Config group override must be"):
        return _group_with_value(overrides)
    if isinstance(error, HydraException | OmegaConfBaseException | ConfigError):
        lines = [line.strip().rstrip(".") for line in f"{text}\n{cause or ''}".splitlines()]
        return "; ".join([line for line in lines if line][: 1 if isinstance(error, OSError) else 2])
    return describe(error)


def _no_preset(group: str, name: str, options: Iterable[str]) -> str:
    many = {"dataset": "datasets", "backbone": "backbones", "method": "methods"}.get(group, "presets")
    there = sorted(options)
    return f'no {group} "{name}"{near(name, there) or ";"} {many}: {", ".join(there)}'


def _no_setting(key: str, error: OmegaConfBaseException) -> str:
    parent: Any = error.parent_node
    while not (OmegaConf.is_dict(parent) and parent):
        parent = parent._get_parent()
    there = [str(name) for name in parent if name != "hydra"]
    keys = [
        known for known in _keys(parent._get_root()) if known.startswith("hydra.") == key.startswith("hydra.")
    ]
    same_name = [known for known in keys if known.endswith(f".{key}")]
    meant = f"; did you mean {' or '.join(same_name)}?" if same_name else near(key, keys)
    return f'no setting "{key}"{meant or ";"} settings: {", ".join(there)}'


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    for name, value in node.items_ex(resolve=False):
        if OmegaConf.is_dict(value) and value:
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _group_with_value(overrides: Iterable[str]) -> str:
    for key, value in (word.partition("=")[::2] for word in overrides):
        presets = sorted(path.stem for path in (config_dir() / key).glob("*.yaml"))
        if "/" not in key and presets and value not in presets:
            return f"{_no_preset(key, value, presets)}; to set one value write {key}.KEY={value}"
    return "a group takes the name of a preset; to set one value write GROUP.KEY=VALUE"


def complete(words: Sequence[str], word: str) -> list[str]:
    """The groups, presets and keys that an unfinished override may become.

    Bash takes `method=lo` for three words and completes the last one only; other shells leave it whole.

    Args:
        words: the overrides and flags before it.
        word: what is typed of it.
    """
    known = ""
    if "COMP_WORDS" in os.environ:
        typed = os.environ["COMP_WORDS"].split("\n")[2 : int(os.environ["COMP_CWORD"]) + 1]
        *words, word = _glue(typed) or [""]
        known = word[: word.rfind("=") + 1]
    found = _query(words, word)
    if len(found) == 1 and found[0].endswith(("=", ".", "/")) and found[0] != word:
        found += _query(words, found[0])  # a single answer would get a space after it
    return [text.removeprefix(known) for text in found]


def _glue(tokens: Iterable[str]) -> list[str]:
    words: list[str] = []
    for token in tokens:
        if words and (token.startswith("=") or words[-1].endswith("=")):
            words[-1] += token
        else:
            words.append(token)
    return words


def _query(words: Iterable[str], word: str) -> list[str]:
    from hydra._internal.core_plugins.bash_completion import BashCompletion
    from hydra.core.global_hydra import GlobalHydra

    line = " ".join([*(done for done in words if "=" in done and not done.startswith("-")), word])
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        loader = GlobalHydra.instance().config_loader()
        return [str(found) for found in BashCompletion(loader)._query("config", line)]
