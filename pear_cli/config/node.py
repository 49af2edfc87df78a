"""From Hydra's nodes to typed settings, and where the config groups are.

`node` is the one seam at which a Hydra node becomes an object: a node with a `_target_` may name only a
dataclass of this package, and a wrong type or an unknown key is an error that names the key.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

from pear_cli.errors import ConfigError, near
from pear_cli.store.canonical import plain

T = TypeVar("T")
Field = dataclasses.Field[Any]


def node(value: Any, base: type[T], key: str) -> T:
    """Turn a config node into its validated object; a dataclass in the dataclass is a node in the node.

    Args:
        value: an OmegaConf node or a plain dictionary.
        base: the dataclass, or, for a node with a `_target_`, the class that the target must inherit.
        key: where the node stands in the root, for messages.

    Raises:
        ConfigError: a foreign `_target_`, an unknown key, a wrong type, a value out of range.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

    if value is None or not isinstance(value, dict | DictConfig):
        raise ConfigError(f"{key} is {value!r}; it must be a group of settings")
    config = OmegaConf.create(value) if isinstance(value, dict) else value
    try:
        fields = dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
        target = fields.pop("_target_", None)
        cls = _target(str(target), base, key) if target is not None else base
        if dataclasses.is_dataclass(cls) and getattr(cls, "__abstractmethods__", None):
            raise ConfigError(f"{key} has no _target_: pick one of its presets")
        groups = {field.name: _group(fields.pop(field.name, None), field, key) for field in _groups(cls)}
        _check_shapes(cls, fields, key)
        merged: Any = OmegaConf.to_container(OmegaConf.merge(_schema(cls), fields), throw_on_missing=True)
        plain(merged, key)  # what no key can hold is named here as the user wrote it
        built = cls(**groups, **{name: tuple(v) if isinstance(v, list) else v for name, v in merged.items()})
    except ConfigKeyError as error:
        unknown = str(error.full_key or error.key)
        names = [f.name for f in dataclasses.fields(cls)]
        raise ConfigError(
            f"{key} has no setting {unknown!r}{near(unknown, names) or ';'} settings: {', '.join(names)}"
        ) from None
    except MissingMandatoryValue as error:
        raise ConfigError(f"{key}.{error.full_key} is not set; it has no default") from None
    except OmegaConfBaseException as error:
        named = str(error.full_key or "")
        where = named if named.split(".")[0] == key else f"{key}.{named}".rstrip(".")
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from None
    return cast(T, built)


def to_node(value: Any, *without: str) -> dict[str, Any]:
    """Return the config node of a method or dataset, the inverse of `node`: `_target_` and fields, by name.

    Args:
        value: an instance of a dataclass that presets name by its `_target_`.
        without: fields to leave out.
    """
    target = f"{type(value).__module__}.{type(value).__qualname__}"
    names = [field.name for field in dataclasses.fields(value) if field.name not in without]
    return {"_target_": target, **{name: getattr(value, name) for name in names}}


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
    from omegaconf import OmegaConf
    from omegaconf.basecontainer import BaseContainer
    from omegaconf.errors import OmegaConfBaseException, UnsupportedInterpolationType

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


def _schema(cls: Any) -> Any:
    """The types of a dataclass's settings, but for the groups inside it, which are nodes themselves."""
    from omegaconf import OmegaConf, open_dict, read_write

    schema = OmegaConf.structured(cls)
    with read_write(schema), open_dict(schema):
        for field in _groups(cls):
            del schema[field.name]
    OmegaConf.set_readonly(schema, False)
    return schema


def _groups(cls: Any) -> list[Field]:
    return [field for field in dataclasses.fields(cls) if any(map(dataclasses.is_dataclass, _kinds(field)))]


def _group(value: Any, field: Field, key: str) -> Any:
    """The dataclass of a group inside a node, or None where that may be left out."""
    if value is None and type(None) in _kinds(field):
        return None
    (cls,) = (kind for kind in _kinds(field) if dataclasses.is_dataclass(kind))
    return node(value, cast(type, cls), f"{key}.{field.name}")


def _kinds(field: Field) -> tuple[Any, ...]:
    """The type of a field, and those that it is a union of."""
    return (field.type, *get_args(field.type))


def _check_shapes(cls: Any, fields: Mapping[str, Any], key: str) -> None:
    """Refuse what OmegaConf lets pass or does not name: no list, or no group, where one is wanted."""
    for field in dataclasses.fields(cls):
        name, value = f"{key}.{field.name}", fields.get(field.name)
        wanted: set[Any] = {get_origin(kind) for kind in _kinds(field)}
        if value is None:
            continue
        if dict in wanted and not isinstance(value, dict):
            raise ConfigError(f"{name} = {value} is not a group of settings, such as {{a: 1}}")
        if tuple in wanted and not isinstance(value, list):
            raise ConfigError(f"{name} = {value} is not a list; write [{value}] with its brackets")
        if tuple in wanted and any(isinstance(item, list | dict) for item in value):
            raise ConfigError(f"{name} = {value} is not a plain list of single values")


def _target(path: str, base: type, key: str) -> type:
    """The class that a `_target_` names, if it is ours and of the right kind."""
    from importlib import import_module

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


def presets_of(group: str) -> dict[str, dict[str, Any]]:
    """The presets of a group of ours by name, each with what it takes over from others of its group."""
    from omegaconf import OmegaConf

    found: dict[str, dict[str, Any]] = {}

    def settings(name: str) -> dict[str, Any]:
        if name not in found:
            body: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / group / f"{name}.yaml"))
            below = [d for d in body.pop("defaults", ()) if isinstance(d, str) and d != "_self_"]
            merged = {key: value for d in below for key, value in settings(d.partition("@")[0]).items()}
            found[name] = merged | (body[group] if isinstance(body.get(group), dict) else body)
        return found[name]

    for path in sorted((config_dir() / group).glob("*.yaml")):
        settings(path.stem)
    return found


def config_dir() -> Path:
    """The folder of the config groups: conf/ beside the package in a source tree, inside it in a wheel."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
