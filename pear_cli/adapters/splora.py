"""SPLoRA: a low-rank update that loses its channels with the weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pear_cli.adapters.method import Adapter, kaiming_uniform
from pear_cli.adapters.spa import NEARLY_ZERO, StructuredPruningAdapter, read
from pear_cli.backbone.site import Site
from pear_cli.config.choices import Initial
from pear_cli.config.range import Rank, require

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SPLoRA(StructuredPruningAdapter):
    """Learn a low-rank update of a linear layer or of a convolution's centre: ΔW = cols·rows.

    cols: C_out×r, U(±1e-4); rows: r×C_in, U(±1/√C_in), which is Kaiming-uniform(√5) as the paper has it. The
    authors' code draws a tensor of shape 1×r×C_in, whose fan is r·C_in: U(±1/√(r·C_in)), √r smaller.

    Args:
        rank: r, at most the smaller side of the weight.
        initial: of the rows, the paper's or the code's.
        slots: linear layers and convolutions.

    Raises:
        ConfigError: a rank out of its range, or a slot without a weight.

    Source: Hedegaard et al. 2022, arXiv 2211.10155, section 3.2; the code is
        github.com/LukasHedegaard/structured-pruning-adapters.
    """

    rank: Rank
    initial: Initial = Initial.paper

    def shapes(self, site: Site) -> Mapping[str, tuple[int, ...]]:
        smaller = min(site.in_dim, site.out_dim)
        limit = f"at most {smaller}, the smaller side of {site.name}"
        require(self.rank <= smaller, "method.rank", self.rank, limit)
        bottleneck = {"cols": (site.out_dim, self.rank), "rows": (self.rank, site.in_dim)}
        return {**bottleneck, **super().shapes(site)}

    def initialise(self, adapter: Adapter) -> None:
        super().initialise(adapter)
        rows = adapter.rows if self.initial is Initial.paper else adapter.rows[None]
        kaiming_uniform(rows)
        adapter.cols.data.uniform_(-NEARLY_ZERO, NEARLY_ZERO)

    def delta(self, adapter: Adapter, weight: "Tensor | None") -> "Tensor":
        return adapter.cols @ adapter.rows

    def update(self, adapter: Adapter, x: "Tensor", out: "Tensor", weight: "Tensor | None") -> "Tensor":
        tap = adapter.site.tap
        h = adapter.mix(read(tap, x, out), adapter.rows)  # B, …, C_in -> B, …, r; B, r, H, W
        return adapter.mix(h, adapter.cols, adapter.bias)

    def sides(self, name: str) -> tuple[int | None, int | None]:
        return {"cols": (0, None), "rows": (None, 1)}.get(name, super().sides(name))
