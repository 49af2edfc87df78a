"""The share rules, one function each: which kept adapter serves at the pruned sites of one group.

Each takes the importance, and the pruned and the kept units of a group by ascending and by descending
importance; equal scores stand in site order in both. The paper prunes the least important adapters and
shares the more important ones; which goes where is not stated, so every rule is a switch.
"""

from collections.abc import Callable

from pear_cli.config.choices import ShareRule
from pear_cli.errors import ConfigError
from pear_cli.pruning.choose import Pruned
from pear_cli.pruning.share_map import ShareMap
from pear_cli.scoring.importance import Importance, ScoredUnit

Units = list[ScoredUnit]
Owners = dict[str, str | None]


def none(importance: Importance, pruned: Units, kept: Units) -> Owners:
    """Nobody serves: plain structured pruning, the baseline."""
    return {unit.name: None for unit in pruned}


def top(importance: Importance, pruned: Units, kept: Units) -> Owners:
    """The most important kept adapter serves everywhere."""
    return {unit.name: kept[0].name for unit in pruned}


def ranked(importance: Importance, pruned: Units, kept: Units) -> Owners:
    """The least important site takes the most important adapter, the next the next, round robin."""
    return {unit.name: kept[i % len(kept)].name for i, unit in enumerate(pruned)}


def nearest(importance: Importance, pruned: Units, kept: Units) -> Owners:
    """The kept adapter nearest in depth; of two, the more important."""
    # min() takes the first of equals, and `kept` starts with the most important
    return {unit.name: min(kept, key=lambda owner: abs(owner.block - unit.block)).name for unit in pruned}


def similar(importance: Importance, pruned: Units, kept: Units) -> Owners:
    """The kept adapter whose output on the site's input is most like the pruned one's (linear CKA).

    Of two, the more important.

    Raises:
        ConfigError: the scores hold no similarity of a pair.
    """
    owners: Owners = {}
    for unit in pruned:
        alike = importance.similarity.get(unit.name, {})
        missing = [owner.name for owner in kept if owner.name not in alike]
        if missing:
            raise ConfigError(
                f"share.rule = similar: the scores lack the similarity of {unit.name} and {missing[0]}; "
                "score again"
            )
        owners[unit.name] = max(kept, key=lambda owner: alike[owner.name]).name
    return owners


RULES: dict[ShareRule, Callable[[Importance, Units, Units], Owners]] = {
    ShareRule.none: none,
    ShareRule.top: top,
    ShareRule.ranked: ranked,
    ShareRule.nearest: nearest,
    ShareRule.similar: similar,
}


def assign_owners(importance: Importance, pruned: Pruned, rule: ShareRule) -> ShareMap:
    """Find who serves at every site (docs/methods.md, section 3); sharing happens only inside a group.

    Raises:
        ConfigError: a rule that needs what the scores lack.
    """
    gone = set(pruned.units)
    found: Owners = {}
    for group in dict.fromkeys(unit.group for unit in importance.units):
        out = [unit for unit in importance.ascending() if unit.group == group and unit.name in gone]
        kept = [unit for unit in importance.descending() if unit.group == group and unit.name not in gone]
        found |= RULES[rule](importance, out, kept)
    owners = {unit.name: found.get(unit.name, unit.name) for unit in importance.units}
    return ShareMap(owners, {unit.name: unit.group for unit in importance.units}, rule, pruned.notes)
