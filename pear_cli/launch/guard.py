"""What a config may make Hydra do, whoever wrote it.

Hydra trusts its config: it makes the objects that a `_target_` names, configures logging, sets environment
variables, hands lines to the shell of a cluster, and writes where it is told. A preset may come from a
stranger, so a config is checked whenever Hydra has composed one, that of every job of a sweep too: what names
code is pear's or an installed plugin's, and what else could do harm was typed by the user.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from hydra._internal import hydra as internal
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pear_cli.errors import ConfigError
from pear_cli.launch.aliases import Presets
from pear_cli.launch.flags import quoted

Key = tuple[str | int, ...]

LOADER = "ConfigLoaderImpl"
"""The name by which Hydra makes its loader: there is no other way to give it one."""

FOLDERS = "pear_cli.launch.sweep.under_way.Folders"
SAMPLER = re.compile(r"optuna\.samplers\.\w+Sampler")
PLUGINS = "hydra_plugins."
FREE: Mapping[str, tuple[str, ...]] = {
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper": ("max_batch_size", "params"),
    f"{PLUGINS}hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper": (
        *("direction", "max_failure_rate", "n_jobs", "n_trials", "params", "sampler", "search_space"),
        "study_name",
    ),
    f"{PLUGINS}hydra_joblib_launcher.joblib_launcher.JoblibLauncher": (
        *("batch_size", "n_jobs", "prefer", "timeout", "verbose"),
    ),
    f"{PLUGINS}hydra_submitit_launcher.submitit_launcher.LocalLauncher": (
        *("cpus_per_task", "gpus_per_node", "mem_gb", "name", "nodes", "tasks_per_node", "timeout_min"),
    ),
    f"{PLUGINS}hydra_submitit_launcher.submitit_launcher.SlurmLauncher": (
        *("account", "array_parallelism", "comment", "constraint", "cpus_per_gpu", "cpus_per_task"),
        *("exclude", "gpus_per_node", "gpus_per_task", "gres", "max_num_timeout", "mem_gb", "mem_per_cpu"),
        *("mem_per_gpu", "name", "nodes", "partition", "qos", "signal_delay_s", "stderr_to_stdout"),
        *("tasks_per_node", "timeout_min"),
    ),
    f"{PLUGINS}hydra_ray_launcher.ray_launcher.RayLauncher": (
        *("ray.init.num_cpus", "ray.init.num_gpus", "ray.remote.num_cpus", "ray.remote.num_gpus"),
    ),
}
"""Settings of launchers and sweepers that any file may set: numbers, and names with no power of their own.

All others, such as the lines that run in the shell of a cluster's node, are the plugin's defaults or typed.
"""

GROUPS = ("launcher", "sweeper")
LOGGING = ("hydra_logging", "job_logging")
PLACES = ("output_subdir", "run", "sweep")

NAME = re.compile(r"[\w-][\w.=,+-]*|\.hydra")
PART = r"(?:[\w=,+-]|\.(?!\.)|\$\{now:[%\w:-]*\}|\$\{hydra\.job\.(?:name|num)\})+"
SUBFOLDER = re.compile(rf"{PART}(?:/{PART})*/?")
BELOW = re.compile(rf"(?:outputs|multirun)(?:/{PART})*/?")
FILE = re.compile(rf"\$\{{hydra\.runtime\.output_dir\}}/{PART}")
CLASSES = {
    ("handlers", "class"): ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler"),
    ("formatters", "class"): ("logging.Formatter", "colorlog.ColoredFormatter"),
    ("formatters", "()"): ("colorlog.ColoredFormatter",),
}
"""What a logging config may make, by section: each is called with the settings of its section only."""

WORD = re.compile(r"(?!true|false|null|nan|inf)[A-Za-z/][\w./-]*")
"""What Hydra's grammar takes for a text without quotes."""

STREAMS = ("ext://sys.stderr", "ext://sys.stdout")


class Loader(ConfigLoaderImpl):
    """Hydra's loader, with a check of what it has composed.

    Args:
        config_search_path: as Hydra's takes it.
        typed: the overrides that the user has typed.
    """

    def __init__(self, config_search_path: ConfigSearchPath, typed: tuple[str, ...]) -> None:
        super().__init__(config_search_path)
        self.repository = Presets(config_search_path)
        self.typed = typed

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        typed = _typed(self.typed)
        self._check_searchpath(config_name, typed)
        config = super().load_configuration(
            config_name, overrides, run_mode, from_shell, validate_sweep_overrides
        )
        check(config, typed)
        return config

    def _check_searchpath(self, config_name: str | None, typed: Any) -> None:
        """Refuse a root config that names packages to search: Hydra would import them."""
        found = None if config_name is None else self.repository.load_config(config_name)
        paths: Any = None if found is None else OmegaConf.select(found.config, "hydra.searchpath")
        for index, path in enumerate(paths or ()):
            if "://" in str(path) and not str(path).startswith("file://"):
                _refuse_unless_typed(("searchpath", index), path, {"searchpath": list(paths)}, typed)


@contextmanager
def guarded(typed: Iterable[str]) -> Iterator[None]:
    """Let Hydra compose configs with `Loader`; inside another one, what that one holds for typed counts."""
    kept = getattr(internal, LOADER)
    if isinstance(kept, partial):
        yield
        return
    setattr(internal, LOADER, partial(Loader, typed=tuple(typed)))
    try:
        yield
    finally:
        setattr(internal, LOADER, kept)


def check(config: DictConfig, typed: Any) -> None:
    """Refuse a config that would make Hydra run what nobody asked for, or write elsewhere.

    Args:
        config: a composed root config.
        typed: what the user has typed of its node `hydra`.

    Raises:
        ConfigError: the setting, and how to say it where it is trusted.
    """
    whole = OmegaConf.to_container(config, resolve=False)
    hydra = whole.get("hydra") if isinstance(whole, dict) else None
    if not isinstance(hydra, dict):
        raise ConfigError(f"hydra = {hydra!r} is no group of settings")
    copied = _at(hydra, ("job", "env_copy")) or ()  # Hydra has set these; that they are copied is checked
    for key, value in _leaves(hydra):
        if value is None or value == "???" or (key[:2] == ("job", "env_set") and key[-1] in copied):
            continue
        if key[0] == "callbacks":
            if (key, value) != (("callbacks", "pear", "_target_"), FOLDERS):
                raise ConfigError(f"{_spelled(key)} = {value} is refused: callbacks run code")
        elif key[0] in GROUPS:
            _check_plugin(key, value, hydra, typed)
        elif key[0] in LOGGING and _names_code(key, str(value)):
            raise ConfigError(f"{_spelled(key)} = {value} is refused: it names code")
        elif not _is_harmless(key, value):
            _refuse_unless_typed(key, value, hydra, typed)


def _check_plugin(key: Key, value: Any, hydra: dict[str, Any], typed: Any) -> None:
    """Check a setting of the launcher or the sweeper."""
    group = str(key[0])
    node = hydra[group]
    target = node.get("_target_") if isinstance(node, dict) else node
    installed = _installed(group)
    if not isinstance(target, str) or target not in installed:
        known = ", ".join(sorted(name.rpartition(".")[2] for name in installed))
        raise ConfigError(f"hydra.{group} = {target} is refused: it is none that is installed: {known}")
    if _at(installed[target], key[1:]) == value:
        return
    if key[-1] in ("_target_", "custom_search_space"):
        if group == "launcher" or not SAMPLER.fullmatch(str(value)):
            raise ConfigError(f"{_spelled(key)} = {value} is refused: it names code")
    elif not (_is_plain(value) and any(_begins(key[1:], name) for name in FREE.get(target, ()))):
        _refuse_unless_typed(key, value, hydra, typed)


def _is_harmless(key: Key, value: Any) -> bool:
    """Whether any file may say so, of what is neither launcher nor sweeper."""
    if key[0] in LOGGING and key[-1] == "filename":
        return FILE.fullmatch(str(value)) is not None
    if key[0] in LOGGING:
        return len(key) > 1 and "${" not in str(value)
    if key in (("run", "dir"), ("sweep", "dir")):
        return BELOW.fullmatch(str(value)) is not None
    if key == ("sweep", "subdir"):
        return SUBFOLDER.fullmatch(str(value)) is not None
    if key in (("job", "name"), ("output_subdir",)):
        return NAME.fullmatch(str(value)) is not None
    return key[0] not in PLACES and key[:2] not in (("job",), ("job", "env_set"), ("job", "env_copy"))


def _names_code(key: Key, text: str) -> bool:
    """Whether a setting of `logging.config.dictConfig` names code beyond plain handlers and streams."""
    name = key[-1]
    if name in ("()", "class"):
        return text not in CLASSES.get((str(key[1]), name), ())
    if name == "stream":
        return text not in STREAMS
    return "." in key or (name, text) == ("style", "{") or text.startswith(("ext://", "cfg://"))


def _is_plain(value: Any) -> bool:
    """Whether a value stands for itself, and stays on the line of a batch script where it is put."""
    return not isinstance(value, str) or (value.isprintable() and "${" not in value)


@cache
def _installed(group: str) -> dict[str, Any]:
    """The default settings of each installed launcher or sweeper, by its target."""
    store, found = ConfigStore.instance(), {}
    for name in store.list(f"hydra/{group}"):
        node = store.load(f"hydra/{group}/{name}").node if name.endswith(".yaml") else None
        settings = OmegaConf.to_container(OmegaConf.create(node), resolve=False) if node else None
        if isinstance(settings, dict) and isinstance(settings.get("_target_"), str):
            found[str(settings["_target_"])] = settings
    return found


def _typed(words: Iterable[str]) -> Any:
    """What overrides say of the node `hydra`."""
    said = OmegaConf.create()
    for override in OverridesParser.create().parse_overrides(list(words)):
        key = override.key_or_group
        if key.startswith("hydra.") and not override.is_delete() and not override.is_sweep_override():
            OmegaConf.update(said, key, override.value(), force_add=True)
    whole = OmegaConf.to_container(said, resolve=False)
    return whole.get("hydra", {}) if isinstance(whole, dict) else {}


def _refuse_unless_typed(key: Key, value: Any, hydra: dict[str, Any], typed: Any) -> None:
    said = _at(typed, key)
    if said is not None and str(said) == str(value):
        return
    named = tuple(part for part in key if isinstance(part, str))
    word = f"++hydra.{'.'.join(named)}={_grammar(_at(hydra, named))}"
    raise ConfigError(
        f"{_spelled(key)} = {value} comes from a file: no file may say what is run, or where it is written",
        f"if you trust it, add it to the command: {shlex.quote(word)}",
    )


def _leaves(node: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    if isinstance(node, dict | list):
        for name, item in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(item, (*key, name))
    else:
        yield key, node


def _at(node: Any, key: Key) -> Any:
    """What stands at a key, or None."""
    for name in key:
        known = name in node if isinstance(node, dict) else isinstance(name, int) and isinstance(node, list)
        if not known or (isinstance(node, list) and int(name) >= len(node)):
            return None
        node = node[name]
    return node


def _begins(key: Key, name: str) -> bool:
    parts = tuple(name.split("."))
    return key[: len(parts)] == parts


def _spelled(key: Key) -> str:
    return ".".join(map(str, ("hydra", *key)))


def _grammar(value: Any) -> str:
    """A value as Hydra's overrides take it."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{quoted(str(name))}:{_grammar(item)}' for name, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_grammar, value))}]"
    if isinstance(value, str):
        return value if WORD.fullmatch(value) else quoted(value)
    return "null" if value is None else str(value).lower()
