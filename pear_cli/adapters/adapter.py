"""One adapter, and one site at work."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from pear_cli.adapters.cut import Cut
from pear_cli.adapters.method import Method
from pear_cli.backbone.site import Site
from pear_cli.backbone.widths import Left, select


class Adapter(nn.Module):
    """The parameters of one adapter; its method has the formula.

    Args:
        method: the method whose `shapes` and `initialise` make the parameters.
        site: where the adapter is at home. It may serve at other sites of the same group.
        banks: the parameters that it has in common with adapters of other sites, by name.

    Attributes:
        written: the output channels, or the blocks, that it writes to after `cut`; None for all.
    """

    written: Tensor | None

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Tensor: ...  # a parameter of the method

    def __init__(self, method: Method, site: Site, banks: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.method = method
        self.site = site
        self.banks = dict(banks)  # a plain dict: they are not this adapter's own
        for name, shape in method.shapes(site).items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        for name, shape in method.buffers(site).items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("written", None, persistent=False)
        self.dropout = nn.Dropout(getattr(method, "dropout", 0.0))
        method.initialise(self)

    def forward(self, x: Tensor, out: Tensor, weight: Tensor | None) -> Tensor:
        """The update at a site: (B, N, C_in), (B, N, C_out), (C_out, C_in) -> (B, N, C_out)."""
        return self.method.update(self, x, out, weight)

    @property
    def like(self) -> Tensor:
        """Any of its parameters; it tells device and dtype."""
        return next(iter((*self.parameters(), *self.banks.values())))

    def cut(self, cut: Cut) -> None:
        """Keep a part of its rows, rank-1 components or blocks alone."""
        for name, parameter in list(self.named_parameters()):
            self.register_parameter(name, nn.Parameter(cut.of(name, parameter.data), parameter.requires_grad))
        if cut.written is not None:
            self.register_buffer("written", torch.tensor(cut.written), persistent=False)

    def narrow(self, left: Mapping[str, Left]) -> None:
        """Keep some of the channels of its parameters, by name."""
        for name, dims in left.items():
            parameter = self.get_parameter(name)
            self.register_parameter(name, nn.Parameter(select(parameter.data, dims), parameter.requires_grad))

    def whole(self, up: Tensor) -> Tensor:
        """`up` (C_out, D) with zeros in the rows that were cut off."""
        if self.written is None:
            return up
        return up.new_zeros(self.site.out_dim, up.shape[1]).index_copy(0, self.written, up)

    def mix(self, x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        """matrix (C_out, C_in) times the channels: the last dimension, of a convolution the second."""
        if self.site.tap is None:
            return functional.linear(x, matrix, bias)
        return functional.conv2d(x, matrix[:, :, None, None], bias)

    def activated(self, h: Tensor, activation: str) -> Tensor:
        """The activation that torch calls by that name, of each number."""
        found: Tensor = getattr(functional, activation)(h)
        return found

    def tensors(self) -> dict[str, Tensor]:
        """The adapter's own parameters by name, detached."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    @classmethod
    def of(cls, method: Method, site: Site, tensors: dict[str, Tensor]) -> "Adapter":
        """A frozen adapter that holds `tensors`; their bottleneck may be narrower than the method's."""
        adapter = cls.__new__(cls)
        nn.Module.__init__(adapter)
        adapter.method, adapter.site, adapter.banks = method, site, {}
        for name, tensor in tensors.items():
            adapter.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        adapter.register_buffer("written", None, persistent=False)
        adapter.dropout = nn.Dropout(0.0)
        return adapter


class Position(nn.Module):
    """One site at work; its output is gate·A_owner(x) + beta·Ā(x).

    Attributes:
        owner: the adapter that serves here, or None.
        knowledge: what the pruned adapter knew, frozen, or None.
        beta: weight of the knowledge, a scalar; a parameter when it is learned.
        gate: None, or a scalar that multiplies the owner's update; importance is measured on it.
    """

    beta: Tensor | None

    def __init__(self, site: Site, host: nn.Module, owner: Adapter | None) -> None:
        super().__init__()
        self.site = site
        self.owner = owner
        self.knowledge: Adapter | None = None
        self.register_parameter("beta", None)
        self.gate: Tensor | None = None
        self._host = (host,)  # in a tuple, so that the backbone's module is not ours too

    @property
    def frozen(self) -> nn.Module:
        """The frozen module whose output it adds to, or beside whose stream it works."""
        return self._host[0]

    @property
    def weight(self) -> Tensor | None:
        """The frozen weight that the site serves, (C_out, C_in), or None."""
        weight = getattr(self._host[0], "weight", None)
        return weight if weight is None or self.site.rows is None else weight[slice(*self.site.rows)]

    def parts(self) -> list[tuple[Adapter, Tensor | None]]:
        """The adapters at work here, each with what multiplies its update."""
        owner = [(self.owner, self.gate)] if self.owner is not None else []
        return owner + ([(self.knowledge, self.beta)] if self.knowledge is not None else [])

    def forward(self, x: Tensor, out: Tensor) -> Tensor | None:
        """The whole update of the site, (B, N, C_out), or None where nothing is at work."""
        total: Tensor | None = None
        for adapter, factor in self.parts():
            update = adapter(x, out, self.weight)
            update = update if factor is None else factor * update
            total = update if total is None else total + update
        return total
