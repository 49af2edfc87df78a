"""NEAT: an update made of the frozen weight."""

from pathlib import Path

import pytest
import torch

from pear_cli.adapters.linear import LinearProbe
from pear_cli.adapters.neat import NEAT
from pear_cli.config.choices import KnowledgeKind, ShareRule
from pear_cli.config.settings import Backbone, Knowledge
from pear_cli.errors import ConfigError
from pear_cli.model import models
from pear_cli.pruning.preservable import check

QV = ("attn.q", "attn.v")
QVMLP = (*QV, "mlp.fc1", "mlp.fc2")
IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
CONFIGS = Path(__file__).parent.parent / "configs"


def neat(**changes):
    return NEAT(**{"lr": 1, "rank": 3, "depth": 4, "scale": 0.5, "dropout": 0.0, "slots": QVMLP} | changes)


def adapted(method, width=24, depth=2, random=True):
    args = {"img_size": 16, "patch_size": 8, "embed_dim": width, "depth": depth, "num_heads": 3}
    given = {"name": "vit_tiny_patch16_224", "pretrained": False, "weights": None, "seed": 0, "args": args}
    model = models.create(Backbone(**given, drop_path=0.0, mean=None, std=None), method, 4, seed=0)
    if random:
        generator = torch.Generator().manual_seed(2)
        for parameter in models.trained(model).values():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model.eval()


@pytest.mark.parametrize("depth", [2, 4, 8])
@pytest.mark.parametrize(("width", "rank"), [(24, 1), (24, 5), (48, 8)])
def test_the_parameters_of_an_adapter_are_two_projections_and_pairs_of_square_layers(depth, width, rank):
    model = adapted(neat(depth=depth, rank=rank), width)
    for adapter in models.adaptation(model).adapters().values():
        out = {"mlp.fc1": 4 * width}.get(adapter.site.slot, width)
        assert sum(p.numel() for p in adapter.parameters()) == 2 * rank * out + (depth - 2) * rank**2


@pytest.mark.parametrize("depth", [2, 4, 6])
def test_gradients_reach_every_parameter_once_nothing_is_zero(depth):
    model = adapted(neat(depth=depth))
    model(IMAGES).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in models.trained(model).values())


def test_a_new_adapter_starts_within_the_bounds_of_kaiming_and_with_a_zero_up():
    model = adapted(neat(rank=8, depth=6), random=False)
    for adapter in models.adaptation(model).adapters().values():
        assert not adapter.up.any()
        for name, parameter in adapter.named_parameters():
            bound = parameter.shape[1] ** -0.5  # kaiming uniform with a = √5
            assert name == "up" or 0.8 * bound < parameter.abs().max() <= bound


@pytest.mark.parametrize("depth", [2, 4, 6])
def test_the_update_merges_into_the_frozen_weight(depth):
    model = adapted(neat(depth=depth, dropout=0.1))
    bare = adapted(LinearProbe(lr=1, slots=()), random=False)
    bare.head.load_state_dict(model.head.state_dict())
    for position in models.adaptation(model).each():
        up, down, scale = position.owner.method.factors(position.owner, position.weight)
        rows = slice(*position.site.rows) if position.site.rows else slice(None)
        bare.get_submodule(position.site.module).weight.data[rows] += scale * (up @ down)
    torch.testing.assert_close(bare(IMAGES), model(IMAGES), atol=1e-5, rtol=1e-5)


def test_a_shared_adapter_makes_its_update_of_the_weight_of_each_site_that_it_serves():
    model = adapted(neat(slots=QV, depth=6))
    adaptation = models.adaptation(model)
    home, served = adaptation.at("blocks.0.attn.v", "blocks.1.attn.v")
    adaptation.share({**adaptation.owners(), served.site.name: home.site.name})
    x = torch.randn(2, 4, 24, generator=torch.Generator().manual_seed(3))
    weights = [model.blocks[i].attn.qkv.weight[48:] for i in (0, 1)]  # the v rows
    for position, weight in zip((home, served), weights, strict=True):
        owner = position.owner
        outer = torch.relu(weight.T @ owner.down.T)
        inner = torch.relu(outer @ owner.encoder0.T)
        h = torch.relu(inner @ owner.encoder1.T)
        h = torch.relu(h @ owner.decoder0.T) + inner
        h = torch.relu(h @ owner.decoder1.T) + outer
        torch.testing.assert_close(position(x, x), 0.5 * x @ h @ owner.up.T)
    assert home.owner is served.owner
    assert not torch.allclose(home(x, x), served(x, x))


@pytest.mark.parametrize("depth", [2, 4])
def test_the_taylor_term_over_up_is_that_of_a_gate_and_over_all_twice_that_at_depth_two(depth):
    model = adapted(neat(depth=depth))
    position = models.adaptation(model).at("blocks.1.mlp.fc2")[0]
    gate = position.gate = torch.ones((), requires_grad=True)
    model(IMAGES).square().sum().backward()
    terms = {n: (p.grad * p).sum() for n, p in position.owner.named_parameters()}
    torch.testing.assert_close(terms["up"], gate.grad)
    twice = torch.allclose(sum(terms.values()), 2 * gate.grad, rtol=1e-4)
    assert twice is (depth == 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 3}, "method.depth = 3 is out of range: even"),
        ({"depth": 0}, "method.depth = 0 is out of range"),
        ({"depth": -2}, "method.depth = -2 is out of range"),
        ({"slots": ("attn.q", "mlp")}, "use mlp.fc1 or mlp.fc2"),
        ({"slots": ()}, "method.slots is empty"),
        ({"rank": 0}, "method.rank = 0 is out of range"),
        ({"rank": 25}, "method.rank = 25 is out of range: at most 24"),
    ],
)
def test_a_bad_value_is_an_error_that_names_it(changes, message):
    with pytest.raises(ConfigError, match=message):
        adapted(neat(**changes))


@pytest.mark.parametrize("kind", ["lowrank", "absorb"])
def test_knowledge_that_adds_up_products_is_refused(kind):
    config = Knowledge(KnowledgeKind[kind], rank=1, beta=1.0, learn_beta=False)
    with pytest.raises(ConfigError, match="NEAT is not linear"):
        check(config, ShareRule.ranked, neat())


@pytest.mark.parametrize(
    "words", ["method=neat_qvmlp share=similar", "method=neat method.depth=4 knowledge=int8 score.of=up"]
)
def test_a_whole_run_ends_in_an_evaluation(pear, quiet, words):
    tiny = ("dataset=digits", "backbone=tiny", "optim.epochs=1", "optim.batch_size=200", "runtime.threads=1")
    said = pear("run", "--config-dir", str(CONFIGS), *quiet, *tiny, "method.rank=2", *words.split(), "-q")
    assert (said.code, said.err) == (0, "")
    assert Path(said.out.strip()).parent.name == "eval"
