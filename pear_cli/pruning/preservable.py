"""Whether what pruned adapters know can be kept at all: known before anything runs, and without torch."""

from pear_cli.adapters.method import Method
from pear_cli.config.choices import KnowledgeKind, ShareRule
from pear_cli.config.settings import Knowledge
from pear_cli.errors import ConfigError

LINEAR_ONLY = frozenset({KnowledgeKind.lowrank, KnowledgeKind.absorb})


def check(config: Knowledge, rule: ShareRule, method: Method) -> None:
    """Refuse combinations that cannot work, before anything runs.

    Raises:
        ConfigError: `lowrank` or `absorb` for a method whose update is not a linear low-rank product,
            `lowrank` to a rank above the adapter's own, `absorb` where no owner can take it.
    """
    kind = config.kind.value
    if config.kind is not KnowledgeKind.none and not method.keeps_knowledge:
        raise ConfigError(
            f"knowledge.kind = {kind}: an adapter of {type(method).__name__} has most of its parameters in "
            "common with others, which keep changing: it cannot be kept by itself. Use knowledge=none"
        )
    if config.kind in LINEAR_ONLY and not method.linear:
        raise ConfigError(
            f"knowledge.kind = {kind} works on linear low-rank adapters such as LoRA; the update of "
            f"{type(method).__name__} is not linear. Use knowledge.kind=frozen or int8"
        )
    width = getattr(method, "rank", None)
    if config.kind is KnowledgeKind.lowrank and width is not None and config.rank > width:
        raise ConfigError(
            f"knowledge.rank = {config.rank} is out of range: at most {width}, the method's rank D"
        )
    if config.kind is KnowledgeKind.absorb and rule is ShareRule.none:
        raise ConfigError(
            "knowledge.kind = absorb needs an owner that takes it; use a share.rule other than none"
        )
