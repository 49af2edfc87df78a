"""The mask: heads, rank-1 components, blocks or channels that are pruned, and what it leaves of adapters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, filterfalse
from typing import TYPE_CHECKING, Any

from pear_cli.adapters.cut import HEADED, Cut, head_rows
from pear_cli.adapters.method import Method
from pear_cli.adapters.splopa import SPLoPA
from pear_cli.backbone.site import Site
from pear_cli.config.choices import Effect, Unit
from pear_cli.errors import CorruptArtifact
from pear_cli.scoring.importance import Importance
from pear_cli.store.decoding import decoding

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pear_cli.adapters.adaptation import Adaptation


LIMIT = 1 << 20
"""Units of one layer that a mask may name."""


@dataclass(frozen=True)
class Mask:
    """Which parts are pruned: of the adapters, or, as channels, of the whole network.

    Args:
        unit: what is pruned; whole adapters have a share map instead.
        effect: at a pruned head, whether the adapters' updates are switched off, or its attention output,
            and with it the updates.
        gone: the indices of the pruned units at each place, as `0-3,7`: of heads at an attention, of ranks
            and blocks at a site, of channels at the module that writes them.
        notes: what the reader of the result must know, in words.

    Raises:
        CorruptArtifact: units that are shared instead, or indices of another form.
    """

    unit: Unit
    effect: Effect
    gone: dict[str, str]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.unit is Unit.adapter:
            raise CorruptArtifact("not a mask: adapters have a share map")
        try:
            found = self.by_place()
        except (ValueError, AttributeError) as error:
            raise CorruptArtifact(f"not a mask: {error}") from None
        for place, indices in found.items():
            if not isinstance(place, str) or len(set(indices)) < len(indices):
                raise CorruptArtifact(f"not a mask: a unit of {place} stands in it twice")
        if not all(isinstance(note, str) for note in self.notes):
            raise CorruptArtifact("not a mask: a note is no text")

    @classmethod
    def of(cls, unit: Unit, effect: Effect, pruned: Sequence[str], notes: tuple[str, ...] = ()) -> "Mask":
        """The mask of units with names as `<place>.heads.<index>`."""
        gone: dict[str, list[int]] = {}
        for name in pruned:
            place, _, index = name.rpartition(f".{unit.value}s.")
            gone.setdefault(place, []).append(int(index))
        return cls(unit, effect, {place: ranges(sorted(indices)) for place, indices in gone.items()}, notes)

    @property
    def pruned(self) -> tuple[str, ...]:
        """Names of the pruned units."""
        found, kind = self.by_place(), f"{self.unit.value}s"
        return tuple(f"{place}.{kind}.{index}" for place in found for index in found[place])

    def by_place(self) -> dict[str, list[int]]:
        """The pruned indices at each place, in order."""
        return {place: _indices(indices) for place, indices in self.gone.items()}

    def named_before(self, left: Importance) -> Importance:
        """The importance of the units that are left, by the names that they had before any was pruned."""
        still = {
            place: filterfalse(frozenset(gone).__contains__, count())
            for place, gone in self.by_place().items()
        }
        units = []
        for unit in left.units:
            place, kind, _ = unit.name.rpartition(f".{self.unit.value}s.")
            name = f"{place}{kind}{next(still[place])}" if place in still else unit.name
            units.append(replace(unit, name=name))
        return replace(left, units=tuple(units))

    def cuts(self, adaptation: "Adaptation") -> dict[str, Cut]:
        """What is left of the adapter at each site of a dense model that loses something.

        Raises:
            CorruptArtifact: a unit that the model has not.
        """
        sites = adaptation.sites
        found: dict[str, Cut] = {}
        for place, gone in self.by_place().items():
            attention = f"{place}."
            headed = self.unit is Unit.head
            here = [s for s in sites if (_is_headed(s, attention) if headed else s.name == place)]
            count = min((self._count(site, adaptation.method) for site in here), default=0)
            if not here or gone[-1] >= count:
                raise CorruptArtifact(
                    f"the mask prunes {place}.{self.unit.value}s.{gone[-1]}, which is not there"
                )
            lost = frozenset(gone)
            kept = [index for index in range(count) if index not in lost]
            for site in here:
                if self.unit is Unit.rank:
                    found[site.name] = Cut(ranks=kept)
                elif self.unit is Unit.block:
                    found[site.name] = Cut(blocks=kept)
                else:
                    found[site.name] = Cut(rows=sorted(row for head in kept for row in head_rows(site, head)))
        return found

    def _count(self, site: Site, method: Method) -> int:
        """How many such units a site has."""
        if self.unit is Unit.block and isinstance(method, SPLoPA):
            down, across = method.grid(site)
            return down * across
        return (site.heads or 0) if self.unit is Unit.head else getattr(method, "rank", 0)

    def apply(self, model: "nn.Module", adaptation: "Adaptation") -> None:
        """Take the pruned parts from a dense model, in place."""
        for site, cut in self.cuts(adaptation).items():
            (position,) = adaptation.at(site)
            assert position.owner is not None
            if cut.blocks is not None and isinstance(adaptation.method, SPLoPA):
                weight = model.get_submodule(position.site.module).get_parameter("weight")
                clear(weight.data, adaptation.method.grid(position.site), cut.blocks)
            if cut.nothing:
                position.owner = None
            else:
                position.owner.cut(cut)
        if self.unit is Unit.head and self.effect is Effect.attention:
            for attention, heads in self.by_place().items():
                adaptation.silence(model, attention, heads)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists; `from_json` reads them back."""
        return {
            "unit": self.unit.value,
            "effect": self.effect.value,
            "gone": self.gone,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: Any) -> "Mask":
        """Read what `to_json` wrote.

        Raises:
            CorruptArtifact: anything else.
        """
        with decoding("a mask"):
            return cls(
                Unit(value["unit"]), Effect(value["effect"]), dict(value["gone"]), tuple(value["notes"])
            )


def clear(weight: "Tensor", grid: tuple[int, int], kept: Sequence[int]) -> None:
    """Set all blocks of a weight (C_out, C_in) to zero but the kept ones, in place."""
    down, across = grid
    mask = weight.new_zeros(down * across)
    mask[list(kept)] = 1
    weight.view(down, weight.shape[0] // down, across, -1).mul_(mask.view(down, 1, across, 1))


def _is_headed(site: Site, attention: str) -> bool:
    return site.slot in HEADED and site.name.startswith(attention) and site.heads is not None


def ranges(indices: Sequence[int]) -> str:
    """Ascending indices as text: 0-3,7."""
    spans: list[list[int]] = []
    for index in indices:
        if spans and spans[-1][1] == index - 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in spans)


def _indices(text: str) -> list[int]:
    found: list[int] = []
    for span in text.split(","):
        first, _, last = span.partition("-")
        if int(last or first) >= LIMIT:
            raise ValueError(f"{span} is more than any layer has")
        found += range(int(first), int(last or first) + 1)
    return found


def left_of(tensors: "Mapping[str, Tensor]", cuts: Mapping[str, Cut]) -> "dict[str, Tensor]":
    """What cuts leave of tensors with names as `adapter.<site>.<parameter>::exp_avg`.

    Scalars and the tensors of other sites are left as they are.
    """
    left = {}
    for name, tensor in tensors.items():
        site, _, parameter = name.partition("::")[0].removeprefix("adapter.").rpartition(".")
        cut = cuts.get(site)
        if cut is None:
            left[name] = tensor
        elif not cut.nothing:
            left[name] = cut.of(parameter, tensor) if tensor.ndim else tensor
    return left
