"""Widths: which channels a narrowed network still has, and what that leaves of its tensors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from pear_cli.errors import CorruptArtifact
from pear_cli.store.decoding import decoding

LIMIT = 1 << 20
"""Channels of one module that widths may name."""

TABLE = "relative_position_bias_table"


class Side(Enum):
    """Where a module has the channels: those that it writes, those that it reads, or its attention heads."""

    out = "out"
    read = "in"
    heads = "heads"


def parameters(model: nn.Module, path: str, side: Side) -> dict[str, int]:
    """The parameters and buffers of a module that have its channels, and along which dimension."""
    module = model.get_submodule(path)
    if side is Side.read:
        return {f"{path}.weight": 1}
    if side is Side.heads:
        return {f"{path}.{TABLE}": 1} if hasattr(module, TABLE) else {}
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return {f"{path}.{name}": 0 for name, tensor in own if tensor.ndim}


@dataclass(frozen=True)
class Member:
    """What a group has of one module.

    Args:
        module: its path.
        side: which of its channels.
        index: the channels of each unit, (units, k).
    """

    module: str
    side: Side
    index: Tensor

    def parameters(self, model: nn.Module) -> dict[str, int]:
        """The parameters and buffers that have these channels, with the dimension along which they lie."""
        return parameters(model, self.module, self.side)


@dataclass(frozen=True)
class Group:
    """Coupled channels, or the heads of one attention; each is a unit.

    Args:
        name: path of the module that writes them.
        slot: its slot, or the last of its path.
        block: index of its block; 0 for what stands before the blocks.
        heads: whether its units are attention heads.
        members: where its channels are.
    """

    name: str
    slot: str
    block: int
    heads: bool
    members: tuple[Member, ...]

    def __len__(self) -> int:
        return len(self.members[0].index)


Left = Mapping[int, Tensor]
"""Indices that stay, in order, by dimension of a tensor."""


@dataclass(frozen=True)
class Widths:
    """Which channels a narrowed network still has.

    Args:
        kept: by module and side, for each channel of the whole network whether it is left.

    Raises:
        CorruptArtifact: a module that has none left.
    """

    kept: Mapping[str, Mapping[Side, Tensor]]

    def __post_init__(self) -> None:
        for module, sides in self.kept.items():
            for side, kept in sides.items():
                if not kept.any():
                    raise CorruptArtifact(f"not widths: {module} has no channel left ({side.value})")

    @classmethod
    def without(cls, pruned: Mapping[str, Sequence[int]], of: Iterable[Group]) -> "Widths":
        """The widths of a network that loses the `pruned` units of its groups."""
        kept: dict[str, dict[Side, Tensor]] = {}
        for group in of:
            gone = list(pruned.get(group.name, ()))
            for member in group.members if gone else ():
                sides = kept.setdefault(member.module, {})
                line = sides.setdefault(member.side, torch.ones(member.index.numel(), dtype=torch.bool))
                line[member.index[gone].flatten()] = False
        return cls(kept)

    def since(self, earlier: "Widths | None") -> "Widths":
        """The same widths, counted from those that a narrower network has already."""
        kept: dict[str, dict[Side, Tensor]] = {}
        for module, sides in self.kept.items():
            for side, line in sides.items():
                before = earlier.kept.get(module, {}).get(side) if earlier is not None else None
                kept.setdefault(module, {})[side] = line if before is None else line[before]
        return Widths(kept)

    def left(self, model: nn.Module) -> dict[str, dict[int, Tensor]]:
        """What stays of each parameter and buffer that loses something.

        Raises:
            CorruptArtifact: the model has not these modules, or not that many channels.
        """
        found: dict[str, dict[int, Tensor]] = {}
        for module, sides in self.kept.items():
            for side, kept in sides.items():
                try:
                    names = parameters(model, module, side)
                    fits = all(tensor_at(model, n).shape[dim] == len(kept) for n, dim in names.items())
                    if side is Side.heads:
                        fits = fits and int(model.get_submodule(module).num_heads) == len(kept)  # type: ignore[arg-type]
                except (AttributeError, IndexError):
                    fits = False
                if not fits or not (names or side is Side.heads):
                    raise CorruptArtifact(f"not widths of this model: {module} ({side.value})")
                for name, dim in names.items():
                    found.setdefault(name, {})[dim] = kept.nonzero()[:, 0]
        return found

    def narrow(self, model: nn.Module) -> None:
        """Remove channels from a backbone, in place; its modules say how wide they are now."""
        for name, dims in self.left(model).items():
            path, _, own = name.rpartition(".")
            module, whole = model.get_submodule(path), tensor_at(model, name)
            cut = select(whole.data, dims)
            parameter = isinstance(whole, nn.Parameter)
            setattr(module, own, nn.Parameter(cut, whole.requires_grad) if parameter else cut)
        for path, sides in self.kept.items():
            _state_width(model.get_submodule(path), sides)

    def to_json(self) -> dict[str, dict[str, str]]:
        """One hexadecimal digit for four channels; `from_json` reads them back."""
        return {
            module: {side.value: f"{len(kept)}:{_hex(kept)}" for side, kept in sides.items()}
            for module, sides in self.kept.items()
        }

    @classmethod
    def from_json(cls, value: Any) -> "Widths":
        """Read what `to_json` wrote.

        Raises:
            CorruptArtifact: anything else.
        """
        with decoding("widths"):
            return cls(
                {
                    module: {Side(side): _bits(text) for side, text in sides.items()}
                    for module, sides in value.items()
                }
            )


def select(tensor: Tensor, left: Left) -> Tensor:
    """What is left of a tensor."""
    for dim, index in left.items():
        tensor = tensor.index_select(dim, index.to(tensor.device))
    return tensor.contiguous()


def _hex(kept: Tensor) -> str:
    bits = "".join("1" if bit else "0" for bit in kept.tolist())
    return f"{int(bits, 2):x}"


def _bits(text: str) -> Tensor:
    count, _, digits = text.partition(":")
    if not 0 < int(count) <= LIMIT:
        raise ValueError(f"{count} channels")
    bits = f"{int(digits, 16):0{int(count)}b}"
    if len(bits) != int(count):
        raise ValueError(f"{len(bits)} channels, not {count}")
    return torch.tensor([bit == "1" for bit in bits])


def tensor_at(model: nn.Module, name: str) -> Tensor:
    """The parameter or buffer of that path.

    Raises:
        AttributeError: there is none.
    """
    path, _, own = name.rpartition(".")
    found = getattr(model.get_submodule(path), own)
    if not isinstance(found, Tensor):
        raise AttributeError(name)
    return found


def _state_width(module: Any, sides: Mapping[Side, Tensor]) -> None:
    """Let a module say how wide it is now."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Conv2d):
        module.out_channels, module.in_channels = module.weight.shape[:2]
        if module.groups > 1:  # depthwise: a group a channel
            module.groups = module.in_channels = module.out_channels
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = len(module.weight)
    elif Side.heads in sides:
        module.num_heads = int(sides[Side.heads].sum())
        if hasattr(module, "attn_dim"):
            module.attn_dim = module.proj.weight.shape[1]
