"""Bottlenecks in series, against blocks of torch's own layers."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.bottleneck import Activation, Bottleneck
from pear_cli.adapters.linear import LinearProbe
from pear_cli.config.settings import Backbone
from pear_cli.errors import ConfigError
from pear_cli.model import models

HOULSBY = ("attn.proj", "mlp")
IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
CONFIGS = Path(__file__).parent.parent / "configs"
LAYERS = {Activation.gelu: nn.GELU, Activation.relu: nn.ReLU}
ALL = [(activation, bias) for activation in Activation for bias in (True, False)]


def bottleneck(**changes):
    given = {"lr": 1, "rank": 3, "scale": 0.5, "dropout": 0.0, "activation": Activation.gelu, "bias": True}
    return Bottleneck(**given | {"slots": HOULSBY} | changes)


def adapted(method, width=24, random=True):
    args = {
        "img_size": 16,
        "patch_size": 8,
        "embed_dim": width,
        "depth": 2,
        "num_heads": 3,
        "init_values": 0.1,
    }
    given = {"name": "vit_tiny_patch16_224", "pretrained": False, "weights": None, "seed": 0, "args": args}
    model = models.create(Backbone(**given, drop_path=0.0, mean=None, std=None), method, 4, seed=0)
    if random:
        fill(model)
    return model.eval()


def fill(model):
    """Random parameters with which every ReLU is at work: what a random backbone puts out is small."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in models.trained(model).items():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
        if name.endswith(".down"):
            parameter.data *= 10
        if name.endswith(".down_bias"):
            parameter.data.abs_()


class Series(nn.Module):
    """A frozen module and a bottleneck with a skip behind it."""

    def __init__(self, module, adapter, activation):
        super().__init__()
        down = nn.Linear(*reversed(adapter.down.shape), bias="down_bias" in adapter.tensors())
        up = nn.Linear(*reversed(adapter.up.shape), bias="up_bias" in adapter.tensors())
        for layer, name in ((down, "down"), (up, "up")):
            layer.weight = getattr(adapter, name)
            if layer.bias is not None:
                layer.bias = getattr(adapter, f"{name}_bias")
        self.module, self.bottleneck = module, nn.Sequential(down, LAYERS[activation](), up)

    def forward(self, x):
        z = self.module(x)
        return z + 0.5 * self.bottleneck(z)


@pytest.mark.parametrize(("activation", "bias"), ALL)
@pytest.mark.parametrize("slots", [HOULSBY, ("mlp",), ("attn.proj",)])
def test_the_logits_equal_those_of_modules_in_series(slots, activation, bias):
    model = adapted(bottleneck(slots=slots, activation=activation, bias=bias))
    bare = adapted(LinearProbe(lr=1, slots=()), random=False)
    bare.head.load_state_dict(model.head.state_dict())
    for position in models.adaptation(model).each():
        assert position.site.module.endswith(position.site.slot)
        module = bare.get_submodule(position.site.module)
        bare.set_submodule(position.site.module, Series(module, position.owner, activation))
    torch.testing.assert_close(bare(IMAGES), model(IMAGES), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("slots", [HOULSBY, ("mlp",)])
@pytest.mark.parametrize(("width", "rank", "bias"), [(24, 1, True), (48, 8, True), (48, 5, False)])
def test_the_parameters_of_an_adapter_are_those_of_the_closed_form(slots, width, rank, bias):
    model = adapted(bottleneck(slots=slots, rank=rank, bias=bias), width)
    trained = models.trained(model)
    count = sum(p.numel() for n, p in trained.items() if n.startswith("adapter."))
    assert count == 2 * len(slots) * (2 * rank * width + (rank + width if bias else 0))


@pytest.mark.parametrize(("activation", "bias"), ALL)
def test_gradients_reach_every_parameter_once_nothing_is_zero(activation, bias):
    model = adapted(bottleneck(activation=activation, bias=bias))
    model(IMAGES).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in models.trained(model).values())


def test_a_new_adapter_adds_exactly_nothing():
    model = adapted(bottleneck(), random=False)
    for adapter in models.adaptation(model).adapters().values():
        assert adapter.down.all()
        assert not any(t.any() for name, t in adapter.tensors().items() if name != "down")


def test_dropout_acts_on_the_bottleneck_in_training_alone():
    model = adapted(bottleneck(dropout=0.5))
    assert torch.equal(model(IMAGES), model(IMAGES))
    assert not torch.equal(model.train()(IMAGES), model(IMAGES))


def test_it_reads_what_the_projection_puts_out_where_that_is_of_another_width():
    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Module()
            self.block.attn, self.block.mlp = nn.Module(), nn.Module()
            self.block.attn.proj = nn.Linear(10, 6)

        def forward(self, x):
            return self.block.attn.proj(x)

    model, x = Narrow(), torch.randn(2, 4, 10)
    base = model(x)
    adaptation = Adaptation(model, bottleneck(slots=("attn.proj",), activation=Activation.relu)).attach(model)
    (adapter,) = adaptation.adapters().values()
    assert {n: tuple(t.shape) for n, t in adapter.tensors().items()} == {
        "down": (3, 6),
        "up": (6, 3),
        "down_bias": (3,),
        "up_bias": (6,),
    }
    nn.init.normal_(adapter.up)
    torch.testing.assert_close(model(x), base + 0.5 * torch.relu(base @ adapter.down.T) @ adapter.up.T)


def test_it_attaches_to_windowed_attention_and_feature_maps():
    args = {"img_size": 32, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 0}
    model = timm.create_model("swin_tiny_patch4_window7_224", **args, window_size=4).eval()
    images = torch.randn(1, 3, 32, 32)
    before = model(images)
    adaptation = Adaptation(model, bottleneck()).attach(model)
    assert torch.equal(model(images), before)
    adaptation.check_called_by(model, 32)
    for adapter in adaptation.adapters().values():
        nn.init.normal_(adapter.up)
    assert not torch.allclose(model(images), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slots": ("mlp", "attn.q")}, "attaches behind attn.proj and mlp alone, not at attn.q"),
        ({"slots": ()}, "method.slots is empty"),
        ({"rank": 25}, "method.rank = 25 is out of range: at most 24"),
        ({"scale": 0}, "method.scale = 0 is out of range"),
        ({"dropout": 1.0}, "method.dropout = 1.0 is out of range"),
    ],
)
def test_a_bad_value_is_an_error_that_names_it(changes, message):
    with pytest.raises(ConfigError, match=message):
        adapted(bottleneck(**changes))


def test_an_unknown_activation_is_an_error_that_lists_what_there_is(pear, quiet):
    said = pear("train", *quiet, "method=houlsby", "method.activation=swish")
    assert (said.code, said.out) == (1, "")
    assert "method.activation" in said.err
    assert "gelu, relu" in said.err


@pytest.mark.parametrize(
    "words", ["method=houlsby score.of=up", "method=pfeiffer knowledge=int8 share=similar"]
)
def test_a_whole_run_ends_in_an_evaluation(pear, quiet, words):
    tiny = ("dataset=digits", "backbone=tiny", "optim.epochs=1", "optim.batch_size=200", "runtime.threads=1")
    said = pear("run", "--config-dir", str(CONFIGS), *quiet, *tiny, "method.rank=2", *words.split(), "-q")
    assert (said.code, said.err) == (0, "")
    assert Path(said.out.strip()).parent.name == "eval"
