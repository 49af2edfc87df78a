"""SPPaRA: a full pointwise update that loses its channels with the weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pear_cli.adapters.method import Adapter
from pear_cli.adapters.spa import NEARLY_ZERO, StructuredPruningAdapter
from pear_cli.backbone.site import Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SPPaRA(StructuredPruningAdapter):
    """Learn a parallel pointwise convolution, or a whole update of a linear layer: ΔW = pointwise.

    pointwise: C_out×C_in, U(±1e-4).

    Args:
        slots: convolutions and linear layers.

    Raises:
        ConfigError: a slot without a weight.

    Source: Hedegaard et al. 2022, arXiv 2211.10155, section 3.1; the parallel residual adapters of Rebuffi et
    al. 2018, arXiv 1803.10082.
    """

    def shapes(self, site: Site) -> Mapping[str, tuple[int, ...]]:
        return {"pointwise": (site.out_dim, site.in_dim), **super().shapes(site)}

    def initialise(self, adapter: Adapter) -> None:
        super().initialise(adapter)
        adapter.pointwise.data.uniform_(-NEARLY_ZERO, NEARLY_ZERO)

    def delta(self, adapter: Adapter, weight: "Tensor | None") -> "Tensor":
        return adapter.pointwise

    def sides(self, name: str) -> tuple[int | None, int | None]:
        return (0, 1) if name == "pointwise" else super().sides(name)
