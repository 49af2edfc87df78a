"""Structured pruning adapters: updates of a weight that lose their channels together with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pear_cli.adapters.method import Adapter, Method
from pear_cli.backbone.site import Site, Tap
from pear_cli.config.choices import Unit
from pear_cli.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

NEARLY_ZERO = 1e-4
"""Half-width of the uniform start of an update: nearly the identity, with a gradient for every parameter."""


@dataclass(frozen=True, kw_only=True)
class StructuredPruningAdapter(Method):
    """Base: an update ΔW of a frozen weight, and a bias that is trained.

        y = (weight + ΔW) * x + base bias + bias

    Of a convolution, ΔW (C_out, C_in) stands at the centre of the kernel. `bias` is what training adds to the
    layer's own, which stays in the backbone; it starts at zero. Where channels are pruned, the weight, ΔW and
    the biases lose the same rows and columns: a task stores its masks and what is left of its adapters.

    Source: Hedegaard et al. 2022, arXiv 2211.10155, section 3.
    """

    units: ClassVar[frozenset[Unit]] = frozenset({Unit.channel})
    keeps_knowledge = False
    starts_at_identity = False
    convolutions = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.slots:
            raise ConfigError("method.slots is empty: name at least one slot, such as mlp.fc1")
        if "mlp" in self.slots:
            raise ConfigError(
                f"method.slots = {', '.join(self.slots)}: {type(self).__name__} works on the weight of a "
                "layer, and mlp has none; use mlp.fc1 or mlp.fc2"
            )

    def shapes(self, site: Site) -> Mapping[str, tuple[int, ...]]:
        return {"bias": (site.out_dim,)}

    def initialise(self, adapter: Adapter) -> None:
        adapter.bias.data.zero_()

    def delta(self, adapter: Adapter, weight: "Tensor | None") -> "Tensor":
        raise TypeError(f"{type(self).__name__} has no update")

    def shift(self, adapter: Adapter) -> "Tensor":
        return adapter.bias

    def update(self, adapter: Adapter, x: "Tensor", out: "Tensor", weight: "Tensor | None") -> "Tensor":
        return adapter.mix(read(adapter.site.tap, x, out), self.delta(adapter, weight), adapter.bias)


def read(tap: Tap | None, x: "Tensor", out: "Tensor") -> "Tensor":
    """What the centre of a kernel sees: (B, C, H, W) -> (B, C, H_out, W_out); the input of a linear layer."""
    if tap is None:
        return x
    rows, columns = out.shape[-2:]
    return x[..., tap.first :: tap.stride, tap.first :: tap.stride][..., :rows, :columns]
