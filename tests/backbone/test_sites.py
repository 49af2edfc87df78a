"""Where adapters can attach."""

import pytest
import timm

from pear_cli.backbone.sites import all_sites, find
from pear_cli.errors import ConfigError

SMALL = {"img_size": 32, "num_classes": 0}


@pytest.fixture(scope="module")
def vit():
    return timm.create_model("vit_tiny_patch16_224", depth=3, embed_dim=48, **SMALL)


def test_sites_come_by_block_then_in_the_order_of_the_slots(vit):
    names = [site.name for site in find(vit, ["attn.v", "attn.q"])]
    assert names[:3] == ["blocks.0.attn.v", "blocks.0.attn.q", "blocks.1.attn.v"]


def test_the_slots_of_a_fused_qkv_are_its_rows(vit):
    q, k, v = find(vit, ["attn.q", "attn.k", "attn.v"])[:3]
    assert [site.rows for site in (q, k, v)] == [(0, 48), (48, 96), (96, 144)]
    assert q.in_dim == q.out_dim == 48


def test_every_slot_of_a_vit_has_one_site_a_block(vit):
    slots = [site.slot for site in all_sites(vit)]
    assert {slot: slots.count(slot) for slot in slots} == dict.fromkeys(
        ["attn.qkv", "attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2", "mlp"], 3
    )


def test_an_unknown_slot_names_the_near_miss_and_all_that_there_are(vit):
    with pytest.raises(
        ConfigError,
        match=r'no slot .attn.qq.; did you mean "attn.q"\? slots: attn.qkv, attn.q,.*method.slots=',
    ):
        find(vit, ["attn.qq"])


def test_a_slot_may_not_be_named_twice_nor_within_another(vit):
    with pytest.raises(ConfigError, match="twice"):
        find(vit, ["attn.q", "attn.q"])
    with pytest.raises(ConfigError, match=r"attn.qkv covers"):
        find(vit, ["attn.qkv", "attn.q"])


def test_sites_of_one_group_have_the_same_slot_and_widths(vit):
    groups = {site.group for site in find(vit, ["attn.q", "attn.v", "mlp.fc1"])}
    assert groups == {("attn.q", 48, 48), ("attn.v", 48, 48), ("mlp.fc1", 48, 192)}


def test_the_blocks_of_a_swin_are_counted_through_its_stages():
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, depths=(1, 2), num_heads=(1, 2), embed_dim=8
    )
    sites = find(swin, ["attn.q"])
    assert [(site.block, site.in_dim) for site in sites] == [(0, 8), (1, 16), (2, 16)]


SWIN = "{img_size: 32, embed_dim: 16, depths: [1, 2], num_heads: [2, 4], window_size: 4}"


def test_pear_sites_lists_slots_stage_by_stage_with_their_number_and_widths(pear):
    name = "backbone.name=swin_tiny_patch4_window7_224"
    said = pear("sites", "backbone=timm", name, f"backbone.args={SWIN}")
    lines = [line.split("\t") for line in said.out.splitlines()]
    assert [line[1:] for line in lines if line[0] == "attn.q"] == [["1", "16", "16"], ["2", "32", "32"]]
    assert [line[1:] for line in lines if line[0] == "mlp.fc1"] == [["1", "16", "64"], ["2", "32", "128"]]


def test_pear_sites_of_a_backbone_without_any_is_an_error(pear):
    said = pear("sites", "backbone=timm", "backbone.name=levit_128s")
    assert said.code == 1
    assert said.err.startswith(
        "pear sites: LevitDistilled has no slots: adapters attach to linear layers of transf"
    )


def test_a_residual_network_has_the_slots_of_its_convolutions(pear):
    said = pear("sites", "backbone=timm", "backbone.name=resnet10t")
    assert {line.split()[0] for line in said.out.splitlines()} == {"conv1", "conv2", "downsample"}
