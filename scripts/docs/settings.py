"""The reference of the settings, made of conf/ and of the dataclasses that validate it: a page a group."""

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cache
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import griffe
from omegaconf import OmegaConf

from pear_cli.config.choices import Phase, Select
from pear_cli.config.presets import config_dir
from pear_cli.config.range import Range
from pear_cli.experiment.experiment import GROUPS
from pear_cli.launch import launch

Field = dataclasses.Field[Any]

NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null"}
ABOUT = {  # groups that set values of others
    "experiment": "Sets of the other groups' settings: controls, and papers' settings.",
    "benchmark": "Sweeps over the tasks of a benchmark.",
    "hydra/launcher": "Where the jobs of a sweep run; each needs an extra of the package.",
    "hydra/sweeper": "What proposes the jobs of a sweep.",
    "hydra/job_logging": "The log of a job.",
    "hydra/hydra_logging": "Hydra's own log.",
}
ROOT = {
    "seed": (int, "Of everything random in training and scoring; never of the data splits. At least 0."),
    "select": (Select, "Which epoch's weights a training stage keeps: the last, the best on val200, or the "
                       "best on the test set, which is labelled wherever it shows."),
    "phase": (Phase | None, "Of `pear train` and `pear eval`; null is dense to train, shared to evaluate."),
}  # fmt: skip


@cache
def pages() -> Mapping[str, str]:
    """Path and Markdown of every page."""
    groups = [*GROUPS, *ABOUT]
    return {"reference/settings/root.md": root()} | {
        f"reference/settings/{group.replace('/', '-')}.md": page(group) for group in groups
    }


def root() -> str:
    """The settings outside of all groups, and the root's own file."""
    rows = [row(name, kind, spelled(composed()[name]), about) for name, (kind, about) in ROOT.items()]
    return f"# the root\n\n{table(rows)}\n{code(config_dir() / 'config.yaml')}"


def page(group: str) -> str:
    """A group: a table of settings for each class that its presets fill, then the presets as they are."""
    paths = sorted((config_dir() / group).glob("*.yaml"))
    parts = [f"# {group}\n\n{ABOUT.get(group, '')}\n\n"]
    for cls, names in classes(group, paths).items():
        title = f"{cls.__name__}: {', '.join(names)}"
        parts.append(f"## {title}\n\n{explanation(cls)}\n\n{table(rows(group, cls, names))}\n")
    parts.append("## Presets\n\n")
    parts += [f"### {group}={path.stem}\n\n{code(path)}\n" for path in paths]
    return "".join(parts)


def classes(group: str, paths: Iterable[Path]) -> dict[type, list[str]]:
    """The classes of a group, each with its presets."""
    if group not in GROUPS:
        return {}
    found: dict[type, list[str]] = {}
    for path in paths:
        found.setdefault(class_of(group, preset(group, path.stem)), []).append(path.stem)
    return found


def class_of(group: str, values: Mapping[str, Any]) -> type:
    """The class that a node becomes."""
    module, _, name = values.get("_target_", "").rpartition(".")
    return getattr(import_module(module), name) if name else GROUPS[group]


def explanation(cls: type) -> str:
    """A docstring without what its table has."""
    about = sections(cls)
    return "\n\n".join(part.value for part in about if part.kind is griffe.DocstringSectionKind.text)


def rows(group: str, cls: type, names: Iterable[str]) -> list[str]:
    """A row a setting: name, type or choices, default, meaning."""
    meanings = arguments(cls)
    made = []
    for field in dataclasses.fields(cls):
        values = {spelled(preset(group, name).get(field.name, _default(field))) for name in names}
        if class_of(group, composed()[group]) is cls:
            values = {spelled(composed()[group].get(field.name, _default(field)))}
        default = values.pop() if len(values) == 1 else "by preset"
        made.append(row(f"{group}.{field.name}", field.type, default, meanings.get(field.name, "")))
    return made


def _default(field: Field) -> Any:
    return None if field.default is dataclasses.MISSING else field.default


def arguments(cls: type) -> dict[str, str]:
    """What docstrings say of the fields, the class's own before those that it inherits."""
    found: dict[str, str] = {}
    for ancestor in reversed(cls.__mro__):
        for section in sections(ancestor):
            if section.kind is griffe.DocstringSectionKind.parameters:
                for argument in section.value:
                    found |= dict.fromkeys(re.split(r",\s*", argument.name), argument.description)
    return found


def sections(cls: type) -> list[Any]:
    """A docstring of its own, parsed; nothing for what dataclasses make up."""
    text = cls.__dict__.get("__doc__") or ""
    if text.startswith(f"{cls.__name__}("):
        return []
    return griffe.Docstring(inspect.cleandoc(text)).parse("google", warnings=False)


def row(name: str, kind: Any, default: str, meaning: str) -> str:
    cells = (f"`{name}`", typed(kind), f"`{default}`" if default != "by preset" else default, meaning)
    return "| " + " | ".join(re.sub(r"\s*\n\s*", " ", cell).replace("|", "\\|") for cell in cells) + " |\n"


def table(lines: Iterable[str]) -> str:
    return "| setting | type or choices | default | |\n|---|---|---|---|\n" + "".join(lines)


def typed(kind: Any) -> str:
    """A type in words; of an enum its members."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    if get_origin(kind) is Annotated:
        said = [rule.rule("value") for rule in kind.__metadata__ if isinstance(rule, Range)]
        return ", ".join([typed(get_args(kind)[0]), *said])
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(typed, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"list of {typed(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return "group"
    return NAMES.get(kind, getattr(kind, "__name__", str(kind)))


def spelled(value: Any) -> str:
    """A value as an override has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(spelled, value))}]"
    return str(value)


def code(path: Path) -> str:
    """A file of conf/ as it is, its heading comment included."""
    title = path.relative_to(config_dir().parent)
    return f'```yaml title="{title}"\n{path.read_text("utf-8").rstrip()}\n```\n'


@cache
def preset(group: str, name: str) -> Mapping[str, Any]:
    """The values of a preset, interpolations as they are written."""
    return composed(f"{group}={name}")[group]


@cache
def composed(*overrides: str) -> Mapping[str, Any]:
    """The root config."""
    return OmegaConf.to_container(launch.composed(overrides), resolve=False)
