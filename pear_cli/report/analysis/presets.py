"""Filters by the name of a preset, where its settings go by another name: `method=houlsby`."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pear_cli.config import presets_of
from pear_cli.experiment.lineage import Lineage
from pear_cli.report.analysis.filters import Filter, unknown

IDENTITY = {"method": ("_target_",), "backbone": ("name", "args"), "score": ()}
"""The groups whose presets can be asked for, and what two presets of one kind have in common."""

NOT_STORED = ("lr", "pretrained", "weights", "seed")
"""Settings of these groups that no artifact has among those of its group."""


Describes = Callable[[Lineage], bool | None]
"""Whether an experiment was made with a preset; None where it has none of the group."""


def preset_of(condition: Filter, known: Collection[str]) -> Describes | None:
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
            raise unknown("method", name, sorted({*known, *presets}))
        return None
    telling = _telling(name, group, presets)

    def describes(lineage: Lineage) -> bool | None:
        own = lineage.config.get(group)
        if not isinstance(own, Mapping):
            return None
        return all(own.get(key) == value for key, value in telling.items())

    return describes


def _telling(name: str, group: str, presets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that make a preset what it is, and those that tell it from others like it."""
    own, identity = presets[name], IDENTITY[group]
    if "default" in presets:  # which the others of such a group change
        return {key: value for key, value in own.items() if presets["default"].get(key) != value}
    alike = [other for other in presets.values() if all(other.get(key) == own.get(key) for key in identity)]
    differ = {key for key in own for other in alike if other.get(key) != own[key]} - set(NOT_STORED)
    return {key: value for key, value in own.items() if key in differ.union(identity)}
