"""LoRA: a low-rank update beside a frozen linear layer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pear_cli.adapters.method import Adapter, BottleneckMethod, Factors
from pear_cli.config.choices import Unit

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LoRA(BottleneckMethod):
    """Learn a rank-D update of a frozen linear layer.

        y = base(x) + scale · up(dropout(down(x)))          down: D×C_in, up: C_out×D, no bias

    Starts at the identity: `up` is zero. A slot `attn.q` of a fused `qkv` adds to the q rows only.

    Args:
        rank: D, at least 1 and at most the smaller side of the layer.
        scale: weight of the update, dimensionless, above 0.
        dropout: probability in [0, 1), on the bottleneck, while training.
        slots: linear slots to attach at.

    Raises:
        ConfigError: a value out of its range, or a rank above the layer's smaller side.

    Source: Hu et al. 2021, arXiv 2106.09685, section 4.1. The paper scales by alpha/rank; the visual
    scripts tune one scale, and so do we.
    """

    units = frozenset({Unit.adapter, Unit.head, Unit.rank})
    linear = True

    def update(self, adapter: Adapter, x: "Tensor", out: "Tensor", weight: "Tensor | None") -> "Tensor":
        h: Tensor = adapter.dropout(x @ adapter.down.T)  # B, N, C_in -> B, N, D
        return self.scale * (h @ adapter.whole(adapter.up).T)  # B, N, D -> B, N, C_out

    def factors(self, adapter: Adapter, weight: "Tensor | None") -> Factors:
        return Factors(adapter.whole(adapter.up), adapter.down, self.scale)
