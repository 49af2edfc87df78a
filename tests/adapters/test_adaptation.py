"""What holds for every method attached to a timm model."""

import copy
import dataclasses

import pytest
import timm
import torch
from torch import nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.adaptformer import AdaptFormer
from pear_cli.adapters.bottleneck import Activation, Bottleneck
from pear_cli.adapters.full import FullFineTuning
from pear_cli.adapters.linear import LinearProbe
from pear_cli.adapters.lora import LoRA
from pear_cli.adapters.neat import NEAT
from pear_cli.config.settings import Backbone
from pear_cli.errors import ConfigError, TrainingError
from pear_cli.model import models

TINY = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
LORA = LoRA(lr=1, rank=3, scale=0.5, dropout=0.0, slots=("attn.q", "attn.v"))
METHODS = {
    "lora q,v": LORA,
    "lora everywhere": LoRA(
        lr=1, rank=2, scale=2, dropout=0.1, slots=("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    ),
    "lora beside the mlp": LoRA(lr=1, rank=2, scale=1, dropout=0, slots=("mlp",)),
    "adaptformer": AdaptFormer(lr=1, rank=4, scale=0.1, dropout=0.1, bias=False, slots=("mlp",)),
    "adaptformer with biases": AdaptFormer(lr=1, rank=4, scale=0.1, dropout=0, bias=True, slots=("mlp",)),
    "neat q,v": NEAT(lr=1, rank=3, depth=2, scale=0.5, dropout=0.1, slots=("attn.q", "attn.v")),
    "neat of depth 6": NEAT(
        lr=1, rank=2, depth=6, scale=2, dropout=0, slots=("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    ),
    "houlsby": Bottleneck(
        lr=1,
        rank=4,
        scale=0.5,
        dropout=0.1,
        activation=Activation.gelu,
        bias=True,
        slots=("attn.proj", "mlp"),
    ),
    "pfeiffer without biases": Bottleneck(
        lr=1, rank=4, scale=2, dropout=0, activation=Activation.relu, bias=False, slots=("mlp",)
    ),
}
PARAMETERS = {  # closed forms: L blocks of width C, bottleneck D
    "lora q,v": 3 * 2 * 3 * (24 + 24),
    "lora everywhere": 3 * 2 * ((24 + 72) + (24 + 24) + (24 + 96) + (96 + 24)),
    "lora beside the mlp": 3 * 2 * 2 * 24,
    "adaptformer": 3 * 4 * 2 * 24,
    "adaptformer with biases": 3 * (4 * 2 * 24 + 4 + 24),
    "neat q,v": 3 * 2 * 3 * (24 + 24),
    "neat of depth 6": 3 * (2 * 2 * (72 + 24 + 96 + 24) + 4 * 4 * 2 * 2),
    "houlsby": 3 * 2 * (4 * 2 * 24 + 4 + 24),
    "pfeiffer without biases": 3 * 4 * 2 * 24,
}
IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def backbone(**changes):
    given = {
        "name": "vit_tiny_patch16_224",
        "pretrained": False,
        "weights": None,
        "seed": 0,
        "drop_path": 0.0,
    }
    return Backbone(**given | {"mean": None, "std": None, "args": TINY} | changes)


def adapted(method, random=True):
    model = models.create(backbone(), method, num_classes=4, seed=0)
    if random:
        generator = torch.Generator().manual_seed(2)
        for parameter in models.trained(model).values():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


@pytest.mark.parametrize("name", METHODS)
def test_a_new_adaptation_changes_nothing(name):
    bare = models.create(backbone(), LinearProbe(lr=1, slots=()), 4, 0)
    torch.testing.assert_close(
        adapted(METHODS[name], random=False).forward_features(IMAGES),
        bare.forward_features(IMAGES),
        atol=0,
        rtol=0,
    )


@pytest.mark.parametrize("name", METHODS)
def test_only_adapters_and_classifier_get_gradients(name):
    model = adapted(METHODS[name])
    model(IMAGES).square().sum().backward()
    touched = {n for n, p in model.named_parameters() if p.grad is not None}
    assert all(n.startswith(("adaptation.", "head.")) for n in touched)
    assert {id(p) for n, p in model.named_parameters() if n in touched} == {
        id(p) for p in models.trained(model).values()
    }


@pytest.mark.parametrize("name", METHODS)
def test_parameter_counts_equal_the_closed_form(name):
    trained = models.trained(adapted(METHODS[name]))
    assert sum(p.numel() for n, p in trained.items() if n.startswith("adapter.")) == PARAMETERS[name]


@pytest.mark.parametrize(
    "name", ["lora q,v", "lora everywhere", "lora beside the mlp", "neat q,v", "neat of depth 6"]
)
def test_the_stacked_product_equals_the_adapters_one_by_one(name):
    model = adapted(METHODS[name]).eval()
    stacked = model(IMAGES)
    for position in models.adaptation(model).each():
        position.register_forward_hook(lambda *args: None)
    torch.testing.assert_close(model(IMAGES), stacked, atol=1e-5, rtol=1e-5)


def test_lora_equals_a_changed_weight():
    model = adapted(LORA).eval()
    expected = model(IMAGES)
    bare = models.create(backbone(), LinearProbe(lr=1, slots=()), 4, 0)
    bare.head.load_state_dict(model.head.state_dict())
    for position in models.adaptation(model).each():
        host = bare.get_submodule(position.site.module)
        host.weight.data[slice(*position.site.rows)] += 0.5 * position.owner.up @ position.owner.down
    torch.testing.assert_close(bare(IMAGES), expected, atol=1e-5, rtol=1e-5)


def test_the_backbone_keeps_timms_names_and_values():
    model = adapted(LORA)
    bare = timm.create_model("vit_tiny_patch16_224", num_classes=4, **TINY).state_dict()
    kept = {n: t for n, t in model.state_dict().items() if not n.startswith("adaptation.")}
    assert kept.keys() == bare.keys()


def test_dropout_acts_in_training_alone():
    model = adapted(METHODS["lora everywhere"])
    assert torch.equal(model.eval()(IMAGES), model(IMAGES))
    assert not torch.equal(model.train()(IMAGES), model(IMAGES))


def test_a_copy_of_a_model_has_adapters_of_its_own():
    model = adapted(LORA).eval()
    twin = copy.deepcopy(model)
    before = model(IMAGES)
    for parameter in models.adaptation(twin).parameters():
        parameter.data.zero_()
    assert torch.equal(model(IMAGES), before)
    assert not torch.equal(twin(IMAGES), before)


def test_a_shared_adapter_gets_the_sum_of_the_gradients_of_its_sites():
    model = adapted(LORA).eval()
    adaptation = models.adaptation(model)
    first, second = adaptation.at("blocks.0.attn.q", "blocks.1.attn.q")
    twin = copy.deepcopy(model)
    a, b = models.adaptation(twin).at("blocks.0.attn.q", "blocks.1.attn.q")
    b.owner.load_state_dict(a.owner.state_dict())
    adaptation.share({**adaptation.owners(), second.site.name: first.site.name})
    assert first.owner is second.owner
    for each in (model, twin):
        each(IMAGES).square().sum().backward()
    torch.testing.assert_close(first.owner.up.grad, a.owner.up.grad + b.owner.up.grad)


def test_a_model_that_goes_past_an_adapted_module_is_refused():
    class Past(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Module()
            self.block.attn = nn.Module()
            self.block.attn.qkv = nn.Linear(24, 72)
            self.block.mlp = nn.Module()

        def forward(self, x):
            return nn.functional.linear(
                x.mean((1, 2, 3), keepdim=True).expand(-1, 24, 1, 1).flatten(1), self.block.attn.qkv.weight
            )

    model = Past()
    adaptation = Adaptation(model, dataclasses.replace(LORA, slots=("attn.qkv",))).attach(model)
    with pytest.raises(TrainingError, match=r"never calls block\.attn\.qkv"):
        adaptation.check_called_by(model, 16)


def test_a_rank_above_the_layers_smaller_side_is_an_error():
    with pytest.raises(ConfigError, match=r"method.rank = 25 is out of range: at most 24"):
        adapted(LoRA(lr=1, rank=25, scale=1, dropout=0, slots=("attn.q",)))


def test_full_fine_tuning_trains_every_parameter():
    model = adapted(FullFineTuning(lr=1, slots=()))
    assert len(models.trained(model)) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "vit_tinny_patch16_224"}, 'did you mean "vit_tiny_patch16_224"'),
        ({"args": {"depht": 3}}, "timm cannot make"),
        ({"weights": "pear_mny"}, 'did you mean "pear_mini"'),
        ({"weights": "pear_mini"}, "does not"),
    ],
)
def test_a_wrong_backbone_is_an_error_that_says_what(changes, message):
    with pytest.raises(ConfigError, match=message):
        models.create(backbone(**changes), LORA, 4, 0)
