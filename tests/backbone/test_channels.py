"""Channels: what removing some leaves of a network, of its adapters and of what is stored."""

import copy
import json

import pytest
import timm
import torch
from torch import Tensor, nn

from pear_cli.backbone import channels
from pear_cli.backbone.channels import groups
from pear_cli.backbone.widths import Group, Side, Widths
from pear_cli.errors import ConfigError, CorruptArtifact

MODELS = {
    "vit_tiny_patch16_224": {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3},
    "vit_small_patch14_reg4_dinov2": {"img_size": 28, "embed_dim": 24, "depth": 2, "num_heads": 2},
    "swin_tiny_patch4_window7_224": {
        "img_size": 32, "embed_dim": 12, "depths": (1, 2), "num_heads": (2, 3), "window_size": 4
    },
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "resnet18": {"channels": (8, 12, 16, 20)},
    "resnet50": {"channels": (4, 6, 8, 10)},
    "mobilenetv2_035": {},
    "mobilenetv3_small_050": {},
    "vit_giant_patch14_dinov2": {"img_size": 28, "embed_dim": 24, "depth": 2, "num_heads": 2},
}  # fmt: skip


def network(name: str) -> tuple[nn.Module, int]:
    """A small network whose norms, biases and LayerScales hide nothing."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4, **MODELS[name]).eval()
    for parameter in model.parameters():
        if parameter.ndim < 2:
            nn.init.normal_(parameter)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model, MODELS[name].get("img_size", 64)


def zeroed(model: nn.Module, of: list[Group], pruned: dict[str, list[int]]) -> nn.Module:
    """The whole network, with zeros wherever a pruned channel is written."""
    masked = copy.deepcopy(model)
    parameters = dict(masked.named_parameters())
    for group in of:
        for member in group.members:
            for name, dim in member.parameters(masked).items():
                if member.side is Side.out and name in parameters:
                    gone = member.index[pruned[group.name]].flatten()
                    parameters[name].data.index_fill_(dim, gone, 0)
    return masked


@pytest.mark.parametrize("name", MODELS)
def test_a_narrowed_network_gives_the_logits_of_zeroed_channels(name: str) -> None:
    model, size = network(name)
    of = groups(model, size)
    generator = torch.Generator().manual_seed(1)
    pruned = {g.name: torch.randperm(len(g), generator=generator)[: len(g) // 2].tolist() for g in of}
    masked, whole = zeroed(model, of, pruned), copy.deepcopy(model)
    before = sum(p.numel() for p in model.parameters())
    Widths.without(pruned, of).narrow(model)
    assert sum(p.numel() for p in model.parameters()) < 0.9 * before
    x = torch.randn(2, 3, size, size)
    expected: Tensor = masked(x)
    effect = (expected - whole(x)).abs().max()  # of what went: the error is small beside it
    assert effect > 1e-3 * expected.abs().max()
    assert (model(x) - expected).abs().max() < 1e-3 * effect


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_tiny_patch16_224", {"attn.qkv": 2 * 3, "mlp.fc1": 2 * 96}),
        ("swin_tiny_patch4_window7_224", {"attn.qkv": 2 + 2 * 3, "mlp.fc1": 48 + 2 * 96}),
        ("convnext_atto", {"mlp.fc1": 4 * (8 + 16 + 24 + 32)}),
        ("vit_giant_patch14_dinov2", {"attn.qkv": 2 * 2, "mlp.fc1": 2 * 64}),  # gates go with their values
    ],
)
def test_the_residual_stream_of_a_transformer_keeps_its_width(name: str, expected: dict[str, int]) -> None:
    counts: dict[str, int] = {}
    for group in groups(*network(name)):
        counts[group.slot] = counts.get(group.slot, 0) + len(group)
    assert counts == expected


def test_the_residual_widths_of_a_resnet_are_coupled_across_its_blocks() -> None:
    found = {group.name: group for group in groups(*network("resnet18"))}
    widest = max(found.values(), key=lambda group: len(group.members))
    assert len([m for m in widest.members if m.module.endswith(("conv2", "downsample.0"))]) > 1
    assert sum(len(group) for group in found.values()) == 64 + 3 * (8 + 12 + 16 + 20)


def test_depthwise_convolutions_stay_depthwise() -> None:
    model, size = network("mobilenetv2_035")
    of = groups(model, size)
    before = model.blocks[1][1].conv_dw.groups
    Widths.without({group.name: range(0, len(group), 2) for group in of}, of).narrow(model)
    narrow = model.blocks[1][1].conv_dw
    assert narrow.groups == narrow.in_channels == narrow.out_channels == len(narrow.weight) == before // 2
    assert model.blocks[1][1].conv_pwl.in_channels == before // 2


def test_groups_of_several_channels_are_left_alone() -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnext50_32x4d", channels=(8, 8, 8, 8), cardinality=2, base_width=32)
    grouped = {name for name, module in model.named_modules() if getattr(module, "groups", 1) > 1}
    members = {member.module for group in groups(model, 64) for member in group.members}
    assert grouped
    assert not grouped & members


@pytest.mark.parametrize("hidden", ["init_values", "zero_head"])
def test_a_wrong_coupling_is_found_behind_what_starts_at_nearly_zero(hidden: str, monkeypatch) -> None:
    args = MODELS["vit_tiny_patch16_224"] | ({"init_values": 1e-9} if hidden == "init_values" else {})
    model = timm.create_model("vit_tiny_patch16_224", num_classes=4, **args).eval()
    if hidden == "zero_head":
        nn.init.zeros_(model.head.weight)
    assert {group.slot for group in groups(model, 32)} == {"attn.qkv", "mlp.fc1"}
    by_root, reads = channels._by_root, "prune_in_channels"

    def off_by_one(item, width):
        index = by_root(item, width)
        return index.roll(1, 0) if item.dep.handler.__name__ == reads else index

    monkeypatch.setattr(channels, "_by_root", off_by_one)
    assert {group.slot for group in groups(model, 32)} == {"attn.qkv"}


def test_finding_groups_leaves_the_network_as_it_was() -> None:
    model, size = network("vit_tiny_patch16_224")
    model.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    groups(model, size)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_network_without_such_channels_is_refused() -> None:
    model = timm.create_model(
        "eva02_base_patch14_224", img_size=28, embed_dim=24, depth=1, num_heads=2, num_classes=4
    )  # a norm reads the hidden channels of its mlp
    with pytest.raises(ConfigError, match="no channels that can be removed alone"):
        groups(model, 28)


def test_widths_do_not_depend_on_the_order_of_their_modules() -> None:
    model, size = network("vit_tiny_patch16_224")
    of = groups(model, size)
    stored = Widths.without({group.name: [0] for group in of}, of).to_json()
    for turned in (dict(sorted(stored.items())), dict(sorted(stored.items(), reverse=True))):
        narrow = copy.deepcopy(model)
        Widths.from_json(turned).narrow(narrow)
        assert narrow.blocks[0].attn.attn_dim == 16
        narrow(torch.randn(1, 3, size, size))


@pytest.mark.parametrize(
    ("name", "args", "slots"),
    [
        ("vit_small_patch16_dinov3", {"img_size": 32, "patch_size": 8, "depth": 2}, {"mlp.fc1"}),
        ("vit_relpos_small_patch16_224", {"img_size": 32, "depth": 2}, {"mlp.fc1"}),
    ],
)
def test_groups_that_the_network_cannot_lose_are_left_alone(name: str, args: dict, slots: set[str]) -> None:
    model = timm.create_model(name, num_classes=4, embed_dim=24, num_heads=2, **args).eval()
    assert {group.slot for group in groups(model, args["img_size"])} <= slots


def test_widths_survive_json_and_take_a_digit_for_four_channels() -> None:
    model, size = network("swin_tiny_patch4_window7_224")
    of = groups(model, size)
    widths = Widths.without({group.name: [0] for group in of}, of)
    again = Widths.from_json(json.loads(json.dumps(widths.to_json())))
    assert again.to_json() == widths.to_json()
    for module, sides in widths.kept.items():
        for side, kept in sides.items():
            assert len(widths.to_json()[module][side.value]) <= len(kept) / 4 + 5


@pytest.mark.parametrize(
    "value",
    [
        3,
        {"blocks.0.mlp.fc1": {"sideways": "4:f"}},
        {"blocks.0.mlp.fc1": {"out": "4:ff"}},
        {"blocks.0.mlp.fc1": {"out": "4:0"}},
        {"blocks.0.mlp.fc1": {"out": "4"}},
        {"blocks.0.mlp.fc1": {"out": 5}},
        {"blocks.0.attn": {"heads": "100000000000:1"}},
    ],
)
def test_what_are_no_widths_is_refused(value: object) -> None:
    with pytest.raises(CorruptArtifact, match="not widths"):
        Widths.from_json(value)


@pytest.mark.parametrize("module", ["blocks.9.mlp.fc1", "blocks.0.mlp.act", "blocks.0.mlp.fc1"])
def test_widths_of_another_network_are_refused(module: str) -> None:
    model, _ = network("vit_tiny_patch16_224")
    with pytest.raises(CorruptArtifact, match="not widths of this model"):
        Widths.from_json({module: {"out": "4:7"}}).narrow(model)


@pytest.mark.parametrize("place", [("blocks.0.attn", "4:7"), ("blocks.0.mlp", "3:5"), ("blocks.0", "3:5")])
def test_heads_of_another_count_or_place_are_refused(place: tuple[str, str]) -> None:
    model, _ = network("vit_tiny_patch16_224")
    with pytest.raises(CorruptArtifact, match="not widths of this model"):
        Widths.from_json({place[0]: {"heads": place[1]}}).narrow(model)
