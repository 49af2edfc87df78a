"""LoRA: a low-rank update beside a frozen linear layer."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pear_cli.adapters.method import Adapter, BottleneckMethod, Factors
from pear_cli.config.choices import DropoutAt, Unit
from pear_cli.store.canonical import LATER

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LoRA(BottleneckMethod):
    """Learn a rank-D update of a frozen linear layer.

        y = base(x) + scale · up(dropout(down(x)))          down: D×C_in, up: C_out×D, no bias

    PEFT and the paper call `down` A and `up` B, and `scale` is alpha/r. With `dropout_at: input` it is
    y = base(x) + scale · up(down(dropout(x))), as PEFT and torchtune have it.

    Starts at the identity: `up` is zero. A slot `attn.q` of a fused `qkv` adds to the q rows only.

    Args:
        rank: D, at least 1 and at most the smaller side of the layer.
        scale: weight of the update, dimensionless, above 0.
        dropout: probability in [0, 1), while training.
        dropout_at: what is dropped, the bottleneck (D) or the input (C_in).
        slots: linear slots to attach at.

    Raises:
        ConfigError: a value out of its range, or a rank above the layer's smaller side.

    Source: Hu et al. 2021, arXiv 2106.09685, section 4.1. The paper scales by alpha/rank; the visual
    scripts tune one scale, and so do we.
    """

    dropout_at: DropoutAt = field(default=DropoutAt.bottleneck, metadata={LATER: True})

    units = frozenset({Unit.adapter, Unit.head, Unit.rank})
    linear = True

    @property
    def drops_input(self) -> bool:
        return self.dropout_at is DropoutAt.input

    def update(self, adapter: Adapter, x: "Tensor", out: "Tensor", weight: "Tensor | None") -> "Tensor":
        if self.drops_input:
            h: Tensor = adapter.dropout(x) @ adapter.down.T  # B, N, C_in -> B, N, D
        else:
            h = adapter.dropout(x @ adapter.down.T)
        return self.scale * (h @ adapter.whole(adapter.up).T)  # B, N, D -> B, N, C_out

    def factors(self, adapter: Adapter, weight: "Tensor | None") -> Factors:
        return Factors(adapter.whole(adapter.up), adapter.down, self.scale)
