"""What a key hashes: one spelling for every configuration."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from pear_cli.errors import ConfigError

SCHEMA = 2
"""Version of the store's layout and manifest; it enters every key."""


LATER = "later"
"""In the metadata of a field: it came after results were stored, which had its default."""


def plain(value: object, where: str = "value") -> Any:
    """Turn a configuration into dicts, lists and scalars that JSON can hold without loss.

    A dataclass becomes a dict of its fields: what it is called and where its code lies say nothing about a
    result. Where its class does matter, that of a method or dataset, the configuration names it by its public
    `_target_` (see `config.to_node`). Enums become their values, tuples lists, -0.0 becomes 0.0. The order of
    the keys is kept.

    Args:
        value: a dataclass, mapping with str keys, list, tuple, enum, str, bool, int, float or None.
        where: dotted name of the value, for the error.

    Raises:
        ConfigError: nan, an infinity, a path (it means nothing on another machine), or any other type.
    """
    if isinstance(value, Enum):
        return plain(value.value, where)
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{where} = {float(value)!r} is not a finite number")
        return float(value) + 0.0  # -0.0 + 0.0 is 0.0
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name), f"{where}.{name}") for name in names}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or isinstance(key, Enum):
                raise ConfigError(f"{where} has the key {key!r}: only plain strings can be keys")
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, PurePath):
        raise ConfigError(f"{where} = {str(value)!r} is a path: it differs between machines, a key must not")
    raise ConfigError(f"{where} is a {type(value).__name__}: it has no canonical form")


def dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The single settings of nested ones, each with its dotted name; an empty group is one, too."""
    for name, item in settings.items():
        if isinstance(item, Mapping) and item:
            yield from dotted(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


LARGEST = 1e100
"""No measured number comes near: what sums, squares or compares some of these stays finite."""


def parse(content: str | bytes) -> Any:
    """Read JSON that a stranger may have written, as far as a manifest could hold it.

    Raises:
        ValueError: it is not JSON, nested too deep, or has a number above `LARGEST`, or a whole one of more
            than 64 bits.
    """
    try:
        return json.loads(content, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _finite(text: str) -> float:
    number = float(text)
    if not abs(number) <= LARGEST:
        reason = f"is above {LARGEST:g}" if math.isfinite(number) else "is not a finite number"
        raise ValueError(f"{text[:20]} {reason}")
    return number


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) >= 2**64:
        raise ValueError(f"{text[:20]} has more than 64 bits")
    return int(text)


def canonical(value: object, where: str = "value") -> str:
    """Return the one JSON text of a configuration: sorted keys, no spaces, floats by their repr.

    Raises:
        ConfigError: see `plain`.
    """
    return json.dumps(plain(value, where), sort_keys=True, separators=(",", ":"), allow_nan=False)


def make_key(
    stage: str,
    version: int,
    config: object,
    inputs: Mapping[str, str],
    data: Mapping[str, str],
    backbone: str,
) -> str:
    """Name an artifact by all that decides its content.

        key = the first 32 hex digits of sha256(canonical JSON of the arguments and SCHEMA)

    Args:
        stage: name of the stage, such as `score`.
        version: the stage's VERSION; a new one when its code computes something else.
        config: the stage's own validated configuration.
        inputs: name -> key of each artifact that it reads.
        data: name -> fingerprint of each data split that it reads.
        backbone: hash of the frozen weights.

    Raises:
        ConfigError: a value without a canonical form, named by its dotted path.
    """
    identity = {
        "schema": SCHEMA,
        "stage": stage,
        "version": version,
        "config": plain(config, stage),
        "inputs": inputs,
        "data": data,
        "backbone": backbone,
    }
    return hashlib.sha256(canonical(identity, stage).encode()).hexdigest()[:32]


def to_node(value: Any, *without: str) -> dict[str, Any]:
    """Return the config node of a method or dataset, the inverse of `node`: `_target_` and fields, by name.

    Args:
        value: an instance of a dataclass that presets name by its `_target_`. A field that came `LATER` is
            left out where it has its default, so that older keys stay the same.
        without: fields to leave out.
    """
    target = f"{type(value).__module__}.{type(value).__qualname__}"
    fields = {field.name: field for field in dataclasses.fields(value) if field.name not in without}
    said = {name: getattr(value, name) for name in fields}
    later = [
        name for name, field in fields.items() if LATER in field.metadata and said[name] == field.default
    ]
    return {"_target_": target, **{name: item for name, item in said.items() if name not in later}}
