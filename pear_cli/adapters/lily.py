"""Lily: low-rank updates whose two projections are shared across the blocks, mixed by a router a site."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Annotated

from pear_cli.adapters.method import Adapter, Factors, Method, kaiming_uniform
from pear_cli.backbone.site import Site
from pear_cli.config.range import Range, Rank, Scale, require
from pear_cli.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

BLOCKS = 12
"""Depth of ViT-B: the published scripts share one `lp` among 12 // experts blocks."""

DECAY = 0.9
"""Of `router_stats: running`, a batch: about the last ten batches count, as in PyTorch's BatchNorm."""


class RouterStats(Enum):
    """What the share of each expert is averaged over in eval mode; in training it is always the batch."""

    batch = "batch"
    running = "running"


@dataclass(frozen=True, kw_only=True)
class Lily(Method):
    """Learn updates whose projections are interconnected across the blocks.

        h = act(lp · x);   p = mean over batch and tokens of softmax(router · h)
        y = base(x) + scale · h · Σ_e p_e·HP_e          lp: D×C_in, router: E×D, HP: E×D×C_out, no bias

    At the slot `mlp`, the bottleneck is 2D wide and act a ReLU; elsewhere it is D wide and act the identity.
    `lp` is a bank of `stride` consecutive blocks, `HP` a bank of the whole model, each for one slot and
    width; only the router is a site's own. Starts at the identity: `HP` is zero.

    A unit is the router and the update of one site. Pruning it takes both away; banks stay as long as a kept
    adapter uses them. An owner serves at a pruned site with its own `lp`, router and `HP`. An update depends
    on banks that keep changing, so nothing is kept of a pruned one: `knowledge` is `none`.

    Args:
        rank: D; the bottleneck is at most as wide as the smaller side of its site.
        scale: weight of the update, dimensionless.
        experts: E; at least 2 where there is a router.
        stride: blocks that share one `lp`, counted from the input; the last group may be
            shorter. null is 12 // experts.
        monoscale: p_e = 1/E, without routers. A unit then has no parameters of its own, and the experts,
            which start alike, stay alike, as they do in the original.
        router_stats: `batch` averages p over the batch at hand, as the original does: what the model says
            of an image depends on the images beside it. `running` takes the average over the training
            batches instead, weighted by 0.9 a batch, and 1/E before the first one; of an owner, over all the
            sites that it serves. Then the router gets no gradient in eval mode.
        slots: where to attach; `pear sites` lists what a backbone has.

    Raises:
        ConfigError: a value out of its range, a bottleneck wider than its site, `running` without routers.

    Source: Zhong et al. 2024, arXiv 2407.09946, section 3, and the authors' visual scripts, which have the
    stride, the bottleneck of the mlp, and `monoscale`. `running` is ours.
    """

    rank: Rank
    scale: Scale
    experts: Annotated[int, Range(1, 1024)]
    stride: Rank | None
    monoscale: bool
    router_stats: RouterStats

    keeps_knowledge = False
    unmerged = (
        "its routers depend on the layer's input, and at the mlp there is a ReLU between its projections; "
        "with method.monoscale=true it merges at linear slots"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.experts >= 2 or self.monoscale,
            "method.experts",
            self.experts,
            "at least 2, or there is nothing to route between; one expert needs method.monoscale=true",
        )
        if self.monoscale and self.router_stats is RouterStats.running:
            raise ConfigError(
                "method.router_stats = running: with method.monoscale=true there is no router; use batch"
            )
        if not self.slots:
            raise ConfigError("method.slots is empty: name at least one slot, such as attn.k")

    def normalised(self) -> "Lily":
        usual = replace(self, stride=None)
        return usual if usual.blocks_a_group == self.blocks_a_group else self

    @property
    def mixes_images(self) -> bool:
        return not self.monoscale

    @property
    def blocks_a_group(self) -> int:
        """How many consecutive blocks share one `lp`."""
        return self.stride if self.stride is not None else max(1, BLOCKS // self.experts)

    def width(self, site: Site) -> int:
        """The bottleneck's width at a site: D, at the mlp 2D."""
        times, smaller = (2 if site.slot == "mlp" else 1), min(site.in_dim, site.out_dim)
        require(
            times * self.rank <= smaller,
            "method.rank",
            self.rank,
            f"at most {smaller // times}: a bottleneck of {'2D' if times == 2 else 'D'} is no wider than "
            f"{smaller}, the smaller side of {site.name}",
        )
        return times * self.rank

    def shapes(self, site: Site) -> Mapping[str, tuple[int, ...]]:
        return {} if self.monoscale else {"router": (self.experts, self.width(site))}

    def buffers(self, site: Site) -> Mapping[str, tuple[int, ...]]:
        return {"routed": (self.experts,)} if self.router_stats is RouterStats.running else {}

    def banks(self, site: Site) -> Mapping[str, tuple[str, tuple[int, ...]]]:
        group, width = site.block // self.blocks_a_group, self.width(site)
        return {
            "lp": (f"lp.{site.slot}.{site.in_dim}.{group}", (width, site.in_dim)),
            "hp": (f"hp.{site.slot}.{site.out_dim}", (self.experts, width, site.out_dim)),
        }

    def initialise(self, adapter: Adapter) -> None:
        if not self.monoscale:
            kaiming_uniform(adapter.router)

    def initialise_bank(self, name: str, bank: "Tensor") -> None:
        if name == "hp":
            bank.data.zero_()
        else:
            kaiming_uniform(bank)

    def update(self, adapter: Adapter, x: "Tensor", out: "Tensor", weight: "Tensor | None") -> "Tensor":
        h: Tensor = x @ adapter.banks["lp"].T  # B, N, C_in -> B, N, D
        if adapter.site.slot == "mlp":
            h = h.relu()
        return self.scale * (h @ self._mixture(adapter, h))  # B, N, D -> B, N, C_out

    def factors(self, adapter: Adapter, weight: "Tensor | None") -> Factors | None:
        if not self.monoscale or adapter.site.slot == "mlp":
            return None
        return Factors(adapter.banks["hp"].mean(0).T, adapter.banks["lp"], self.scale)

    def _mixture(self, adapter: Adapter, h: "Tensor") -> "Tensor":
        """Σ_e p_e·HP_e, (D, C_out)."""
        hp = adapter.banks["hp"]
        if self.monoscale:
            return hp.mean(0)
        return (self._routing(adapter, h) @ hp.flatten(1)).view(hp.shape[1:])  # E; E, D, C_out -> D, C_out

    def _routing(self, adapter: Adapter, h: "Tensor") -> "Tensor":
        """p, the share of each expert, (E), which sums to 1; in training, `running` notes it."""
        running = self.router_stats is RouterStats.running
        if running and not adapter.training:
            return _average(adapter.routed)
        p = (h @ adapter.router.T).softmax(-1).flatten(0, -2).mean(0)  # B, N, D -> B, N, E -> E
        if running:
            adapter.routed.mul_(DECAY).add_(p.detach())
        return p


def _average(routed: "Tensor") -> "Tensor":
    """The mean of all p so far, weighted by `DECAY` a batch; uniform before there is any.

    `routed` is their decayed sum. Each p sums to 1, so that its own sum is that of the weights.
    """
    total = routed.sum()
    return (routed / total).where(total > 0, 1 / len(routed))
