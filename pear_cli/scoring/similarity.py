"""How alike the adapters of one compatibility group are, for the share rule `similar`."""

import torch
from torch import Tensor

from pear_cli.adapters.adapter import Position
from pear_cli.scoring.probe import Probe
from pear_cli.scoring.units import UnitAtWork
from pear_cli.training.engine import derive

ROWS = 1024
"""Tokens, over all calibration batches, on which outputs are compared."""


def similarities(probe: Probe, batches: int) -> dict[str, dict[str, float]]:
    """Linear CKA(A_s(x_s), A_k(x_s)) of every ordered pair (s, k) within a group, x_s what site s reads.

    Every batch gives its share of at most `ROWS` tokens, drawn by a generator of their own, so that the same
    data always gives the same similarities. An adapter that still adds nothing is similar to none: 0.

    Args:
        batches: how many calibration batches there are.
    """
    quota = max(1, ROWS // batches)
    inputs: dict[str, list[Tensor]] = {unit.unit.name: [] for unit in probe.units}
    outputs: dict[str, list[Tensor]] = {unit.unit.name: [] for unit in probe.units}

    def see(unit: UnitAtWork, position: Position, x: Tensor, out: Tensor) -> None:
        taken = inputs[unit.unit.name]
        if len(taken) * quota >= ROWS:
            return
        x, out = x.reshape(-1, x.shape[-1]), out.reshape(-1, out.shape[-1])  # B, N, C -> B·N, C
        generator = torch.Generator().manual_seed(derive(0, "tokens", len(taken)))
        rows = torch.randperm(len(x), generator=generator)[:quota].to(x.device)
        taken.append(x[rows].to(unit.adapter.like.dtype))
        outputs[unit.unit.name].append(out[rows].to(unit.adapter.like.dtype))

    with torch.no_grad(), probe.watching(see, everywhere=False):
        for x, _ in probe.batches():
            probe.forward(x)
    found: dict[str, dict[str, float]] = {}
    for unit in probe.units:
        site = unit.unit.name
        x, out = torch.cat(inputs.pop(site))[None], torch.cat(outputs.pop(site))[None]  # 1, ROWS, C
        with torch.no_grad():
            own = unit.adapter(x, out, unit.home.weight)[0]
            found[site] = {
                other.unit.name: linear_cka(own, other.adapter(x, out, unit.home.weight)[0])
                for other in probe.units
                if other is not unit and other.unit.group == unit.unit.group
            }
    return found


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of two outputs on the same n inputs, (n, C) and (n, C'), in [0, 1].

        CKA(X, Y) = ‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖)          X, Y with the mean over the n rows taken off

    A constant output has no direction: its CKA is 0 here, where the formula has 0/0.

    Source: Kornblith et al. 2019, arXiv 1905.00414, equations 3 and 4.
    """
    sides = []
    for side in (first, second):
        centred = side - side.mean(0)
        norm = centred.norm()
        if norm <= 10 * torch.finfo(side.dtype).eps * side.norm():
            return 0.0
        sides.append(centred / norm)
    x, y = sides
    cka = (y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())
    return float(cka.clamp(max=1))  # not min(): it would make 1 of a NaN
