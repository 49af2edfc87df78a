"""Where adapters work: a frozen module, and the hooks that add the updates at its positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pear_cli.adapters.adapter import Position


class Host:
    """A frozen module whose output positions add to, through a forward hook.

    Where every update is a low-rank product, the module's positions are computed together: one stacked
    `down`, one padded `up`, added to the output in one product. Copies of a fused qkv's output would cost
    more than the low-rank products.
    """

    def __init__(self, path: str, reads: str, positions: list[Position]) -> None:
        self.path, self.reads = path, reads
        self.positions = positions
        self.called = False
        self._read: Tensor | None = None

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        """Hook it into a model."""
        handles = [model.get_submodule(self.path).register_forward_hook(self._hook)]
        if self.reads:
            handles.append(model.get_submodule(self.reads).register_forward_pre_hook(self._remember))
        return handles

    def _remember(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._read = args[0]

    def _hook(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        if not self.called:  # a flag, and set once: torch.compile compiles anew for each value that it sees
            self.called = True
        x = args[0]
        if self.reads:
            x, self._read = self._read, None
        return self.add(x, out)

    def add(self, x: Tensor, out: Tensor) -> Tensor:
        """The module's output with all updates: what they read (B, N, C_in), and (B, N, C_out)."""
        products = self.products()
        if products is not None:
            return add_products(products, x, out)
        for position in self.positions:
            rows = position.site.rows
            update = position(x, out if rows is None else out[..., slice(*rows)])
            if update is not None and rows is None:
                out = out + update.reshape(out.shape)
            elif update is not None and rows is not None:
                before, after = rows[0], out.shape[-1] - rows[1]
                out = out + nn.functional.pad(update, (before, after))
        return out

    def products(self) -> "list[Product] | None":
        """The updates at work here as low-rank products; None where one is not, or is being watched."""
        products = []
        for position in self.positions:
            if position._forward_hooks or position._forward_pre_hooks:
                return None
            for adapter, factor in position.parts():
                dropout = adapter.dropout
                if adapter.method.drops_input and dropout.training and dropout.p:
                    return None  # each adapter reads another input
                factors = adapter.method.factors(adapter, position.weight)
                if factors is None:
                    return None
                up, down, scale = factors
                weight = scale if factor is None else scale * factor
                products.append(Product(up, down, weight, position.site.rows, adapter.dropout))
        return products


@dataclass(frozen=True, slots=True)
class Product:
    """An update `weight · up · dropout(down · x)` of some of a module's output channels."""

    up: Tensor
    down: Tensor
    weight: float | Tensor
    rows: tuple[int, int] | None
    dropout: nn.Dropout


def add_products(products: Sequence[Product], x: Tensor, out: Tensor) -> Tensor:
    """A module's output (…, C_out) with the updates of what it reads, (…, C_in).

    Without gradients `out` is changed in place: a copy takes longer than the products.
    """
    if not products:
        return out
    width = out.shape[-1]
    h = x @ torch.cat([product.down for product in products]).T  # B, N, C -> B, N, ΣD
    if any(product.dropout.p and product.dropout.training for product in products):
        pieces = torch.split(h, [product.down.shape[0] for product in products], dim=-1)
        h = torch.cat([p.dropout(piece) for p, piece in zip(products, pieces, strict=True)], dim=-1)
    ups = []
    for product in products:
        first, last = product.rows or (0, width)
        ups.append(nn.functional.pad(product.up, (0, 0, first, width - last)) * product.weight)
    up = torch.cat(ups, dim=1).to(h.dtype)  # C_host, ΣD
    add = torch.addmm if torch.is_grad_enabled() else Tensor.addmm_
    return add(out.reshape(-1, width), h.reshape(-1, h.shape[-1]), up.T).reshape(out.shape)
