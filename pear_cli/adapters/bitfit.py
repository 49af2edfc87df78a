"""BitFit: the biases of the backbone."""

from dataclasses import dataclass

from pear_cli.adapters.method import Method
from pear_cli.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BitFit(Method):
    """Train all biases of the backbone and the classifier; every weight stays frozen.

    Biases are the parameters named `bias` or `…_bias`: of linear layers, convolutions and norms, and the
    `q_bias` and `v_bias` that EVA and BEiT add to a fused qkv (their `k_bias` is a constant zero). Tables of
    relative positions are none. Of a backbone without biases only the classifier is left: a linear probe.

    It has no adapters, hence nothing to score, prune or share.

    Raises:
        ConfigError: slots.

    Source: Ben Zaken et al. 2021, arXiv 2106.10199, section 3.
    """

    units = frozenset()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slots:
            raise ConfigError("method.slots: BitFit has no adapters; leave slots empty")

    def adapts(self, parameter: str) -> bool:
        name = parameter.rpartition(".")[2]
        return name == "bias" or name.endswith("_bias")
