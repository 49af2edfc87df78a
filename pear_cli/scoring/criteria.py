"""The criteria, one function each, as docs/methods.md states them.

Each returns its terms, (batches, units) in float64 on the CPU; `REDUCE` makes one score a unit of them. With
ℓ_b the mean cross-entropy of a calibration batch, w the parameters of a unit, g = ∂ℓ_b/∂w, all in eval mode.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pear_cli.adapters.adapter import Position
from pear_cli.config.choices import Criterion, Reduction, ScoreOf, View
from pear_cli.errors import ConfigError
from pear_cli.scoring.probe import Probe
from pear_cli.scoring.units import Slice, UnitAtWork
from pear_cli.scoring.views import VIEWS
from pear_cli.training.engine import derive


def taylor(probe: Probe) -> Tensor:
    """First-order estimate of ℓ(unit removed) - ℓ up to its sign: Σ g·w of every batch.

    Over `score.of = gate` it is ∂ℓ_b/∂z, where z = 1 multiplies the unit's update at all the sites that it
    serves; over `up` and `all` it sums the products of those parameters. `sum_abs` sums |g·w| instead.

    Of a head or a rank-1 component, whose updates are linear in `up`, ∂ℓ_b/∂z is the sum over its part of
    `up`, for `gate` and `up` alike. `score.view` reads a head's importance from the frozen model instead.

    Raises:
        ConfigError: `score.of = up` for a method without such parameters.

    Source: Molchanov et al. 2019, arXiv 1906.10771, section 3.1; reductions: docs/methods.md, section 2.
    """
    if probe.config.view is not View.adapter:
        return VIEWS[probe.config.view](probe)
    absolute = probe.config.reduction is Reduction.sum_abs
    return _per_batch(
        [_sum((g * w).abs() if absolute else g * w for g, w in pairs) for pairs in units]
        for units in probe.pairs(_tensors(probe))
    )


def gradient(probe: Probe) -> Tensor:
    """‖g‖₂ of every batch, over all parameters of the unit."""
    return _per_batch(
        [_sum(g.square() for g, _ in pairs).sqrt() for pairs in units] for units in probe.pairs(_own(probe))
    )


def fisher(probe: Probe) -> Tensor:
    """Σ g² w² of every batch, over all parameters of the unit: invariant to down·c, up/c."""
    return _per_batch(
        [_sum((g * w).square() for g, w in pairs) for pairs in units] for units in probe.pairs(_own(probe))
    )


def magnitude(probe: Probe) -> Tensor:
    """‖w‖₂ over all parameters of the unit; it reads no data."""
    return _per_batch(
        [[_sum(p.of(p.parameter.detach()).square() for p in parts).sqrt() for parts in _own(probe)]]
    )


def activation(probe: Probe) -> Tensor:
    """Mean over tokens, and the sites served, of ‖update‖₂ / ‖output of the frozen module‖₂."""
    ratios: list[list[Tensor]] = [[] for _ in probe.units]
    index = {unit.unit.name: i for i, unit in enumerate(probe.units)}

    def see(unit: UnitAtWork, position: Position, x: Tensor, out: Tensor) -> None:
        update, beside = unit.update(position, x, out)  # B, N, C_out
        base = beside.reshape(-1, beside.shape[-1]).float().norm(dim=-1)  # B, N, C_out -> B·N
        ours = update.reshape(-1, update.shape[-1]).float().norm(dim=-1)
        ratios[index[unit.unit.name]].append((ours / base.clamp_min(torch.finfo(base.dtype).tiny)).mean())

    rows = []
    with torch.no_grad(), probe.watching(see, everywhere=True):
        for x, _ in probe.batches():
            probe.forward(x)
            rows.append([torch.stack(seen).mean() for seen in ratios])
            for seen in ratios:
                seen.clear()
    return _per_batch(rows)


def ablation(probe: Probe) -> Tensor:
    """Measured ℓ(unit removed) - ℓ, signed; its sum over the batches is that of the mean loss an image.

    One pass over the calibration data a unit: the oracle that the other criteria estimate.
    """

    def losses() -> Tensor:
        with torch.no_grad():
            return torch.stack([probe.loss(x, y).cpu().double() * len(y) for x, y in probe.batches()])

    images = sum(len(y) for _, y in probe.batches())
    whole = losses()  # batches
    removed = []
    for unit in probe.units:
        with unit.removed():
            removed.append(losses())
    return (torch.stack(removed, dim=1) - whole[:, None]) / images


def random(probe: Probe) -> Tensor:
    """Uniform in [0, 1), seeded; the control."""
    generator = torch.Generator().manual_seed(derive(probe.seed, "score"))
    return torch.rand(1, len(probe.units), generator=generator, dtype=torch.float64)


CRITERIA: dict[Criterion, Callable[[Probe], Tensor]] = {
    Criterion.taylor: taylor,
    Criterion.gradient: gradient,
    Criterion.magnitude: magnitude,
    Criterion.fisher: fisher,
    Criterion.activation: activation,
    Criterion.ablation: ablation,
    Criterion.random: random,
}

_TAYLOR: dict[Reduction, Callable[[Tensor], Tensor]] = {
    Reduction.mean_abs: lambda terms: terms.abs().mean(0),
    Reduction.abs_of_sum: lambda terms: terms.sum(0).abs(),
    Reduction.sum_abs: lambda terms: terms.abs().sum(0),
    Reduction.squared: lambda terms: terms.square().mean(0),
}


def reduce(terms: Tensor, criterion: Criterion, reduction: Reduction) -> Tensor:
    """One score a unit from the terms of its batches: (batches, units) -> (units)."""
    if criterion is Criterion.taylor:
        return _TAYLOR[reduction](terms)
    return terms.sum(0) if criterion is Criterion.ablation else terms.mean(0)


def _own(probe: Probe) -> list[list[Slice]]:
    """The parameters of every unit.

    Raises:
        ConfigError: a unit that has none of its own.
    """
    bare = [unit.unit.name for unit in probe.units if not unit.slices]
    if bare:
        raise ConfigError(
            f"score.criterion = {probe.config.criterion.value}: {bare[0]} has no parameters of its own; "
            "use score.criterion=taylor score.of=gate, or activation, or ablation"
        )
    return [list(unit.slices) for unit in probe.units]


def _tensors(probe: Probe) -> list[list[Slice]]:
    """What a Taylor term of each unit sums over; gates are put in place."""
    if probe.config.of is ScoreOf.gate and all(unit.whole for unit in probe.units):
        gates = []
        for unit in probe.units:
            like = unit.adapter.like
            gate = torch.ones((), device=like.device, dtype=like.dtype, requires_grad=True)
            unit.gate(gate)
            gates.append([Slice("gate", gate)])
        return gates
    if probe.config.of is ScoreOf.all:
        return _own(probe)
    chosen = [[part for part in unit.slices if part.name.startswith("up")] for unit in probe.units]
    if not all(chosen):
        method = type(probe.units[0].adapter.method).__name__
        raise ConfigError(f"score.of = up: adapters of {method} have no such parameter; use score.of=gate")
    return chosen


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([tensor.sum() for tensor in tensors]).sum()


def _per_batch(rows: Iterable[list[Tensor]]) -> Tensor:
    """Scalars by batch and unit as one table: (batches, units), float64 on the CPU."""
    return torch.stack([torch.stack(row) for row in rows]).detach().cpu().double()
