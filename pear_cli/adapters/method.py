"""The contract of a method: what is trained beside, or inside, a frozen backbone.

A method is a frozen dataclass of hyper-parameters and a few functions of one adapter. It imports torch
nowhere, so that configs are validated and keys computed without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from pear_cli.backbone.site import Site
from pear_cli.config.choices import Unit
from pear_cli.config.range import Checked, Probability, Rank, Scale, require
from pear_cli.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn


class Adapter(Protocol):
    """What a method sees of one adapter: its place, and its parameters by the names of `shapes`."""

    site: Site
    banks: "dict[str, nn.Parameter]"
    dropout: "nn.Dropout"
    written: "Tensor | None"

    def __getattr__(self, name: str) -> "Tensor": ...

    def get_buffer(self, name: str) -> "Tensor": ...

    def whole(self, up: "Tensor") -> "Tensor":
        """`up` (C_out, D) with zeros in the rows that were cut off."""
        ...

    def mix(self, x: "Tensor", matrix: "Tensor", bias: "Tensor | None" = None) -> "Tensor":
        """matrix (C_out, C_in) times the channels: the last dimension, of a convolution the second."""
        ...

    def activated(self, h: "Tensor", activation: str) -> "Tensor":
        """The activation that torch calls by that name, of each number."""
        ...


def kaiming_uniform(tensor: "Tensor") -> None:
    """Set a tensor as torch's own layers start, in place: U(±1/√n), where n numbers make one of its output.

    Source: `torch.nn.init.kaiming_uniform_` with a = √5.
    """
    bound = tensor[0].numel() ** -0.5
    tensor.data.uniform_(-bound, bound)


class Factors(NamedTuple):
    """The factors of an update `scale · up · dropout(down · x)`.

    Args:
        up: (C_out, D).
        down: (D, C_in).
        scale: weight of the update, dimensionless.
    """

    up: "Tensor"
    down: "Tensor"
    scale: float


@dataclass(frozen=True, kw_only=True)
class Method(Checked, group="method"):
    """Base of all methods.

    Args:
        lr: the learning rate that suits the bundled backbone; `optim.lr` takes it by default.
        slots: the kinds of sites to attach at; none for methods that have no adapters.

    Attributes:
        units: what of it can be scored and pruned as one.
        linear: whether an adapter is no more than the factors `up` and `down` of a linear update.
        keeps_knowledge: whether a pruned adapter can be kept by itself, frozen.
        starts_at_identity: whether a new adaptation leaves the logits exactly as they were.
        convolutions: whether it can attach to convolutions.
        unmerged: why updates without `factors` cannot be merged into the frozen weights.
    """

    units: ClassVar[frozenset[Unit]] = frozenset({Unit.adapter})
    linear: ClassVar[bool] = False
    keeps_knowledge: ClassVar[bool] = True
    starts_at_identity: ClassVar[bool] = True
    convolutions: ClassVar[bool] = False
    unmerged: ClassVar[str] = "its update is no linear function of the layer's input"

    lr: Scale
    slots: tuple[str, ...]

    def normalised(self) -> "Method":
        """The same method without settings that have no effect, so that equal ones have equal keys."""
        return self

    def place(self, site: Site) -> Site:
        """Where an adapter of the slot reads and adds; the site as it was found, but for a few methods."""
        return site

    def shapes(self, site: Site) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of the parameters that one adapter has at `site`."""
        return {}

    def buffers(self, site: Site) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of the statistics that one adapter gathers at `site`; they start at zero."""
        return {}

    def banks(self, site: Site) -> Mapping[str, tuple[str, tuple[int, ...]]]:
        """Parameters that adapters of several sites have in common: their bank, and their shape.

        Adapters that name the same bank hold the same parameter, which is trained and stored once.
        """
        return {}

    def initialise(self, adapter: Adapter) -> None:
        """Set the parameters of a new adapter, in place, from torch's global generator."""

    def initialise_bank(self, name: str, bank: "Tensor") -> None:
        """Set a new bank, in place, from torch's global generator."""

    def update(self, adapter: Adapter, x: "Tensor", out: "Tensor", weight: "Tensor | None") -> "Tensor":
        """What the adapter adds.

        Args:
            x: what it reads, (B, N, C_in).
            out: output of the frozen module, (B, N, C_out).
            weight: frozen weight of the site that it serves, (C_out, C_in); None where there is none.

        Returns:
            The update, (B, N, C_out), scale included.
        """
        raise TypeError(f"{type(self).__name__} has no adapters")

    def factors(self, adapter: Adapter, weight: "Tensor | None") -> Factors | None:
        """The factors of an update that is a low-rank product; None where it is not.

        Args:
            weight: as `update` takes it.
        """
        return None

    def delta(self, adapter: Adapter, weight: "Tensor | None") -> "Tensor | None":
        """What the update adds to the weight, (C_out, C_in), without its dropout; None where nothing does."""
        factors = self.factors(adapter, weight)
        return None if factors is None else factors.scale * (factors.up @ factors.down)

    def shift(self, adapter: Adapter) -> "Tensor | None":
        """What the update adds to the bias, (C_out), where `delta` is all else of it."""
        return None

    def sides(self, parameter: str) -> tuple[int | None, int | None]:
        """Which dimensions of a parameter are the output and the input channels of its site, if any."""
        return {"bias": (0, None)}.get(parameter, (None, None))

    def adapts(self, parameter: str) -> bool:
        """Whether the backbone's own parameter of that name is trained."""
        return False

    @property
    def mixes_images(self) -> bool:
        """Whether in training what an adapter adds to an image depends on the others of its batch."""
        return False

    @property
    def drops_input(self) -> bool:
        """Whether dropout is on what an adapter reads, and not on its bottleneck."""
        return False

    @property
    def has_units(self) -> bool:
        """Whether there are adapters to score, prune and share."""
        return bool(self.slots)


@dataclass(frozen=True, kw_only=True)
class BottleneckMethod(Method):
    """A method whose adapters have a `down` and an `up` projection of width `rank` between them.

    Args:
        rank: D, the bottleneck width.
        scale: weight of the update, dimensionless.
        dropout: probability, on the bottleneck, while training.
    """

    rank: Rank
    scale: Scale
    dropout: Probability

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.slots:
            raise ConfigError("method.slots is empty: name at least one slot, such as attn.q")

    def shapes(self, site: Site) -> Mapping[str, tuple[int, ...]]:
        smaller = min(site.in_dim, site.out_dim)
        require(
            self.rank <= smaller,
            "method.rank",
            self.rank,
            f"at most {smaller}, the smaller side of {site.name}",
        )
        return {"down": (self.rank, site.in_dim), "up": (site.out_dim, self.rank)}

    def initialise(self, adapter: Adapter) -> None:
        kaiming_uniform(adapter.down)
        adapter.up.data.zero_()


@dataclass(frozen=True, kw_only=True)
class NonlinearBottleneck(BottleneckMethod):
    """A bottleneck with an activation between its projections.

    Args:
        bias: whether `down` and `up` have biases, which start at zero.
    """

    bias: bool

    unmerged = "there is an activation between its projections"

    def shapes(self, site: Site) -> Mapping[str, tuple[int, ...]]:
        biases = {"down_bias": (self.rank,), "up_bias": (site.out_dim,)}
        return {**super().shapes(site), **(biases if self.bias else {})}

    def initialise(self, adapter: Adapter) -> None:
        super().initialise(adapter)
        for name in ("down_bias", "up_bias") if self.bias else ():
            getattr(adapter, name).data.zero_()

    def through(self, adapter: Adapter, x: "Tensor", activation: str) -> "Tensor":
        """scale · up(dropout(activation(down(x)))), (B, N, C_in) -> (B, N, C_out)."""
        h: Tensor = x @ adapter.down.T  # B, N, C_in -> B, N, D
        if self.bias:
            h = h + adapter.down_bias
        h = adapter.dropout(adapter.activated(h, activation))
        y = h @ adapter.up.T  # B, N, D -> B, N, C_out
        return self.scale * (y + adapter.up_bias if self.bias else y)
