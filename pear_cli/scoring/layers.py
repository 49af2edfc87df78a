"""The importance of channels and of blocks, on a network whose weights hold the updates of its adapters."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.splopa import SPLoPA
from pear_cli.backbone.channels import by_unit, coupled
from pear_cli.backbone.widths import Group, Side, tensor_at
from pear_cli.config.choices import Criterion, Reduction
from pear_cli.scoring.importance import ScoredUnit
from pear_cli.scoring.probe import Probe
from pear_cli.training.engine import derive

Fold = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Layer:
    """The channels of a group, or the blocks of a weight, as sums over parameters.

    Args:
        units: what the scores know of each.
        parts: by parameter, how values of its shape are summed over each unit, (…) -> (units).
        readers: names of the parameters over which Taylor terms are taken.
        group: the group of the channels; null of blocks.
    """

    units: tuple[ScoredUnit, ...]
    parts: Mapping[str, Fold]
    readers: frozenset[str]
    group: Group | None = None


def channels(model: nn.Module, groups: list[Group]) -> list[Layer]:
    """The channels of a network; an attention goes head by head.

    Each group is a compatibility group of its own, so that none loses all its channels.
    """
    found = []
    for group in groups:
        parts: dict[str, Fold] = {}
        readers = set()
        for member in group.members:
            for name, dim in member.parameters(model).items():
                if isinstance(tensor_at(model, name), nn.Parameter):
                    parts[name] = partial(by_unit, dim=dim, index=member.index)
                    readers |= {name} if member.side is Side.read else set()
        sizes = sum(fold(torch.ones(tensor_at(model, name).shape)) for name, fold in parts.items())
        assert isinstance(sizes, Tensor)
        units = tuple(
            ScoredUnit(
                f"{group.name}.channels.{i}", group.block, group.slot, (group.name, len(group), 0), int(size)
            )
            for i, size in enumerate(sizes.tolist())
        )
        found.append(Layer(units, parts, frozenset(readers), group))
    return found


def blocks(adaptation: Adaptation) -> list[Layer]:
    """The blocks of every weight that SPLoPA adapts; none loses them all."""
    method = adaptation.method
    assert isinstance(method, SPLoPA)
    found = []
    for site in adaptation.sites:
        grid = method.grid(site)
        size, count = method.block[0] * method.block[1], grid[0] * grid[1]
        units = tuple(
            ScoredUnit(f"{site.name}.blocks.{i}", site.block, site.slot, (site.name, *grid), size)
            for i in range(count)
        )
        weight = f"{site.module}.weight"
        found.append(Layer(units, {weight: partial(_by_block, grid=grid)}, frozenset({weight})))
    return found


def _by_block(values: Tensor, grid: tuple[int, int]) -> Tensor:
    down, across = grid
    return values.reshape(down, values.shape[0] // down, across, -1).sum((1, 3)).flatten()


def terms(probe: Probe, layers: list[Layer]) -> Tensor:
    """What the criterion says of every unit, (batches, units), float64 on the CPU.

    `taylor` is Σ g·w over the weights that read a channel, or over a block: the derivative of the loss by a
    factor on them. `gradient`, `fisher` and `magnitude` are over all parameters that go with it.
    `group_magnitude` and `group_taylor` are torch-pruning's, see `Library`.
    """
    criterion, model = probe.config.criterion, probe.model
    if criterion is Criterion.random:
        generator = torch.Generator().manual_seed(derive(probe.seed, "score"))
        count = sum(len(layer.units) for layer in layers)
        return torch.rand(1, count, generator=generator, dtype=torch.float64)
    if criterion is Criterion.magnitude:
        return _line([_sum(model, layer, lambda _, w: w.square()).sqrt() for layer in layers])
    if criterion is Criterion.group_magnitude:
        return _line(Library(probe, layers).magnitude())
    if criterion is Criterion.group_taylor:
        library = Library(probe, layers)
        return torch.cat([_line(library.taylor(gradient)) for gradient in _gradients(probe, layers)])
    return torch.cat(
        [
            _line([_of_batch(probe, layer, gradient) for layer in layers])
            for gradient in _gradients(probe, layers)
        ]
    )


def _gradients(probe: Probe, layers: list[Layer]) -> Iterator[dict[str, Tensor]]:
    """∂ℓ_b/∂w of the parameters of all units, by name, batch by batch."""
    wanted = {name: tensor_at(probe.model, name) for layer in layers for name in layer.parts}
    flags = [tensor.requires_grad for tensor in wanted.values()]
    try:
        for tensor in wanted.values():
            tensor.requires_grad_(True)
        for found in probe.gradients(list(wanted.values())):
            yield dict(zip(wanted, found, strict=True))
    finally:
        for tensor, flag in zip(wanted.values(), flags, strict=True):
            tensor.requires_grad_(flag)


class Library:
    """torch-pruning's importance of the channels of a network, as the library itself computes it.

    Of a group, the mean over the layers that have its channels of Σ w² (`magnitude`), or of Σ|g·w| of one
    batch (`taylor`), divided by the group's mean, so that an average channel has 1 in every group. An
    attention head has the mean over its channels. These are the library's defaults.

    Args:
        probe: the network; it is left as it is.
        layers: its channels.

    Source: Fang et al. 2023, arXiv 2301.12900, section 3.3, and torch-pruning's GroupMagnitudeImportance and
    GroupTaylorImportance, which leave out biases, the latter BatchNorms too.
    """

    def __init__(self, probe: Probe, layers: list[Layer]) -> None:
        self.twin = copy.deepcopy(probe.model)  # following a model may leave traces in it
        image, _ = next(iter(probe.batches()))
        of = [layer.group for layer in layers if layer.group is not None]
        assert len(of) == len(layers)
        self.groups = coupled(self.twin, of, image[:1])

    def magnitude(self) -> list[Tensor]:
        """One importance a unit, by layer."""
        return self._scores(torch_pruning.importance.GroupMagnitudeImportance(normalizer=_relative))

    def taylor(self, gradient: Mapping[str, Tensor]) -> list[Tensor]:
        """One importance a unit, by layer.

        Args:
            gradient: of the parameters of all units, by name.
        """
        for name, found in gradient.items():
            tensor_at(self.twin, name).grad = found
        return self._scores(torch_pruning.importance.GroupTaylorImportance(normalizer=_relative))

    def _scores(self, scorer: Callable[[Any], Tensor]) -> list[Tensor]:
        return [scorer(group)[index].mean(1) for group, index in self.groups]


def _relative(importance: Tensor) -> Tensor:
    """The library's normaliser `mean`, but for groups that have no importance at all: they stay zero."""
    return importance / importance.mean().clamp_min(torch.finfo(importance.dtype).tiny)


def _of_batch(probe: Probe, layer: Layer, gradient: Mapping[str, Tensor]) -> Tensor:
    criterion, model = probe.config.criterion, probe.model
    if criterion is Criterion.gradient:
        return _sum(model, layer, lambda name, _: gradient[name].square()).sqrt()
    if criterion is Criterion.fisher:
        return _sum(model, layer, lambda name, w: (gradient[name] * w).square())
    readers = Layer(layer.units, {n: f for n, f in layer.parts.items() if n in layer.readers}, layer.readers)
    if probe.config.reduction is Reduction.sum_abs:
        return _sum(model, readers, lambda name, w: (gradient[name] * w).abs())
    return _sum(model, readers, lambda name, w: gradient[name] * w)


def _sum(model: nn.Module, layer: Layer, term: Callable[[str, Tensor], Tensor]) -> Tensor:
    """Σ of a term over the parameters of each unit."""
    sums = [fold(term(name, tensor_at(model, name).detach())) for name, fold in layer.parts.items()]
    return torch.stack(sums).sum(0)


def _line(of_layers: list[Tensor]) -> Tensor:
    return torch.cat(of_layers)[None].detach().cpu().double()
