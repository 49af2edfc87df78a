"""LoRA, NEAT and Lily against PEFT: the same weights give the same logits, and the same merged weights."""

import dataclasses

import pytest
import torch

from pear_cli.adapters.lily import Lily, RouterStats
from pear_cli.adapters.lora import LoRA
from pear_cli.adapters.method import Method
from pear_cli.adapters.neat import NEAT
from pear_cli.backbone import backbones
from pear_cli.config.choices import DropoutAt
from pear_cli.config.node import node
from pear_cli.config.settings import Backbone
from pear_cli.model import merge, models
from pear_cli.store.canonical import to_node

ARGS = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 5, "num_heads": 3}
VIT = Backbone("vit_tiny_patch16_224", False, None, 0, 0.0, None, None, ARGS)
LINEAR = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")  # PEFT adapts a layer as a whole, so qkv is one
SLOTS = [LINEAR, ("attn.proj", "mlp.fc2"), ("attn.qkv",)]
IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
RANK, SCALE = 3, 0.7


def adapted(method):
    """Our model, with adapters and a classifier that are no longer zero."""
    model = models.create(VIT, method, 4, seed=0)
    generator = torch.Generator().manual_seed(2)
    for parameter in models.trained(model).values():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def in_peft(model, kind, slots, **settings):
    """The same backbone and classifier, with the adapters of PEFT; settings are those of its config."""
    import peft  # here, so that collecting tests does not wait for it

    plain = backbones.build(VIT, 4)
    plain.head.load_state_dict(model.head.state_dict())
    return peft.get_peft_model(
        plain, getattr(peft, f"{kind}Config")(target_modules=list(slots), **settings)
    ).eval()


def copy_into(parameter, ours):
    assert parameter.shape == ours.shape
    parameter.data.copy_(ours)


def trainable(model):
    """How many parameters of adapters are trained, each once."""
    return sum(p.numel() for p in models.adaptation(model).trained().values())


def assert_same(ours, theirs, merges=True):
    torch.testing.assert_close(theirs(IMAGES), ours(IMAGES), atol=1e-5, rtol=0)
    assert theirs.get_nb_trainable_parameters()[0] == trainable(ours)
    with theirs.disable_adapter():
        assert (theirs(IMAGES) - ours(IMAGES)).abs().max() > 1e-2
    if merges:
        merged = theirs.merge_and_unload().state_dict()
        for name, tensor in merge.merge(ours).state_dict().items():
            torch.testing.assert_close(tensor, merged[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("slots", SLOTS, ids=" ".join)
def test_lora_equals_that_of_peft(slots):
    ours = adapted(LoRA(lr=1, rank=RANK, scale=SCALE, dropout=0.1, slots=slots))
    theirs = in_peft(ours, "Lora", slots, r=RANK, lora_alpha=RANK * SCALE, lora_dropout=0.1)
    for name, adapter in models.adaptation(ours).adapters().items():
        layer = theirs.base_model.model.get_submodule(name)
        copy_into(layer.lora_A["default"].weight, adapter.down)
        copy_into(layer.lora_B["default"].weight, adapter.up)
    assert_same(ours, theirs)


def test_dropout_of_the_input_is_that_of_peft_to_the_mask():
    method = LoRA(lr=1, rank=RANK, scale=SCALE, dropout=0.4, dropout_at=DropoutAt.input, slots=LINEAR)
    ours = adapted(method)
    theirs = in_peft(ours, "Lora", LINEAR, r=RANK, lora_alpha=RANK * SCALE, lora_dropout=0.4)
    for name, adapter in models.adaptation(ours).adapters().items():
        layer = theirs.base_model.model.get_submodule(name)
        copy_into(layer.lora_A["default"].weight, adapter.down)
        copy_into(layer.lora_B["default"].weight, adapter.up)
    found = []
    for model in (ours.train(), theirs.train()):
        torch.manual_seed(0)
        found.append(model(IMAGES))
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)
    assert (ours.eval()(IMAGES) - found[0]).abs().max() > 1e-2


def test_a_later_setting_changes_no_key_where_it_has_its_default():
    method = LoRA(lr=1, rank=RANK, scale=SCALE, dropout=0.4, slots=LINEAR)
    assert "dropout_at" not in to_node(method)
    later = dataclasses.replace(method, dropout_at=DropoutAt.input)
    assert to_node(later)["dropout_at"] is DropoutAt.input
    assert node(to_node(later), Method, "method") == later


@pytest.mark.parametrize("pairs", [0, 1, 3])
@pytest.mark.parametrize("slots", SLOTS, ids=" ".join)
def test_neat_of_depth_2_plus_2n_equals_peanut_of_depth_n(slots, pairs):
    ours = adapted(NEAT(lr=1, rank=RANK, depth=2 + 2 * pairs, scale=SCALE, dropout=0.1, slots=slots))
    theirs = in_peft(ours, "Peanut", slots, r=RANK, depth=pairs, scaling=SCALE, act_fn="relu")
    for name, adapter in models.adaptation(ours).adapters().items():
        layer = theirs.base_model.model.get_submodule(name)
        copy_into(layer.peanut_A["default"].weight, adapter.down)
        copy_into(layer.peanut_B["default"].weight, adapter.up)
        for i in range(pairs):
            copy_into(layer.peanut_encoders["default"][i].weight, getattr(adapter, f"encoder{i}"))
            copy_into(layer.peanut_decoders["default"][i].weight, getattr(adapter, f"decoder{i}"))
    assert_same(ours, theirs)


def lily_of_both(slots, stride, experts, monoscale=False):
    """Our Lily and PEFT's with the same weights, but for the routers that a monoscale one has not."""
    given = {"lr": 1, "rank": RANK, "scale": SCALE, "router_stats": RouterStats.batch, "slots": slots}
    ours = adapted(Lily(**given, experts=experts, stride=stride, monoscale=monoscale))
    theirs = in_peft(ours, "Lily", slots, r=RANK, scaling=SCALE, stride_A=stride, num_B=experts)
    for name, adapter in models.adaptation(ours).adapters().items():
        layer = theirs.base_model.model.get_submodule(name)
        copy_into(layer.lily_A["default"].weight, adapter.banks["lp"])
        copy_into(layer.lily_B["default"].weight, adapter.banks["hp"].flatten(0, 1))  # E, D, C -> E·D, C
        router = layer.lily_router["default"].weight
        copy_into(router, torch.zeros_like(router) if monoscale else adapter.router)
    return ours, theirs


@pytest.mark.parametrize(
    ("stride", "experts"), [(1, 2), (2, 3), (5, 4)], ids=["own lp", "uneven groups", "one lp"]
)
@pytest.mark.parametrize("slots", SLOTS, ids=" ".join)
def test_lily_equals_that_of_peft(slots, stride, experts):
    assert_same(*lily_of_both(slots, stride, experts), merges=False)  # PEFT does not either


def test_monoscale_equals_routers_of_zeros():
    ours, theirs = lily_of_both(LINEAR, 2, 3, monoscale=True)
    torch.testing.assert_close(theirs(IMAGES), ours(IMAGES), atol=1e-5, rtol=0)
    torch.testing.assert_close(theirs(IMAGES), merge.merge(ours)(IMAGES), atol=1e-5, rtol=0)
