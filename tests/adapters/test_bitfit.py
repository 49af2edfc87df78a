"""BitFit: which parameters of a backbone are biases."""

import json
from pathlib import Path

import pytest
import timm
import torch

from pear_cli.adapters.bitfit import BitFit
from pear_cli.config.settings import Backbone
from pear_cli.errors import ConfigError
from pear_cli.model import models

BITFIT = BitFit(lr=1, slots=())
TINY = {"img_size": 16, "patch_size": 8, "num_heads": 3}
CONFIGS = Path(__file__).parent.parent / "configs"


def trained(**args):
    name = "vit_tiny_patch16_224"
    config = Backbone(name, False, None, 0, 0.0, None, None, TINY | {"embed_dim": 24, "depth": 2} | args)
    model = models.create(config, BITFIT, num_classes=4, seed=0)
    return model, models.trained(model)


@pytest.mark.parametrize(("width", "depth"), [(24, 2), (48, 3)])
def test_it_trains_the_biases_of_all_layers_and_norms_and_the_classifier(width, depth):
    _, parameters = trained(embed_dim=width, depth=depth)
    head = {name: p for name, p in parameters.items() if name.startswith("head.")}
    assert {name: p.numel() for name, p in head.items()} == {"head.weight": 4 * width, "head.bias": 4}
    rest = {name: p for name, p in parameters.items() if name not in head}
    assert all(name.startswith("backbone.") and name.endswith(".bias") for name in rest)
    in_a_block = width * (1 + 3 + 1 + 1 + 4 + 1)  # norm1, qkv, proj, norm2, fc1, fc2
    assert sum(p.numel() for p in rest.values()) == depth * in_a_block + 2 * width  # patch_embed, norm


def test_every_bias_gets_a_gradient_and_no_weight_does():
    model, parameters = trained()
    torch.nn.init.normal_(model.head.weight)
    model(torch.randn(3, 3, 16, 16)).square().sum().backward()
    touched = {id(p) for p in model.parameters() if p.grad is not None}
    assert touched == {id(p) for p in parameters.values()}


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "beit_base_patch16_224"])
def test_biases_beside_a_fused_qkv_count_and_the_constant_of_the_keys_does_not(name):
    args = {"img_size": 28 if "14" in name else 32, "embed_dim": 24, "depth": 2, "num_heads": 2}
    model = timm.create_model(name, num_classes=0, **args)
    ours = {n for n, _ in model.named_parameters() if BITFIT.adapts(n)}
    assert {"blocks.1.attn.q_bias", "blocks.1.attn.v_bias", "blocks.0.norm1.bias"} <= ours
    assert "blocks.1.attn.k_bias" in dict(model.named_buffers())
    assert not any("k_bias" in n or "table" in n or "weight" in n for n in ours)
    assert all(p.ndim == 1 for n, p in model.named_parameters() if n in ours)


def test_tables_of_relative_positions_are_no_biases():
    assert not BITFIT.adapts("blocks.0.attn.relative_position_bias_table")
    assert not BITFIT.adapts("blocks.0.attn.attention_biases")
    assert not BITFIT.adapts("bias.weight")


def test_of_a_backbone_without_biases_a_linear_probe_is_left():
    _, parameters = trained(qkv_bias=False, proj_bias=False, pre_norm=True, norm_layer="rmsnorm")
    assert set(parameters) == {"head.weight", "head.bias"}


def test_slots_are_an_error():
    with pytest.raises(ConfigError, match="BitFit has no adapters; leave slots empty"):
        BitFit(lr=1, slots=("attn.q",))


def test_a_run_trains_for_both_phases_and_evaluates(pear, quiet):
    tiny = ("dataset=digits", "backbone=tiny", "optim.epochs=1", "optim.batch_size=200", "runtime.threads=1")
    said = pear("run", "--config-dir", str(CONFIGS), *quiet, *tiny, "method=bitfit", "-q")
    assert (said.code, said.err) == (0, "")
    manifest = json.loads((Path(said.out.strip()) / "manifest.json").read_text())
    assert manifest["accounting"]["trainable_params_without_head"] == 4 * 11 * 16 + 2 * 16


def test_there_is_nothing_to_score(pear, quiet):
    said = pear("score", *quiet, "method=bitfit")
    assert said.code == 1
    assert "BitFit has no adapters to score, prune or share" in said.err
