"""The criteria, one function each, as docs/methods.md states them.

Each returns its terms, (batches, units) in float64 on the CPU; `REDUCE` makes one score a unit of them. With
ℓ_b the mean cross-entropy of a calibration batch, w the parameters of a unit, g = ∂ℓ_b/∂w, all in eval mode.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pear_cli.adapters.base import Position
from pear_cli.choices import Criterion, Reduction, ScoreOf
from pear_cli.engine import derive
from pear_cli.errors import ConfigError
from pear_cli.scoring.probe import Probe, UnitAtWork


def taylor(probe: Probe) -> Tensor:
    """First-order estimate of ℓ(unit removed) - ℓ up to its sign: Σ g·w of every batch.

    Over `score.of = gate` it is ∂ℓ_b/∂z, where z = 1 multiplies the unit's update at all the sites that it
    serves; over `up` and `all` it sums the products of those parameters. `sum_abs` sums |g·w| instead.

    Raises:
        ConfigError: `score.of = up` for a method without such parameters.

    Source: Molchanov et al. 2019, arXiv 1906.10771, section 3.1; reductions: docs/methods.md, section 2.
    """
    wanted = _tensors(probe)
    absolute = probe.config.reduction is Reduction.sum_abs
    return _per_batch(
        [_sum((g * w).abs() if absolute else g * w for g, w in zip(gs, ws, strict=True)) for gs, ws in pairs]
        for pairs in (list(zip(grads, wanted, strict=True)) for grads in probe.gradients(wanted))
    )


def gradient(probe: Probe) -> Tensor:
    """‖g‖₂ of every batch, over all parameters of the unit."""
    wanted = [list(unit.adapter.parameters()) for unit in probe.units]
    return _per_batch(
        [_sum(g.square() for g in gs).sqrt() for gs in grads] for grads in probe.gradients(wanted)
    )


def fisher(probe: Probe) -> Tensor:
    """Σ g² w² of every batch, over all parameters of the unit: invariant to down·c, up/c."""
    wanted = [list(unit.adapter.parameters()) for unit in probe.units]
    return _per_batch(
        [
            _sum((g * w).square() for g, w in zip(gs, ws, strict=True))
            for gs, ws in zip(grads, wanted, strict=True)
        ]
        for grads in probe.gradients(wanted)
    )


def magnitude(probe: Probe) -> Tensor:
    """‖w‖₂ over all parameters of the unit; it reads no data."""
    return _per_batch(
        [[_sum(w.detach().square() for w in unit.adapter.parameters()).sqrt() for unit in probe.units]]
    )


def activation(probe: Probe) -> Tensor:
    """Mean over tokens, and the sites served, of ‖update‖₂ / ‖output of the frozen module‖₂."""
    ratios: list[list[Tensor]] = [[] for _ in probe.units]
    index = {unit.unit.site: i for i, unit in enumerate(probe.units)}

    def see(unit: UnitAtWork, position: Position, x: Tensor, out: Tensor) -> None:
        update = unit.adapter(x, out, position.weight)  # B, N, C_out
        base = out.reshape(-1, out.shape[-1]).float().norm(dim=-1)  # B, N, C_out -> B·N
        ours = update.reshape(-1, update.shape[-1]).float().norm(dim=-1)
        ratios[index[unit.unit.site]].append((ours / base.clamp_min(torch.finfo(base.dtype).tiny)).mean())

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
        unit.gate(torch.zeros((), device=unit.parameter.device, dtype=unit.parameter.dtype))
        removed.append(losses())
        unit.gate(None)
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

WITHOUT_DATA = frozenset({Criterion.magnitude, Criterion.random})

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


def _tensors(probe: Probe) -> list[list[Tensor]]:
    """What a Taylor term of each unit sums over; gates are put in place."""
    if probe.config.of is ScoreOf.gate:
        gates = []
        for unit in probe.units:
            like = unit.parameter
            gates.append(torch.ones((), device=like.device, dtype=like.dtype, requires_grad=True))
            unit.gate(gates[-1])
        return [[gate] for gate in gates]
    start = "up" if probe.config.of is ScoreOf.up else ""
    chosen = [[p for n, p in unit.adapter.named_parameters() if n.startswith(start)] for unit in probe.units]
    if not all(chosen):
        method = type(probe.units[0].adapter.method).__name__
        raise ConfigError(f"score.of = up: adapters of {method} have no such parameter; use score.of=gate")
    return [list(tensors) for tensors in chosen]


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([tensor.sum() for tensor in tensors]).sum()


def _per_batch(rows: Iterable[list[Tensor]]) -> Tensor:
    """Scalars by batch and unit as one table: (batches, units), float64 on the CPU."""
    return torch.stack([torch.stack(row) for row in rows]).detach().cpu().double()
