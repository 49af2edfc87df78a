"""The units of a model at work: what a criterion measures as one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.adapter import Adapter, Position
from pear_cli.adapters.cut import HEADED, head_rows
from pear_cli.config.choices import Unit
from pear_cli.errors import ConfigError
from pear_cli.scoring.importance import ScoredUnit


@dataclass(frozen=True)
class Slice:
    """Some entries of one parameter, or of a gate.

    Args:
        name: of the parameter.
        parameter: all of it.
        index: picks the entries, as tensors are indexed.
    """

    name: str
    parameter: Tensor
    index: tuple[slice | list[int], ...] = ()

    def of(self, tensor: Tensor) -> Tensor:
        """The entries of a tensor of the parameter's shape."""
        return tensor[self.index] if self.index else tensor


@dataclass(frozen=True)
class UnitAtWork:
    """A unit, and every position at which it is at work.

    Args:
        unit: what the scores know of it.
        positions: where it adds to the output; its home is the first.
        slices: its own parameters.
        rows: the output channels that it adds to, by position; all of them where it is a whole adapter.
        rank: which rank-1 component it is; null for all.
    """

    unit: ScoredUnit
    positions: tuple[Position, ...]
    slices: tuple[Slice, ...]
    rows: tuple[list[int], ...] | None = None
    rank: int | None = None

    @property
    def whole(self) -> bool:
        """Whether it is an adapter, not a part of some."""
        return self.rows is None and self.rank is None

    @property
    def home(self) -> Position:
        """The position where its own input is read."""
        return self.positions[0]

    @property
    def adapter(self) -> Adapter:
        """The adapter at its home."""
        assert self.home.owner is not None
        return self.home.owner

    def gate(self, gate: Tensor | None) -> None:
        """Multiply an adapter's update by `gate`, a scalar, wherever it serves; None takes the gate away."""
        assert self.whole
        for position in self.positions:
            position.gate = gate

    @contextmanager
    def removed(self) -> Iterator[None]:
        """Measure without it."""
        if self.whole:
            self.gate(torch.zeros((), device=self.adapter.like.device, dtype=self.adapter.like.dtype))
            yield
            self.gate(None)
            return
        before = [(part, part.of(part.parameter.data).clone()) for part in self.slices if part.name == "up"]
        try:
            for part, _ in before:
                part.parameter.data[part.index] = 0
            yield
        finally:
            for part, values in before:
                part.parameter.data[part.index] = values

    def update(self, position: Position, x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """What it adds at a position, and the channels of `out` that it adds to: (B, N, C) each."""
        adapter = position.owner
        assert adapter is not None
        if self.rank is not None:
            factors = adapter.method.factors(adapter, position.weight)
            assert factors is not None
            down, up = factors.down[[self.rank]], factors.up[:, [self.rank]]
            return factors.scale * (x @ down.T) @ up.T, out
        update = adapter(x, out, position.weight)
        if self.rows is None:
            return update, out
        rows = self.rows[self.positions.index(position)]
        return update[..., rows], out[..., rows]


def check_kind(adaptation: Adaptation, kind: Unit) -> None:
    """Raise ConfigError where a method has no units of a kind."""
    if kind not in adaptation.method.units:
        known = ", ".join(sorted(unit.value for unit in adaptation.method.units))
        raise ConfigError(
            f"score.unit = {kind.value}: {type(adaptation.method).__name__} has none; its units: {known}"
        )


def units_at_work(adaptation: Adaptation, kind: Unit) -> list[UnitAtWork]:
    """The units of a kind, by block, then slot, then index.

    Raises:
        ConfigError: the method has no such units.
    """
    check_kind(adaptation, kind)
    return KINDS[kind](adaptation)


def _adapters(adaptation: Adaptation) -> list[UnitAtWork]:
    found = []
    for home, adapter in adaptation.adapters().items():
        site = adapter.site
        slices = tuple(Slice(name, parameter) for name, parameter in adapter.named_parameters())
        served = [p for p in adaptation.each() if p.owner is adapter]
        found.append(
            UnitAtWork(
                ScoredUnit(home, site.block, site.slot, site.group, _size(slices)),
                tuple(sorted(served, key=lambda position: position.site.name != home)),
                slices,
            )
        )
    return found


def _heads(adaptation: Adaptation) -> list[UnitAtWork]:
    attentions: dict[str, list[Position]] = {}
    for position in adaptation.each():
        if position.site.slot in HEADED and position.owner is not None:
            attentions.setdefault(position.site.name.rpartition(".")[0], []).append(position)
    if not attentions:
        raise ConfigError(f"score.unit = head needs one of the method.slots {', '.join(HEADED)}")
    found = []
    for attention, positions in attentions.items():
        site = positions[0].site
        if site.heads is None:
            raise ConfigError(f"score.unit = head: the channels of {site.name} do not split into heads")
        for head in range(site.heads):
            rows = tuple(head_rows(position.site, head) for position in positions)
            slices = tuple(
                Slice("up", position.owner.get_parameter("up"), (rows_here,))  # type: ignore[union-attr]
                for position, rows_here in zip(positions, rows, strict=True)
            )
            group = ("attn.heads", site.in_dim, site.out_dim // site.heads)
            unit = ScoredUnit(f"{attention}.heads.{head}", site.block, "attn", group, _size(slices))
            found.append(UnitAtWork(unit, tuple(positions), slices, rows=rows))
    return found


def _ranks(adaptation: Adaptation) -> list[UnitAtWork]:
    found = []
    for home, adapter in adaptation.adapters().items():
        site, (position,) = adapter.site, adaptation.at(home)
        for rank in range(adapter.down.shape[0]):
            slices = (
                Slice("up", adapter.get_parameter("up"), (slice(None), [rank])),
                Slice("down", adapter.get_parameter("down"), ([rank],)),
            )
            unit = ScoredUnit(f"{home}.ranks.{rank}", site.block, site.slot, site.group, _size(slices))
            found.append(UnitAtWork(unit, (position,), slices, rank=rank))
    return found


KINDS: dict[Unit, Callable[[Adaptation], list[UnitAtWork]]] = {
    Unit.adapter: _adapters,
    Unit.head: _heads,
    Unit.rank: _ranks,
}


def _size(slices: tuple[Slice, ...]) -> int:
    return sum(part.of(part.parameter).numel() for part in slices)
