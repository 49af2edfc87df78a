"""A site: one place in a frozen backbone where an adapter can attach."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tap:
    """Where the centre of a kernel looks: at `first`, `first + stride`, …, in both directions."""

    first: int
    stride: int


@dataclass(frozen=True)
class Site:
    """One place where an adapter can attach.

    Args:
        name: unique in the backbone, `blocks.3.attn.q`.
        block: index of the block, counted from the input.
        slot: the kind of place, `attn.q`.
        in_dim: channels that an adapter reads.
        out_dim: channels that it adds to.
        module: path of the module whose output it adds to.
        reads: path of the module whose input it reads; empty for `module` itself.
        rows: first and one past the last output channel that it adds to; null for all.
        heads: number of attention heads whose channels it adds to, Dh in a row for each (in q, in k and in v
            of an `attn.qkv`); null where there are none, or where they are not known to lie so.
        tap: of a convolution, what the centre of its kernel sees; null for linear layers.
        stream: of a slot `mlp`, where the residual stream beside it is read and where it is added to: the
            module whose input it is, and the block.
    """

    name: str
    block: int
    slot: str
    in_dim: int
    out_dim: int
    module: str
    reads: str = ""
    rows: tuple[int, int] | None = None
    heads: int | None = None
    tap: Tap | None = None
    stream: tuple[str, str] | None = None

    @property
    def group(self) -> tuple[str, int, int]:
        """Sites of one group may share an adapter: same slot, same widths."""
        return (self.slot, self.in_dim, self.out_dim)
