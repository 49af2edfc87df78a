"""The values that a number may take, stated beside the field that holds it."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin, get_type_hints

from pear_cli.errors import ConfigError

LONGEST = 60
"""Characters of a value in a message; longer ones are cut."""


def require(condition: bool, key: str, value: object, rule: str) -> None:
    """Raise ConfigError unless `condition`: `key = value is out of range: rule`."""
    if not condition:
        raise ConfigError(f"{key} = {shown(value)} is out of range: {rule}")


def shown(value: object) -> str:
    """A value as messages name it: on one line, and not at any length."""
    try:
        text = str(value)
    except ValueError:  # Python writes whole numbers of at most 4300 digits
        return "a number of thousands of digits"
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= LONGEST else f"{text[:20]}… ({len(text)} characters)"


@dataclass(frozen=True)
class Range:
    """The range of a number, or of all numbers in a group or list.

    Args:
        low, high: its ends, which belong to it.
        above: the lower end does not.
        below: the upper end does not.
        about: what the number means, for the message.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    about: str = ""

    def __contains__(self, number: float) -> bool:
        high_enough = self.low < number if self.above else self.low <= number
        return high_enough and (number < self.high if self.below else number <= self.high)

    def rule(self, name: str) -> str:
        """The range in words or signs."""
        if not (self.above or self.below):
            said = f"{self.low} to {self.high}"
        else:
            first, second = ("<" if end else "<=" for end in (self.above, self.below))
            said = f"{self.low} {first} {name} {second} {self.high}"
        return f"{said} ({self.about})" if self.about else said

    def check(self, value: object, key: str, otherwise: str = "") -> None:
        """Refuse a value outside, or one that holds such a number.

        Raises:
            ConfigError: it names the key, the value and the range.
        """
        if isinstance(value, Mapping):
            for name, item in value.items():
                self.check(item, f"{key}.{name}", otherwise)
        elif isinstance(value, list | tuple):
            for item in value:
                self.check(item, key, otherwise)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            rule = self.rule(key.rpartition(".")[2]) + otherwise
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{key} = {value} is not a finite number: {rule}")
            require(value in self, key, value, rule)


Seed = Annotated[int, Range(0, 2**64 - 1)]
Rank = Annotated[int, Range(1, 65536)]
Epochs = Annotated[int, Range(1, 1_000_000)]
Count = Annotated[int, Range(1, 2**20)]
Scale = Annotated[float, Range(0, 10_000, above=True)]
Factor = Annotated[float, Range(0, 10_000)]
Probability = Annotated[float, Range(0, 1, below=True)]
Fraction = Annotated[float, Range(0, 1, above=True, below=True)]


class Checked:
    """Base of dataclasses of settings: whenever one is made, its numbers are checked against their ranges.

    Attributes:
        group: where the settings stand in the root, for messages.
    """

    group: ClassVar[str] = ""

    def __init_subclass__(cls, group: str | None = None) -> None:
        if group is not None:
            cls.group = group

    def __post_init__(self) -> None:
        for name, kind in hints(type(self)).items():  # type: ignore[arg-type]
            _check(getattr(self, name), kind, f"{self.group}.{name}".lstrip("."))


@functools.cache
def hints(cls: type[Any]) -> Mapping[str, Any]:
    """The types of the settings of a dataclass, with their ranges."""
    found = get_type_hints(cls, include_extras=True)
    return {name: kind for name, kind in found.items() if get_origin(kind) is not ClassVar}


def _check(value: object, kind: Any, key: str, otherwise: str = "") -> None:
    if value is None:
        return
    if get_origin(kind) in (Union, UnionType):
        for one in get_args(kind):
            _check(value, one, key, ", or null" if type(None) in get_args(kind) else "")
    elif get_origin(kind) is Annotated:
        for rule in kind.__metadata__:
            rule.check(value, key, otherwise)
    elif get_origin(kind) is tuple:
        for item in value:  # type: ignore[attr-defined]
            _check(item, get_args(kind)[0], key, otherwise)
