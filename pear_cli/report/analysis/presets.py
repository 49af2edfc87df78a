"""Filters by the name of a preset, where its settings go by another name: `method=houlsby`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pear_cli.config.node import presets_of
from pear_cli.errors import ConfigError, near
from pear_cli.experiment.lineage import Lineage
from pear_cli.report.analysis.filters import Filter

IDENTITY = {"method": ("_target_",), "backbone": ("name", "args"), "score": ()}
"""The groups whose presets can be asked for, and what two presets of one kind have in common."""

NOT_STORED = ("lr", "pretrained", "weights", "seed")
"""Settings of these groups that no artifact has among those of its group."""


@dataclass(frozen=True)
class Preset:
    """What an experiment has that was made with a preset.

    Args:
        group: such as `method`.
        settings: those that tell it from others of its kind, and what makes it one of them.
    """

    group: str
    settings: Mapping[str, Any]

    def describes(self, lineage: Lineage) -> bool | None:
        """Whether an experiment has these settings; None where it has none of the group."""
        found = lineage.config.get(self.group)
        if not isinstance(found, Mapping):
            return None
        return all(found.get(key) == value for key, value in self.settings.items())


def preset_of(condition: Filter, known: Collection[str]) -> Preset | None:
    """The preset that a filter names; None where its value stands in tables as it is, or nothing is one.

    Args:
        condition: the filter.
        known: the words that artifacts have for its key.

    Raises:
        ConfigError: a method that neither an artifact nor a preset has; it says which words there are.
    """
    group, name = condition.key, condition.value
    if group not in IDENTITY or condition.operator not in ("=", "!="):
        return None
    if name.casefold() in map(str.casefold, known):
        return None
    presets = presets_of(group)
    if name not in presets:
        if group == "method" and known:
            words = sorted({*known, *presets})
            raise ConfigError(
                f'method = "{name}" is unknown{near(name, words) or ";"} use {", ".join(words)}'
            )
        return None
    return Preset(group, _telling(name, group, presets))


def _telling(name: str, group: str, presets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that make a preset what it is, and those that tell it from others like it."""
    own, identity = presets[name], IDENTITY[group]
    if "default" in presets:  # which the others of such a group change
        return {key: value for key, value in own.items() if presets["default"].get(key) != value}
    alike = [other for other in presets.values() if all(other.get(key) == own.get(key) for key in identity)]
    differ = {key for key in own for other in alike if other.get(key) != own[key]} - set(NOT_STORED)
    return {key: value for key, value in own.items() if key in differ.union(identity)}
