"""Filters of a listing: `dataset=digits`, `prune.ratio>=0.5`."""

import dataclasses
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pear_cli.errors import ConfigError, near
from pear_cli.experiment.experiment import GROUPS
from pear_cli.experiment.lineage import SHORT

ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
SHAPE = re.compile(r"(?P<key>[A-Za-z][\w.-]*)\s*(?P<operator>!=|<=|>=|=|<|>)\s*(?P<value>.*)", re.DOTALL)

KNOWN = frozenset(
    (
        *(f"{group}.{field.name}" for group, node in GROUPS.items() for field in dataclasses.fields(node)),
        *("stage", "key", "label", "weights", "created", "seconds", "method", "seed", "select", "phase"),
        *("precision", "accuracy", "loss", "stored_bytes", "stored_params", "trainable_params"),
        *SHORT,
    )
)
"""What can be asked for even where no artifact has it."""


@dataclass(frozen=True)
class Filter:
    """One condition on a row.

    Args:
        key: a setting with its dotted name, a metric, a cost, or `stage`, `key`, `label`, `created`.
        operator: `=`, `!=`, `<`, `<=`, `>` or `>=`.
        value: what to compare with; `null` is the empty setting. A row without the setting does not match.
    """

    key: str
    operator: str
    value: str

    @classmethod
    def parse(cls, text: str) -> "Filter":
        """Read `key=value`.

        Raises:
            ConfigError: no operator, or an order of something that is no number.
        """
        found = SHAPE.fullmatch(text.strip())
        if found is None:
            example = "dataset=digits or prune.ratio>=0.5"
            raise ConfigError(f'filter "{text}" is not understood: write it as {example}')
        parsed = cls(found["key"], found["operator"], found["value"].strip())
        if parsed.operator in ORDER and parsed.key != "created" and _number(parsed.value) is None:
            raise ConfigError(f'filter "{text}": {parsed.operator} needs a number, not "{parsed.value}"')
        number = _number(parsed.value)
        if parsed.key.endswith("accuracy") and number is not None and not 0 <= number <= 1:
            raise ConfigError(f'filter "{text}": accuracy is a share; write {number}% as {number / 100:g}')
        return parsed

    def check(self, keys: Iterable[str]) -> None:
        """Raise ConfigError unless the key is one of `keys` or of `KNOWN`."""
        known = KNOWN | set(keys)
        if self.key not in known:
            groups = ", ".join(sorted({key.partition(".")[0] for key in known}))
            raise ConfigError(
                f'filter "{self.key}" is unknown{near(self.key, known)}; it starts with: {groups}'
            )

    def accepts(self, found: object) -> bool:
        """Whether a row whose value is `found` stays; a row without one is only ever unequal."""
        if self.operator in ("=", "!="):
            return self._equals(found) == (self.operator == "=")
        if self.key == "created" and isinstance(found, str):
            return ORDER[self.operator](found, self.value)
        mine = _number(found)
        return mine is not None and ORDER[self.operator](mine, _number(self.value))

    def _equals(self, found: object) -> bool:
        if found is None:
            return self.value.casefold() in ("null", "none")
        mine, wanted = _number(found), _number(self.value)
        if mine is not None and wanted is not None:
            return mine == wanted
        if self.key in ("key", "weights", "created"):
            return str(found).startswith(self.value)
        if isinstance(found, list):
            return self.value.strip("[]").replace(" ", "") == ",".join(map(str, found))
        return str(found).casefold() == self.value.casefold()


def unknown(key: str, value: str, choices: Sequence[str], words: Iterable[str] = ()) -> ConfigError:
    """The error of a value that is none of the choices; `words` could be meant, too."""
    return ConfigError(
        f'{key} = "{value}" is unknown{near(value, words or choices) or ";"} use {", ".join(choices)}'
    )


def _number(text: object) -> float | None:
    if isinstance(text, bool) or not isinstance(text, int | float | str):
        return None
    try:
        return float(text)
    except ValueError:
        return None
