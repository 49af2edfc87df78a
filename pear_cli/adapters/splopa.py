"""SPLoPA: an update made of prototypes that all layers have in common, pruned block by block."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pear_cli.adapters.method import Adapter, kaiming_uniform
from pear_cli.adapters.spa import NEARLY_ZERO, StructuredPruningAdapter
from pear_cli.backbone.site import Site
from pear_cli.config.choices import Initial, Unit
from pear_cli.config.range import Rank, require
from pear_cli.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SPLoPA(StructuredPruningAdapter):
    """Learn where low-rank prototypes of a block go in the weight of a linear layer.

        ΔW = Σ_n kron(pos_n, cols_n·rows_n)
        pos: n×I×J, cols: n×b0×r, rows: n×r×b1; I·b0 = C_out, J·b1 = C_in

    The prototypes cols·rows are banks of one model, never of two; the positions are a layer's own. Pruning
    sets blocks of the adapted weight to zero, and stores no position of them.

    The paper starts from small positions: pos U(±1e-4), cols and rows Kaiming-uniform(√5). The authors' code
    starts from small prototypes: cols U(±1e-4), pos and rows Kaiming-uniform(√5).

    Args:
        prototypes: n.
        block: b0 and b1, which divide the widths of every layer.
        rank: r of a prototype, at most the smaller side of a block.
        initial: the paper's start or the code's.
        slots: linear layers.

    Raises:
        ConfigError: a value out of its range, a block that does not divide a layer, or a convolution.

    Source: Hedegaard et al. 2022, arXiv 2211.10155, section 3.3.
    """

    prototypes: Rank
    block: tuple[Rank, ...]
    rank: Rank
    initial: Initial = Initial.paper

    units: ClassVar[frozenset[Unit]] = frozenset({Unit.block})

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = list(self.block)
        require(len(sides) == 2, "method.block", sides, "two sides")
        limit = f"1 to {min(sides)}, the smaller side of a block"
        require(self.rank <= min(sides), "method.rank", self.rank, limit)

    def grid(self, site: Site) -> tuple[int, int]:
        """I and J, how many blocks the weight of a layer has down and across."""
        high, wide = self.block
        if site.tap is not None:
            raise ConfigError(f"method.slots: {site.name} is a convolution; SPLoPA is of linear layers")
        divides = site.out_dim % high == 0 and site.in_dim % wide == 0
        rule = f"it must divide {site.out_dim} and {site.in_dim}, the widths of {site.name}"
        require(divides, "method.block", list(self.block), rule)
        return site.out_dim // high, site.in_dim // wide

    def shapes(self, site: Site) -> Mapping[str, tuple[int, ...]]:
        return {"pos": (self.prototypes, *self.grid(site)), **super().shapes(site)}

    def banks(self, site: Site) -> Mapping[str, tuple[str, tuple[int, ...]]]:
        (high, wide), count = self.block, self.prototypes
        return {
            "cols": ("prototypes.cols", (count, high, self.rank)),
            "rows": ("prototypes.rows", (count, self.rank, wide)),
        }

    def initialise(self, adapter: Adapter) -> None:
        super().initialise(adapter)
        if self.initial is Initial.paper:
            adapter.pos.data.uniform_(-NEARLY_ZERO, NEARLY_ZERO)
        else:
            kaiming_uniform(adapter.pos)

    def initialise_bank(self, name: str, bank: "Tensor") -> None:
        if name == "cols" and self.initial is Initial.code:
            bank.data.uniform_(-NEARLY_ZERO, NEARLY_ZERO)
        else:
            kaiming_uniform(bank)

    def delta(self, adapter: Adapter, weight: "Tensor | None") -> "Tensor":
        down, across = self.grid(adapter.site)
        pos = adapter.pos
        if adapter.written is not None:  # n, kept blocks -> n, I, J
            whole = pos.new_zeros(self.prototypes, down * across).index_copy(1, adapter.written, pos)
            pos = whole.view(self.prototypes, down, across)
        blocks = adapter.banks["cols"] @ adapter.banks["rows"]  # n, b0, b1
        sums = pos.flatten(1).T @ blocks.flatten(1)  # n, I, J; n, b0, b1 -> I·J, b0·b1
        laid = sums.view(down, across, *blocks.shape[1:]).transpose(1, 2)  # I, b0, J, b1
        return laid.reshape(adapter.site.out_dim, adapter.site.in_dim)

    def sides(self, name: str) -> tuple[int | None, int | None]:
        return (None, None)
