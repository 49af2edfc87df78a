"""NEAT: a low-rank update made of the frozen weight itself, by a small network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pear_cli.adapters.method import Adapter, BottleneckMethod, Factors, kaiming_uniform
from pear_cli.backbone.site import Site
from pear_cli.config.range import Range, require
from pear_cli.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class NEAT(BottleneckMethod):
    """Learn a small network that makes a linear layer's update of its frozen weight.

        y = base(x) + scale · dropout(x · H) · upᵀ;    H = relu(weightᵀ · downᵀ), C_in×D
        down: D×C_out, up: C_out×D, no bias

    A deeper network has n = depth/2 - 1 pairs of D×D layers in between. Each encoder remembers the H that it
    reads; the decoders, first to last, add the remembered ones, last to first:

        H → relu(H · encoderᵢᵀ), n times;    H → relu(H · decoderᵢᵀ) + remembered, n times

    H depends on the frozen weight and not on the input. So the update merges into the weight, if H is made of
    the weight as it was before; and a shared adapter makes its H of the weight of each site that it serves.
    That costs C_in·C_out·D multiply-accumulates a forward pass, however many images there are.

    Starts at the identity: `up` is zero; the others are Kaiming-uniform(√5), as in the authors' code.

    Args:
        rank: D, at most the smaller side of the layer.
        depth: layers of the network, `down` and `up` included; even. PEFT's PEANuT counts the
            pairs of encoder and decoder instead: its depth is n.
        scale: weight of the update, dimensionless.
        dropout: probability, on the bottleneck, while training; the authors use none.
        slots: linear slots to attach at: `qv` of the paper is attn.q, attn.v; `qvmlp` adds mlp.fc1, mlp.fc2.

    Raises:
        ConfigError: a value out of its range, a rank above the layer's smaller side, or the slot `mlp`,
            which has no weight.

    Source: Zhong et al. 2024, arXiv 2410.01870 (later versions call it PEANuT), and the authors' code for
    image classification, which has a bottleneck of its own for the mlp; here all slots have the same.
    """

    depth: Annotated[int, Range(2, 256)]

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.depth % 2 == 0, "method.depth", self.depth, "even: down, up, and pairs between them")
        if "mlp" in self.slots:
            raise ConfigError(
                f"method.slots = {', '.join(self.slots)}: NEAT works on the weight of a linear layer, and "
                "mlp has none; use mlp.fc1 or mlp.fc2"
            )

    @property
    def pairs(self) -> int:
        """n, the number of encoders, and of decoders."""
        return self.depth // 2 - 1

    def _inner(self) -> list[str]:
        """Names of the D×D parameters, in the order in which they are applied."""
        return [f"{kind}{i}" for kind in ("encoder", "decoder") for i in range(self.pairs)]

    def shapes(self, site: Site) -> Mapping[str, tuple[int, ...]]:
        inner = {name: (self.rank, self.rank) for name in self._inner()}
        return {**super().shapes(site), "down": (self.rank, site.out_dim), **inner}

    def initialise(self, adapter: Adapter) -> None:
        super().initialise(adapter)
        for name in self._inner():
            kaiming_uniform(getattr(adapter, name))

    def update(self, adapter: Adapter, x: "Tensor", out: "Tensor", weight: "Tensor | None") -> "Tensor":
        up, down, scale = self.factors(adapter, weight)
        h: Tensor = adapter.dropout(x @ down.T)  # B, N, C_in -> B, N, D
        return scale * (h @ up.T)  # B, N, D -> B, N, C_out

    def factors(self, adapter: Adapter, weight: "Tensor | None") -> Factors:
        assert weight is not None
        h = (weight.T @ adapter.down.T).relu()  # C_in, C_out -> C_in, D
        before = []
        for i in range(self.pairs):
            before.append(h)
            h = (h @ getattr(adapter, f"encoder{i}").T).relu()
        for i in range(self.pairs):
            h = (h @ getattr(adapter, f"decoder{i}").T).relu() + before.pop()
        return Factors(adapter.up, h.T, self.scale)
