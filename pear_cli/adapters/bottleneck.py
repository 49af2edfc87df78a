"""Bottleneck adapters in series, of Houlsby and of Pfeiffer: behind the attention, the mlp, or both."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from pear_cli.adapters.method import Adapter, NonlinearBottleneck
from pear_cli.backbone.site import Site
from pear_cli.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

SLOTS = ("attn.proj", "mlp")


class Activation(Enum):
    """What stands between `down` and `up`."""

    gelu = "gelu"
    relu = "relu"


@dataclass(frozen=True, kw_only=True)
class Bottleneck(NonlinearBottleneck):
    """Learn a bottleneck behind the attention or the feed-forward half of a block, with a skip around it.

        z → z + scale · up(dropout(activation(down(z))))          down: D×C, up: C×D

    z is the output of `attn.proj` or of `mlp`; what follows (LayerScale, drop-path, the residual sum) follows
    the adapter. Houlsby's adapters stand at both, Pfeiffer's at `mlp` alone. Starts at the identity: `up` and
    the biases are zero.

    Args:
        rank: D, at least 1 and at most C.
        scale: weight of the update, dimensionless, above 0.
        dropout: probability in [0, 1), on the bottleneck, while training.
        activation: `gelu` (the exact one) or `relu`.
        bias: whether `down` and `up` have biases.
        slots: `attn.proj`, `mlp`, or both.

    Raises:
        ConfigError: a value out of its range, a rank above C, or another slot.

    Source: Houlsby et al. 2019, arXiv 1902.00751, section 2.1; Pfeiffer et al. 2020, arXiv 2005.00247. Both
    are of BERT. Houlsby starts both projections near zero and trains the norms as well; Pfeiffer reads the
    sum with the residual stream, normalised, which a transformer that normalises before has not there.
    """

    activation: Activation

    unmerged = "it reads the layer's output, and there is an activation between its projections"

    def __post_init__(self) -> None:
        super().__post_init__()
        for slot in self.slots:
            if slot not in SLOTS:
                raise ConfigError(
                    f"method.slots = {', '.join(self.slots)}: a bottleneck in series attaches behind "
                    f"{' and '.join(SLOTS)} alone, not at {slot}"
                )

    def place(self, site: Site) -> Site:
        return replace(site, in_dim=site.out_dim)  # it reads what the module puts out

    def update(self, adapter: Adapter, x: "Tensor", out: "Tensor", weight: "Tensor | None") -> "Tensor":
        return self.through(adapter, out, self.activation.value)
