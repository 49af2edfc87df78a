"""Views of an attention head: its Taylor importance as read from the frozen model.

Both estimate ℓ(head removed) - ℓ to first order, up to its sign, from activations and their gradients.
Source: three views of a head's importance are named in Heart-LoRA, arXiv 2404.08894; the formulas are ours.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pear_cli.adapters.cut import head_rows
from pear_cli.backbone.site import Site
from pear_cli.backbone.sites import find, heads_reader
from pear_cli.config.choices import View
from pear_cli.scoring.probe import Probe


def output(probe: Probe) -> Tensor:
    """⟨a_h, ∂ℓ_b/∂a_h⟩ with a_h the head's attention output, before `proj`.

    Raises:
        ConfigError: the model normalises between the heads and `proj`.
    """
    readers = {name: heads_reader(probe.model, name) for name in _attentions(probe)}
    products = {name: _Watched(reader) for name, reader in readers.items()}

    def terms(name: str, head: int) -> Tensor:
        a = products[name].value  # B, N, H·Dh
        product = (a.detach() * products[name].gradient).flatten(0, -2).sum(0)  # H·Dh
        return product.reshape(_heads(probe)[name], -1)[head].sum()

    return _measured(probe, list(products.values()), terms)


def weight(probe: Probe) -> Tensor:
    """Σ ⟨W_h x, ∂ℓ_b/∂q_h⟩ over the q, k and v of a head.

    With q_h = W_h x + bias it is Σ ∂ℓ_b/∂W_h · W_h over the head's frozen rows, without their gradients.
    """
    sites: dict[str, list[Site]] = {name: [] for name in _attentions(probe)}
    for site in find(probe.model, ["attn.q", "attn.k", "attn.v"]):
        name = site.name.rpartition(".")[0]
        if name in sites:
            sites[name].append(site)
    modules = {
        site.module: probe.model.get_submodule(site.module) for group in sites.values() for site in group
    }
    watched = {path: _Watched(module, outputs=True) for path, module in modules.items()}

    def terms(name: str, head: int) -> Tensor:
        total = []
        for site in sites[name]:
            seen, module = watched[site.module], modules[site.module]
            first, _ = site.rows or (0, site.out_dim)
            rows = [first + row for row in head_rows(site, head)]
            product = F.linear(seen.read.detach(), module.weight[rows])  # type: ignore[index]
            total.append((product * seen.gradient[..., rows]).sum())
        return torch.stack(total).sum()

    return _measured(probe, list(watched.values()), terms)


VIEWS: dict[View, Callable[[Probe], Tensor]] = {View.output: output, View.weight: weight}


class _Watched:
    """The input or the output of a module in the last forward pass, and the loss's gradient there."""

    def __init__(self, module: nn.Module, outputs: bool = False) -> None:
        self.value = self.read = self.gradient = torch.empty(0)
        if outputs:
            self.handle = module.register_forward_hook(self._after)
        else:
            self.handle = module.register_forward_pre_hook(self._before)

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.value = _tracked(args[0])
        return (self.value, *args[1:])

    def _after(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        self.read, self.value = args[0], _tracked(out)
        return self.value


def _tracked(tensor: Tensor) -> Tensor:
    """The tensor, such that gradients reach it."""
    return tensor if tensor.requires_grad else tensor.detach().requires_grad_()


def _measured(probe: Probe, watched: list[_Watched], terms: Callable[[str, int], Tensor]) -> Tensor:
    """(batches, units), float64 on the CPU."""
    scale = probe.loss_scale
    rows = []
    try:
        for x, y in probe.batches():
            with torch.enable_grad():
                loss = probe.loss(x, y) * scale
            for seen, gradient in zip(
                watched, torch.autograd.grad(loss, [w.value for w in watched]), strict=True
            ):
                seen.gradient = gradient / scale
            names = [unit.unit.name.rpartition(".heads.") for unit in probe.units]
            with torch.no_grad():
                rows.append(torch.stack([terms(name, int(head)).double().cpu() for name, _, head in names]))
    finally:
        for seen in watched:
            seen.handle.remove()
    return torch.stack(rows)


def _attentions(probe: Probe) -> list[str]:
    return list(_heads(probe))


def _heads(probe: Probe) -> dict[str, int]:
    """The number of heads of every attention that has units."""
    return {u.unit.name.rpartition(".heads.")[0]: u.home.site.heads or 0 for u in probe.units}
