"""Linear probe: the classifier alone."""

from dataclasses import dataclass

from pear_cli.adapters.method import Method
from pear_cli.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Method):
    """Train the classifier on the features of the frozen backbone; nothing else.

    It has no adapters, hence nothing to score, prune or share.
    """

    units = frozenset()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slots:
            raise ConfigError("method.slots: a linear probe has no adapters; leave slots empty")
