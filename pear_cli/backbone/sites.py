"""Sites: the places in a frozen backbone where an adapter can attach.

A site adds to the output of one frozen module, or of one residual block. Nothing of the backbone is
replaced: a site works through forward hooks, so module names and `state_dict` stay timm's.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from pear_cli.backbone.site import Site, Tap
from pear_cli.errors import ConfigError, near

# No attribute tells what follows about timm's modules, so tests/backbone/test_architectures.py measures each.
# Other attentions offer `attn.qkv` whole (MaxViT and TinyViT interleave their heads, one of GCViT's lacks q),
# and other blocks no `mlp` (DaViT's output is channels first, MViT's a tuple).
HEAD_BY_HEAD = frozenset(
    {
        "timm.layers.attention.Attention",
        "timm.layers.attention.AttentionRope",
        "timm.layers.diff_attention.DiffAttention",
        "timm.models.beit.Attention",
        "timm.models.eva.EvaAttention",
        "timm.models.swin_transformer.WindowAttention",
        "timm.models.swin_transformer_v2.WindowAttention",
        "timm.models.swin_transformer_v2_cr.WindowMultiHeadAttention",
        "timm.models.vision_transformer.Attention",  # where it was before timm.layers
        "timm.models.vision_transformer_relpos.RelPosAttention",
        "timm.models.vision_transformer_sam.Attention",
    }
)
"""Attentions whose q, k and v hold the heads one after the other, and whose fused rows are [q; k; v]."""

STREAMS = {
    "timm.models.beit.Block": "norm2",
    "timm.models.eva.EvaBlock": "norm2",
    "timm.models.eva.EvaBlockPostNorm": "mlp",
    "timm.models.swin_transformer.SwinTransformerBlock": "norm2",
    "timm.models.swin_transformer_v2.SwinTransformerV2Block": "mlp",
    "timm.models.vision_transformer.Block": "norm2",
    "timm.models.vision_transformer.ResPostBlock": "mlp",
    "timm.models.vision_transformer_relpos.RelPosBlock": "norm2",
    "timm.models.vision_transformer_relpos.ResPostRelPosBlock": "mlp",
    "timm.models.vision_transformer_sam.Block": "norm2",
}
"""Blocks whose output is the residual stream plus the mlp's branch: the child whose input that stream is."""

PARALLEL_THINGS = "timm.models.vision_transformer.ParallelThingsBlock"
PARALLEL_SCALING = frozenset(
    {
        "timm.models.vision_transformer.ParallelScalingBlock",
        "timm.models.vision_transformer.DiffParallelScalingBlock",
    }
)


def _check_groups(model: nn.Module, slot: str) -> None:
    """Raise ConfigError where a slot that is no site is a convolution in groups, and say why it is none."""
    for name, conv in model.named_modules():
        if isinstance(conv, nn.Conv2d) and conv.groups > 1 and slot.rpartition(".")[2] in name.split("."):
            kind = "a depthwise convolution" if conv.groups == conv.in_channels else "a grouped convolution"
            raise ConfigError(
                f"method.slots: {slot} ({name}) is {kind}, which pear does not adapt: each output reads "
                f"{conv.in_channels // conv.groups} of {conv.in_channels} channels, and a product of low "
                "rank joins all; leave it out"
            )


def find(model: nn.Module, slots: Iterable[str]) -> list[Site]:
    """The sites of `slots`, by block, then in the order of `slots`.

    Raises:
        ConfigError: a slot that the backbone lacks, or the same slot twice; it lists what there is.
    """
    wanted = list(slots)
    if len(set(wanted)) != len(wanted):
        raise ConfigError(f"method.slots names a slot twice: {', '.join(wanted)}")
    everywhere = all_sites(model)
    known = list(dict.fromkeys(site.slot for site in everywhere))
    for slot in wanted:
        if slot not in known:
            _check_groups(model, slot)
            there = ", ".join(known)
            raise ConfigError(
                f"this backbone has no slot {slot!r}{near(slot, known) or ';'} slots: {there}. "
                "Name some in method.slots=[…]"
            )
    if "attn.qkv" in wanted and {"attn.q", "attn.k", "attn.v"} & set(wanted):
        raise ConfigError(
            "method.slots: attn.qkv covers attn.q, attn.k and attn.v; name the one or the others"
        )
    chosen = [site for site in everywhere if site.slot in wanted]
    return sorted(chosen, key=lambda site: (site.block, wanted.index(site.slot)))


def all_sites(model: nn.Module) -> list[Site]:
    """Every site of a timm transformer, or the convolutions of a residual network, block by block.

    A block is an attention with the mlp after it: that holds for ViT, DeiT, EVA, BEiT, Swin and their kin.
    Of the ViTs with parallel halves, each pair of a `ParallelThingsBlock` counts as a block, and a
    `ParallelScalingBlock` has the slots of its linear layers, but no `mlp`.

    Raises:
        ConfigError: the backbone has none.
    """
    found: list[Site] = []
    for path, module in model.named_modules():
        found.extend(_sites(path, module, found[-1].block + 1 if found else 0))
    if not found:
        raise ConfigError(
            f"{type(model).__name__} has no slots: adapters attach to linear layers of transformer blocks, "
            "as in timm's ViT, DeiT, DINO, CLIP, EVA, BEiT and Swin, and SPA also to ResNets and ConvNeXts; "
            "method=linear and method=full need none"
        )
    return found


def _sites(path: str, module: nn.Module, block: int) -> Iterator[Site]:
    """The sites of a module that is a block or several, counted from `block`; none of other modules."""
    attention, mlp = getattr(module, "attn", None), getattr(module, "mlp", None)
    if isinstance(attention, nn.Module) and isinstance(mlp, nn.Module):
        reads = STREAMS.get(_kind(module))
        stream = None if reads is None else (f"{path}.{reads}", path)
        yield from _attention_sites(f"{path}.attn", block, attention)
        yield from _mlp_sites(f"{path}.mlp", block, mlp, stream)
    elif _kind(module) == PARALLEL_THINGS:
        for i in range(len(list(module.get_submodule("attns").children()))):
            attn, ffn = f"attns.{i}.attn", f"ffns.{i}"
            stream = (f"{path}.{ffn}.norm", path)
            yield from _attention_sites(f"{path}.{attn}", block + i, module.get_submodule(attn))
            yield from _mlp_sites(f"{path}.{ffn}.mlp", block + i, module.get_submodule(f"{ffn}.mlp"), stream)
    elif _kind(module) in PARALLEL_SCALING:
        yield from _packed_sites(path, block, module)
    elif isinstance(getattr(module, "conv1", None), nn.Conv2d) and hasattr(module, "downsample"):
        yield from _convolution_sites(path, block, module)
    elif isinstance(getattr(module, "conv_dw", None), nn.Conv2d) and isinstance(mlp, nn.Module):
        yield from _mlp_sites(f"{path}.mlp", block, mlp, None)
        yield from _convolution_sites(f"{path}.mlp", block, mlp)


def _attention_sites(path: str, block: int, attn: nn.Module) -> Iterator[Site]:
    known = _kind(attn) in HEAD_BY_HEAD
    heads = _heads(attn) if known else None
    fused, proj = _linear(attn, "qkv"), _linear(attn, "proj")
    if fused is not None:
        yield _site(f"{path}.qkv", block, fused, heads=heads)
    for i, slot in enumerate("qkv" if known else ""):
        if fused is not None:
            width = fused.out_features // 3
            rows = (i * width, (i + 1) * width)
            yield _site(f"{path}.{slot}", block, fused, f"{path}.qkv", rows, heads)
        else:
            own = attn.get_submodule(f"{slot}_proj")
            yield _site(f"{path}.{slot}", block, own, f"{path}.{slot}_proj", heads=heads)
    if proj is not None:
        yield _site(f"{path}.proj", block, proj)


def _heads(attn: Any) -> int | None:
    """The number of heads, where q, k and v have H·Dh channels each; not where queries share keys."""
    parts = (attn.q_proj, attn.k_proj, attn.v_proj) if attn.qkv is None else ()
    widths = {part.out_features for part in parts} or {attn.qkv.out_features / 3}
    return int(attn.num_heads) if widths == {attn.proj.in_features} else None


def _mlp_sites(path: str, block: int, mlp: nn.Module, stream: tuple[str, str] | None) -> Iterator[Site]:
    """The linear layers of an mlp, fc1 and fc2 or those of a gated one; and the mlp as a whole."""
    linears = [(name, _linear(mlp, name)) for name, _ in mlp.named_children()]
    there = [(name, linear) for name, linear in linears if linear is not None]
    for name, linear in there:
        yield _site(f"{path}.{name}", block, linear)
    if there and stream is not None:
        reads, adds = there[0][1].in_features, there[-1][1].out_features
        yield Site(path, block, "mlp", reads, adds, path, stream=stream)


def _convolution_sites(path: str, block: int, module: nn.Module) -> Iterator[Site]:
    """The convolutions of a residual block that have one group and look at the centre of their kernel."""
    for name, conv in module.named_modules():
        if type(conv) is not nn.Conv2d or conv.groups > 1 or isinstance(conv.padding, str):
            continue
        (kernel, _), (padding, _), (stride, _) = conv.kernel_size, conv.padding, conv.stride
        first = kernel // 2 * conv.dilation[0] - padding
        square = all(len(set(side)) == 1 for side in (conv.kernel_size, conv.padding, conv.stride))
        if square and first >= 0:
            where = f"{path}.{name}"
            slot = ("mlp." if path.endswith(".mlp") else "") + name.partition(".")[0]
            yield Site(where, block, slot, conv.in_channels, conv.out_channels, where, tap=Tap(first, stride))


def _packed_sites(path: str, block: int, module: Any) -> Iterator[Site]:
    """The sites of a block whose `in_proj` gives [fc1; q; k; v]."""
    hidden, width = module.in_split[:2]
    rows = {"attn.qkv": (hidden, hidden + 3 * width)}
    rows |= {f"attn.{slot}": (hidden + i * width, hidden + (i + 1) * width) for i, slot in enumerate("qkv")}
    for slot, of_slot in (rows | {"mlp.fc1": (0, hidden)}).items():
        yield _site(f"{path}.{slot}", block, module.in_proj, f"{path}.in_proj", of_slot)
    for slot, name in (("attn.proj", "attn_out_proj"), ("mlp.fc2", "mlp_out_proj")):
        linear = _linear(module, name)
        if linear is not None:
            yield _site(f"{path}.{slot}", block, linear, f"{path}.{name}")


def _site(
    name: str,
    block: int,
    linear: nn.Module,
    module: str = "",
    rows: tuple[int, int] | None = None,
    heads: int | None = None,
) -> Site:
    """The site of a linear layer, or of some of its rows; a name ends in its slot."""
    slot = ".".join(name.split(".")[-2:])
    out_dim, in_dim = linear.get_parameter("weight").shape
    if rows is not None:
        out_dim = rows[1] - rows[0]
    return Site(name, block, slot, in_dim, out_dim, module or name, rows=rows, heads=heads)


def _kind(module: nn.Module) -> str:
    """The class of a module by its full name."""
    return f"{type(module).__module__}.{type(module).__name__}"


def _linear(module: nn.Module, name: str) -> "nn.Linear | None":
    child = getattr(module, name, None)
    return child if isinstance(child, nn.Linear) else None


def heads_reader(model: nn.Module, attention: str) -> "nn.Linear":
    """The projection that reads the outputs of an attention's heads, side by side.

    Args:
        attention: path of the attention module.

    Raises:
        ConfigError: there is none, or a norm stands before it.
    """
    module = model.get_submodule(attention)
    proj, norm = _linear(module, "proj"), getattr(module, "norm", None)
    if proj is None or not isinstance(norm, nn.Identity | None):
        what = "has no linear proj" if proj is None else "normalises the outputs of its heads"
        raise ConfigError(
            f"{attention} {what}: they cannot be told apart there; use score.view=adapter and "
            "prune.effect=adapter"
        )
    return proj
