"""What importance decides: of whole adapters a share map, of other units a mask."""

from pear_cli.config.choices import ShareRule, Unit
from pear_cli.config.settings import Prune
from pear_cli.pruning.choose import choose
from pear_cli.pruning.mask import Mask
from pear_cli.pruning.share_map import ShareMap
from pear_cli.pruning.share_rules import assign_owners
from pear_cli.scoring.importance import Importance


def decide(importance: Importance, unit: Unit, prune: Prune, rule: ShareRule) -> ShareMap | Mask:
    """Choose the units that go; of adapters, also who serves in their place.

    Args:
        importance: of all units of the kind `unit`.
        prune: how many go, and within what they compete.
        rule: who serves at the sites of pruned adapters; other units have no owners.

    Raises:
        ConfigError: see `choose`.
    """
    pruned = choose(importance, prune)
    if unit is Unit.adapter:
        return assign_owners(importance, pruned, rule)
    return Mask.of(unit, prune.effect, pruned.units, pruned.notes)
