"""Pruning: which units go."""

import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from pear_cli.config.choices import PruneBy, Scope
from pear_cli.config.settings import Prune
from pear_cli.errors import ConfigError
from pear_cli.scoring.importance import Importance, ScoredUnit


@dataclass(frozen=True)
class Pruned:
    """What was chosen.

    Args:
        units: names of the pruned units, least important first.
        notes: where the choice departs from the plain ratio, in words.
    """

    units: tuple[str, ...]
    notes: tuple[str, ...] = ()


def choose(importance: Importance, config: Prune) -> Pruned:
    """Choose the least important units (docs/methods.md, section 3).

    By count, K = floor(ratio · units + 1/2) of every scope go, of the ratio as it was written; by parameters,
    the fewest least important whose parameters reach the ratio of the scope's total. A compatibility group
    that would lose all its units keeps its most important one, and the next least important unit of the same
    scope goes instead; where there is none, fewer go and a note says so. Equal scores break by block, then
    slot. At last `round_to` changes how many channels each layer keeps.

    Raises:
        ConfigError: `prune.scope = block` where a block has a single unit, or `prune.by = parameters` where
            the units have none of their own.
    """
    ranked = importance.ascending()
    if config.by is PruneBy.parameters and not any(unit.parameters for unit in ranked):
        raise ConfigError("prune.by = parameters: the units have none of their own; use prune.by=count")
    scopes = _scopes(ranked, config.scope)
    sizes = Counter(unit.group for unit in ranked)
    best = {unit.group: unit.name for unit in ranked}  # the last of each group
    protected: set[str] = set()
    while True:
        gone = {u.name for units in scopes.values() for u in _least(units, config, protected)}
        going = Counter(unit.group for unit in ranked if unit.name in gone)
        lost = [group for group, size in sizes.items() if going[group] == size]
        if not lost:
            break
        protected |= {best[group] for group in lost}
    notes, chosen = _shortfalls(scopes, config, gone), gone
    gone = _rounded(ranked, gone, config.round_to)
    notes += _missed(scopes, config, chosen, gone)
    pruned = tuple(unit.name for unit in ranked if unit.name in gone)
    stays = tuple(
        f"{unit.called} stays: it is the most important of its group, which would lose all"
        for unit in importance.units
        if unit.name in protected
    )
    return Pruned(pruned, stays + notes + _too_narrow(importance, config))


def exactly(ratio: float) -> Fraction:
    """The decimal that a ratio was written as: 0.29 · 50 is 14.5, which floating point puts below it."""
    return Fraction(repr(float(ratio)))


def rounded(number: Fraction) -> int:
    """The nearest whole number; halves go up."""
    return math.floor(number + Fraction(1, 2))


def _rounded(ranked: list[ScoredUnit], gone: set[str], multiple: int) -> set[str]:
    """What goes if every group keeps a multiple of some number, the nearest one; but for attention heads."""
    if multiple == 1:
        return gone
    groups: dict[tuple[str, int, int], list[str]] = {}
    for unit in ranked:
        groups.setdefault(unit.group, []).append(unit.name)
    heads = {unit.group for unit in ranked if unit.is_head}
    for group, names in groups.items():
        kept = len(names) - len(gone.intersection(names))
        if group not in heads and kept < len(names):
            nearest = max(1, rounded(Fraction(kept, multiple))) * multiple
            gone = gone.difference(names) | set(names[: max(0, len(names) - nearest)])
    return gone


def _missed(
    scopes: dict[str, list[ScoredUnit]], config: Prune, chosen: set[str], gone: set[str]
) -> tuple[str, ...]:
    """A note where rounding takes more than a unit more or less than was chosen."""
    missed = []
    for name, units in scopes.items():
        before, after = (sum(unit.name in which for unit in units) for which in (chosen, gone))
        if abs(before - after) > 1:
            missed.append(
                f"{after} instead of {before} of the {len(units)} units{f' of {name}' if name else ''}"
            )
    if not missed:
        return ()
    named = "; ".join(missed[:3]) + (f"; and so in {len(missed) - 3} more" if len(missed) > 3 else "")
    return (
        f"prune.ratio = {config.ratio} is missed, since layers keep multiples of prune.round_to = "
        f"{config.round_to}: {named}",
    )


def _too_narrow(importance: Importance, config: Prune) -> tuple[str, ...]:
    """A note where layers have fewer channels than the number of which a multiple is kept."""
    units = [unit for unit in importance.units if not unit.is_head]
    sizes = Counter(unit.group for unit in units)
    narrow = {unit.name.rpartition(".channels.")[0] for unit in units if sizes[unit.group] < config.round_to}
    if not narrow or not config.ratio:
        return ()
    named = ", ".join(sorted(narrow)[:3]) + (f" and {len(narrow) - 3} more" if len(narrow) > 3 else "")
    return (f"prune.round_to = {config.round_to} is more than all channels of {named}: they lose none",)


def _scopes(ranked: list[ScoredUnit], scope: Scope) -> dict[str, list[ScoredUnit]]:
    """The units that compete with each other, each list least important first."""
    if scope is Scope["global"]:
        return {"": ranked}
    named = [unit.slot if scope is Scope.slot else f"block {unit.block}" for unit in ranked]
    deeper = sorted(zip(named, ranked, strict=True), key=lambda pair: pair[1].block)
    scopes: dict[str, list[ScoredUnit]] = {name: [] for name, _ in deeper}
    for name, unit in zip(named, ranked, strict=True):
        scopes[name].append(unit)
    alone = [units[0].name for units in scopes.values() if len(units) == 1]
    if scope is Scope.block and alone:
        raise ConfigError(
            f"prune.scope = block needs at least two units in a block; {alone[0]} is alone in its own. "
            "Use prune.scope=global, or more method.slots"
        )
    return scopes


def _least(units: list[ScoredUnit], config: Prune, protected: set[str]) -> list[ScoredUnit]:
    """The units of one scope that go, as far as unprotected ones reach."""
    free = [unit for unit in units if unit.name not in protected]
    if config.by is PruneBy.count:
        return free[: _wanted(units, config)]
    gone: list[ScoredUnit] = []
    reached, wanted = 0, _parameters(units, config)
    for unit in free:
        if reached >= wanted:
            break
        gone.append(unit)
        reached += unit.parameters
    return gone


def _wanted(units: list[ScoredUnit], config: Prune) -> int:
    return rounded(exactly(config.ratio) * len(units))


def _parameters(units: list[ScoredUnit], config: Prune) -> float:
    """How many parameters are to go, but for rounding."""
    return config.ratio * sum(unit.parameters for unit in units) * (1 - 1e-9)


def _shortfalls(scopes: dict[str, list[ScoredUnit]], config: Prune, gone: set[str]) -> tuple[str, ...]:
    """A note for every scope in which fewer go than the ratio asks for."""
    notes = []
    for name, units in scopes.items():
        going = [unit for unit in units if unit.name in gone]
        of = f" of {name}" if name else ""
        if config.by is PruneBy.count and len(going) < _wanted(units, config):
            asked = f"{_wanted(units, config)} of the {len(units)} units{of}"
        elif config.by is PruneBy.parameters and (
            sum(unit.parameters for unit in going) < _parameters(units, config)
        ):
            asked = f"{config.ratio:.0%} of the parameters{of}"
        else:
            continue
        notes.append(f"prune.ratio = {config.ratio} asks for {asked}; {len(going)} go: every group keeps one")
    if config.ratio and not gone and not notes:
        notes.append(f"prune.ratio = {config.ratio} of {sum(map(len, scopes.values()))} units rounds to none")
    return tuple(notes)
