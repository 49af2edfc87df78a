"""AdaptFormer: a bottleneck beside the feed-forward half of a block."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pear_cli.adapters.method import Adapter, NonlinearBottleneck
from pear_cli.backbone.site import Site
from pear_cli.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AdaptFormer(NonlinearBottleneck):
    """Learn a bottleneck parallel to the feed-forward half of a transformer block.

        h = x + attn(norm1(x));   y = h + mlp(norm2(h)) + scale · up(dropout(relu(down(h))))

    It reads the residual stream before `norm2` and adds after LayerScale and drop-path; where a block
    normalises after the mlp (Swin v2) it reads the mlp's input. Starts at the identity: `up` is zero.

    Args:
        rank: D, at least 1 and at most the width of the block.
        scale: weight of the update, dimensionless, above 0.
        dropout: probability in [0, 1), on the bottleneck, while training.
        bias: whether `down` and `up` have biases; the published 0.16 M parameters at D = 8 count them,
            the visual scripts leave them out.
        slots: `mlp` alone.

    Raises:
        ConfigError: a value out of its range, or a slot other than `mlp`.

    Source: Chen et al. 2022, arXiv 2205.13535, section 3.2.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slots != ("mlp",):
            raise ConfigError(f"method.slots = {', '.join(self.slots)}: AdaptFormer attaches at mlp alone")

    def place(self, site: Site) -> Site:
        assert site.stream is not None
        reads, module = site.stream
        return replace(site, module=module, reads=reads)

    def update(self, adapter: Adapter, x: "Tensor", out: "Tensor", weight: "Tensor | None") -> "Tensor":
        return self.through(adapter, x, "relu")
