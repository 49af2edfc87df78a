"""What of a config does not compose, and what was probably meant."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from pear_cli.config.presets import config_dir
from pear_cli.errors import ConfigError, describe, near

EXTRAS = {"joblib": "joblib", "submitit_slurm": "slurm", "ray": "ray", "optuna": "optuna"}
"""Presets of Hydra's plugins, and the extra of pear's package that brings each."""

UNKNOWN = (ConfigKeyError, ConfigAttributeError)


def explain(error: Exception, overrides: Iterable[str]) -> str:
    """Say in one or two lines what of a config does not compose, and what was probably meant."""
    cause = error.__cause__
    text = str(error).strip()
    if isinstance(error, ConfigError) and cause is None:
        return text
    engine = re.search(r"Could not (?:find|load) '(hydra/(?:launcher|sweeper))/(\w+)'", text)
    if engine and engine[2] in EXTRAS:
        return (
            f"{engine[1]}={engine[2]} needs a plugin; install it: pip install 'pear-cli[{EXTRAS[engine[2]]}]'"
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return _no_preset(group, name, error.options)
    if isinstance(error, OverrideParseException):
        return (
            f'"{error.override}" is not an override; write KEY=VALUE or GROUP=PRESET. A value with spaces, '
            "~ or other letters needs quotes of its own: \"KEY='VALUE'\""
        )
    if isinstance(error, ConfigCompositionException) and isinstance(cause, UNKNOWN):
        return _no_setting(str(re.findall(r"'(.+)'", text.splitlines()[0])[0]), cause)
    if text.startswith("Ambiguous value"):
        override = text.splitlines()[0].split("'")[1].lstrip("+")
        return f"{override} has several values; add -m to sweep over them"
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
    meant = (
        f"; did you mean {' or '.join(same_name)}?"
        if same_name
        else near(key, there) or near(key, [known for known in keys if known != key])
    )
    return f'no setting "{key}"{meant or ";"} settings: {", ".join(there)}'


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    for name, value in node.items_ex(resolve=False):
        if OmegaConf.is_dict(value) and value:
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _group_with_value(overrides: Iterable[str]) -> str:
    parser = OverridesParser.create()
    for word in overrides:
        key, _, value = word.partition("=")
        presets = sorted(path.stem for path in (config_dir() / key).glob("*.yaml"))
        if "/" not in key and presets and not isinstance(parser.parse_override(word).value(), str):
            return f"{_no_preset(key, value, presets)}; to set one value write {key}.KEY={value}"
    return "a group takes the name of a preset; to set one value write GROUP.KEY=VALUE"
