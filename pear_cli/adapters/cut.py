"""Parts of an adapter: the rows of one attention head, one rank-1 component, one block; and what is left.

Of an update `scale · up · down · x`, an attention head has some rows of `up` (C_out, D); a rank-1 component
has one column of `up` and the same row of `down` (D, C_in). A cut adapter stores what is left, without zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pear_cli.backbone.site import Site

if TYPE_CHECKING:
    from torch import Tensor

HEADED = ("attn.q", "attn.k", "attn.v", "attn.qkv")
"""Slots whose output channels belong to attention heads."""


def head_rows(site: Site, head: int) -> list[int]:
    """The output channels of a site that belong to one attention head, counted from the site's first."""
    assert site.heads is not None
    parts = 3 if site.slot == "attn.qkv" else 1
    width = site.out_dim // (site.heads * parts)
    starts = [(part * site.heads + head) * width for part in range(parts)]
    return [row for start in starts for row in range(start, start + width)]


@dataclass(frozen=True)
class Cut:
    """What is left of one adapter.

    Args:
        rows: the output channels that it still writes to, in order; null for all.
        ranks: the rank-1 components that it still has, in order; null for all.
        blocks: the blocks of its weight that it still changes, in order; null for all.
    """

    rows: Sequence[int] | None = None
    ranks: Sequence[int] | None = None
    blocks: Sequence[int] | None = None

    def of(self, name: str, tensor: "Tensor") -> "Tensor":
        """What is left of the parameter `up`, `down` or `pos`, or of a tensor of its shape."""
        if name == "pos" and self.blocks is not None:
            tensor = tensor.flatten(1)[:, list(self.blocks)]
        if name == "up" and self.rows is not None:
            tensor = tensor[list(self.rows)]
        if name in ("up", "down") and self.ranks is not None:
            ranks = list(self.ranks)
            tensor = tensor[:, ranks] if name == "up" else tensor[ranks]
        return tensor.contiguous()

    @property
    def written(self) -> Sequence[int] | None:
        """The output channels or the blocks that are left; null for all."""
        return self.rows if self.rows is not None else self.blocks

    @property
    def nothing(self) -> bool:
        """Whether the whole adapter is gone."""
        return 0 in (len(side) for side in (self.rows, self.ranks, self.blocks) if side is not None)
