"""Full fine-tuning: every parameter of the backbone."""

from dataclasses import dataclass

from pear_cli.adapters.method import Method
from pear_cli.config.choices import Unit
from pear_cli.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FullFineTuning(Method):
    """Train the whole backbone and the classifier: the upper baseline in parameters.

    It has no adapters, hence nothing to score, prune or share. With random weights and no pretraining
    (`backbone.weights=null`) it is training from scratch.
    """

    units = frozenset({Unit.channel})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slots:
            raise ConfigError("method.slots: full fine-tuning has no adapters; leave slots empty")

    def adapts(self, parameter: str) -> bool:
        return True
