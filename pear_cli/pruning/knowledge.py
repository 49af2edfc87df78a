"""The knowledge checkpoint: what the pruned adapters had learned, kept for the adaptation that follows.

At a pruned site s with owner o:  y = base(x) + scale·A_o(x) + scale·beta·Ā_s(x), with A_o = 0 where nobody
serves. `preserve` makes the tensors of Ā_s that are stored; `decode` makes frozen adapters of them.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.adapter import Adapter
from pear_cli.adapters.method import Method
from pear_cli.backbone.site import Site
from pear_cli.config.choices import KnowledgeKind, ShareRule
from pear_cli.config.settings import Knowledge
from pear_cli.errors import ConfigError, CorruptArtifact
from pear_cli.pruning.preservable import check
from pear_cli.pruning.share_map import ShareMap
from pear_cli.scoring.importance import Importance


def preserve(
    adaptation: Adaptation, share_map: ShareMap, importance: Importance, config: Knowledge
) -> dict[str, Tensor]:
    """Keep what the adapters of the pruned sites know; call it before `adaptation.share`.

    `absorb` changes the owners' tensors in place and has nothing to store.

    Returns:
        The tensors to store, as `encode` names them.

    Raises:
        ConfigError: see `check`.
    """
    check(config, share_map.rule or ShareRule.none, adaptation.method)
    if config.kind is KnowledgeKind.absorb:
        absorb(adaptation, share_map, importance)
    if config.kind in (KnowledgeKind.none, KnowledgeKind.absorb):
        return {}
    adapters = adaptation.adapters()
    return encode(config, {site: adapters[site] for site in share_map.pruned})


def encode(config: Knowledge, adapters: Mapping[str, Adapter]) -> dict[str, Tensor]:
    """The stored form of adapters, by the name of their site.

    Returns:
        `<site>.<parameter>` on the CPU: the weights themselves (`frozen`), `up` and `down` of rank
        `config.rank` (`lowrank`), or int8 with `<site>.<parameter>.scale`, float32, one a row (`int8`).
    """
    stored: dict[str, Tensor] = {}
    for site, adapter in adapters.items():
        tensors = adapter.tensors()
        if config.kind is KnowledgeKind.lowrank:
            tensors |= dict(zip(("up", "down"), truncate(*_factors(adapter), config.rank), strict=True))
        for name, tensor in tensors.items():
            if config.kind is KnowledgeKind.int8:
                stored[f"{site}.{name}"], stored[f"{site}.{name}.scale"] = quantise(tensor.cpu())
            else:
                stored[f"{site}.{name}"] = tensor.cpu().clone().contiguous()
    return stored


def decode(tensors: Mapping[str, Tensor], method: Method, sites: Iterable[Site]) -> dict[str, Adapter]:
    """The frozen adapters that `tensors` hold, by site.

    Raises:
        CorruptArtifact: a tensor that belongs to no site or has another shape, or one that is missing.
    """
    adapters, used = {}, set()
    for site in sites:
        shapes = method.shapes(site)
        keys = {name: f"{site.name}.{name}" for name in shapes}
        if not any(key in tensors for key in keys.values()):
            continue
        weights = {}
        for name, key in keys.items():
            if key not in tensors:
                raise CorruptArtifact(f"the knowledge of {site.name} lacks {name}")
            scale = tensors.get(f"{key}.scale")
            weights[name] = tensors[key] if scale is None else tensors[key].float() * scale
            used |= {key, f"{key}.scale"}
        _check_shapes(site, weights, shapes)
        adapters[site.name] = Adapter.of(method, site, weights)
    foreign = set(tensors) - used
    if foreign:
        raise CorruptArtifact(f"the knowledge holds {min(foreign)}, which fits no site of this method")
    return adapters


def _check_shapes(site: Site, weights: dict[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse weights of other shapes than the method's, but for a narrower bottleneck of `up` and `down`."""
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    if set(found) == {"up", "down"} and len(found["down"]) == 2 and found["down"][0] < shapes["down"][0]:
        rank = found["down"][0]
        shapes = {"up": (shapes["up"][0], rank), "down": (rank, shapes["down"][1])}
    for name, shape in shapes.items():
        if found[name] != shape or not weights[name].is_floating_point():
            raise CorruptArtifact(
                f"the knowledge of {site.name} has {name} of shape {found[name]}, {weights[name].dtype}; "
                f"it should be {shape}, floating point, or int8 with a scale"
            )


def absorb(adaptation: Adaptation, share_map: ShareMap, importance: Importance) -> None:
    """Fold every pruned adapter into its owner, in place.

        ΔW = Σ wᵢ·upᵢ·downᵢ  over the owner and the sites that it serves,  wᵢ = importanceᵢ / Σ

    Weights are uniform where the importances sum to 0; negative ones (`ablation`) count as 0. ΔW returns to
    rank D by SVD. Adapters that serve at home alone are left as they are.

    Raises:
        ConfigError: a pruned site without an owner.
    """
    orphans = [site for site, owner in share_map.owners.items() if owner is None]
    if orphans:
        raise ConfigError(
            f"knowledge.kind = absorb: nobody serves at {orphans[0]}; use a share.rule other than none"
        )
    adapters, scores = adaptation.adapters(), importance.by_name()
    for owner in dict.fromkeys(share_map.owners.values()):
        sites = share_map.served_by(str(owner))
        if len(sites) == 1:
            continue
        weights = [max(0.0, scores[site]) for site in sites]
        total = sum(weights)
        weights = [w / total for w in weights] if total else [1 / len(sites)] * len(sites)
        factors = [_factors(adapters[site]) for site in sites]
        ups = torch.cat(
            [w * up.detach().cpu().double() for w, (up, _) in zip(weights, factors, strict=True)], dim=1
        )  # C_out, ΣD
        downs = torch.cat([down.detach().cpu().double() for _, down in factors])  # ΣD, C_in
        up, down = _factors(adapters[str(owner)])
        for old, new in zip((up, down), truncate(ups, downs, down.shape[0]), strict=True):
            old.data.copy_(new)


def truncate(up: Tensor, down: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best rank-`rank` approximation of up·down, the root of S on each side.

    Args:
        up: (C_out, D).
        down: (D, C_in).

    Returns:
        U·√S (C_out, rank) and √S·Vᵀ (rank, C_in) in the dtype of `up`, on its device.

    Source: Eckart and Young 1936. The SVD is of the small product of the two triangular factors, in float64.
    """
    q_up, r_up = torch.linalg.qr(up.detach().cpu().double())
    q_down, r_down = torch.linalg.qr(down.detach().cpu().double().T)
    u, s, vh = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
    root = s[:rank].sqrt()
    new_up, new_down = q_up @ u[:, :rank] * root, root[:, None] * (vh[:rank] @ q_down.T)
    return new_up.to(up), new_down.to(down)


def quantise(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 per row: tensor ≈ q · scale, off by at most half a scale.

    Returns:
        q of the tensor's shape, and scale = max|row| / 127, float32, (rows, 1, …); a vector is one row.
    """
    dims = tuple(range(1, tensor.ndim)) or (0,)
    scale = tensor.float().abs().amax(dims, keepdim=True) / 127
    q = (tensor.float() / scale.where(scale > 0, torch.ones_like(scale))).round().clamp(-127, 127)
    return q.to(torch.int8), scale


def _factors(adapter: Adapter) -> tuple[Tensor, Tensor]:
    assert adapter.method.linear
    return adapter.up, adapter.down
