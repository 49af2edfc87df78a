"""From Hydra's nodes to typed settings.

`node` is the one seam at which a Hydra node becomes an object: a node with a `_target_` may name only a
dataclass of this package, and a wrong type or an unknown key is an error that names the key.
"""

import dataclasses
from collections.abc import Callable
from enum import Enum
from importlib import import_module
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException, UnsupportedInterpolationType

from pear_cli.config.range import hints, shown
from pear_cli.errors import ConfigError, near
from pear_cli.store.canonical import plain

T = TypeVar("T")
E = TypeVar("E", bound=Enum)


def node(value: Any, base: type[T], key: str, **given: Any) -> T:
    """Turn a config node into its validated object; a dataclass in the dataclass is a node in the node.

    Args:
        value: an OmegaConf node or a plain dictionary.
        base: the dataclass, or, for a node with a `_target_`, the class that the target must inherit.
        key: where the node stands in the root, for messages; empty for the root itself.
        given: fields that are no settings, as they are.

    Raises:
        ConfigError: a foreign `_target_`, an unknown key, a wrong type, a value out of range.
    """
    settings = contents(value, key)
    target = settings.pop("_target_", None)
    cls: Any = base if target is None else _target(str(target), base, key)
    if getattr(cls, "__abstractmethods__", None):
        raise ConfigError(f"{key} has no _target_: pick one of its presets")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.name not in given}
    for name in settings:
        if name not in fields:
            raise ConfigError(
                f"{key or 'the root'} has no setting {name!r}{near(str(name), fields) or ';'} "
                f"settings: {', '.join(fields)}"
            )
    built = {}
    for name, field in fields.items():
        if settings.get(name) == "":
            raise ConfigError(f"{key}.{name} is empty: write a value, or leave it out".lstrip("."))
        if name in settings:
            built[name] = _typed(settings[name], hints(cls)[name], f"{key}.{name}".lstrip("."))
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{key}.{name} is not set; it has no default".lstrip("."))
    made = cls(**built, **given)
    plain(built, key)  # what no key can hold is named here as the user wrote it
    return cast(T, made)


def contents(value: Any, key: str) -> dict[str, Any]:
    """The settings of a node as plain dictionaries, lists and values.

    Raises:
        ConfigError: it is no group, lacks a mandatory value, or has an interpolation that leads nowhere.
    """
    try:
        if isinstance(value, DictConfig):
            value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        named = str(error.full_key or "")
        place = (named if named.split(".")[0] == key else f"{key}.{named}").strip(".")
        if isinstance(error, MissingMandatoryValue):
            raise ConfigError(f"{place} is not set; it has no default") from None
        raise ConfigError(f"{place}: {str(error).splitlines()[0]}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{key} is {shown(value)}; it must be a group of settings")
    return dict(value)


def _typed(value: Any, kind: Any, key: str) -> Any:
    """A value as an object of the type that a setting is declared with.

    Raises:
        ConfigError: it is of another type; the message names the key, the value and what it should be.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _typed(value, args[0], key)
    if origin in (Union, UnionType):
        (one,) = (arg for arg in args if arg is not NoneType)
        return None if value is None else _typed(value, one, key)
    if dataclasses.is_dataclass(kind):
        return node(value, cast(type, kind), key)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(
                f"{key} = {shown(value)} is not a list; write [{shown(value)}] with its brackets"
            )
        if any(isinstance(item, list | dict) for item in value):
            raise ConfigError(f"{key} = {shown(value)} is not a plain list of single values")
        return tuple(_typed(item, args[0], key) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{key} = {shown(value)} is not a group of settings, such as {{a: 1}}")
        return {name: _typed(item, args[1], f"{key}.{name}") for name, item in value.items()}
    if kind is Any or type(value) is kind:
        return value
    if isinstance(kind, type) and issubclass(kind, Enum):
        return chosen(kind, value, key)
    read, name = READERS[kind]
    if (found := read(value)) is None:
        raise ConfigError(f"{key} = {shown('null' if value is None else value)} is not {name}")
    return found


def chosen(kind: type[E], value: object, key: str) -> E:
    """The member of an enum that a value names.

    Raises:
        ConfigError: none; it lists them.
    """
    names = [str(member.value) for member in kind]
    if value not in names:
        said = shown("null" if value is None else value)
        raise ConfigError(f'{key} = "{said}" is unknown{near(said, names)}; use {", ".join(names)}')
    return kind(value)


def _whole(value: Any) -> int | None:
    try:
        return int(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _number(value: Any) -> float | None:
    """A number; a whole one that no float can hold stays as it is, for the check of its range."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return float(value)
    except OverflowError:
        return value  # type: ignore[return-value]
    except ValueError:
        return None


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, list | dict) else str(value)


def _truth(value: Any) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())


READERS: dict[type, tuple[Callable[[Any], Any], str]] = {
    int: (_whole, "a whole number"),
    float: (_number, "a number"),
    str: (_text, "text"),
    bool: (_truth, "true or false"),
}
"""What reads a setting of each type as it may stand in a config, None where it is of another; its name."""


PURE = ("hydra", "oc.create", "oc.decode", "oc.deprecated", "oc.dict.keys", "oc.dict.values", "oc.select")
"""Resolvers of interpolations that depend on nothing but the config."""


def refuse_environment(config: Any) -> None:
    """Refuse settings of an experiment that depend on the environment or the time, by whatever detour.

    `runtime` and `dataset.root` are places on this machine, and may.

    Args:
        config: a composed root config.

    Raises:
        ConfigError: such a setting.
    """
    items = [(config, str(key)) for key in config if key not in ("dataset", "hydra", "runtime")]
    dataset = config._get_node("dataset")
    items += [(dataset, str(key)) for key in dataset if key != "root"] if OmegaConf.is_dict(dataset) else []
    known = BaseContainer._resolvers
    BaseContainer._resolvers = {name: resolver for name, resolver in known.items() if name in PURE}
    try:
        for node, key in items:
            try:
                value = node[key]
                if OmegaConf.is_config(value):
                    OmegaConf.to_container(value, resolve=True)
            except UnsupportedInterpolationType as error:
                where = error.full_key or key
                raise ConfigError(
                    f"{where} depends on the environment ({str(error).splitlines()[0]}), and an experiment "
                    "must not: write the value, or let the shell put it on the command line"
                ) from None
            except OmegaConfBaseException:  # told where the setting is read
                continue
    finally:
        BaseContainer._resolvers = known


def _target(path: str, base: type, key: str) -> type:
    """The class that a `_target_` names, if it is ours and of the right kind."""
    module, _, name = path.rpartition(".")
    if not module.startswith("pear_cli."):
        raise ConfigError(
            f"{key}._target_ = {path} is refused: only classes of pear_cli may stand in a config"
        )
    try:
        cls = getattr(import_module(module), name, None)
    except (ImportError, ValueError):
        cls = None
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and issubclass(cls, base)):
        raise ConfigError(f"{key}._target_ = {path} is not a {base.__name__} of pear_cli")
    return cls
