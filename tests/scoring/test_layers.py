"""The importance of channels against torch-pruning's own, computed beside pear."""

import copy
import math

import pytest
import timm
import torch
import torch_pruning as tp
from torch import Tensor, nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.splora import SPLoRA
from pear_cli.backbone.channels import bare, groups
from pear_cli.config.choices import Criterion, Reduction, ScoreOf, Unit, View
from pear_cli.config.settings import Score
from pear_cli.model.merge import merge
from pear_cli.scoring.importance import Importance
from pear_cli.scoring.layers import channels
from pear_cli.scoring.measure import measure_layers
from pear_cli.training.devices import Device

CPU = Device(torch.device("cpu"), torch.float32)
SCORERS = {
    Criterion.group_magnitude: tp.importance.GroupMagnitudeImportance,
    Criterion.group_taylor: tp.importance.GroupTaylorImportance,
}
Batches = list[tuple[Tensor, Tensor]]


def network(name: str, **args: object) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4, **args).eval().requires_grad_(False)
    for parameter in model.parameters():  # zero-initialised norms would leave groups without gradient
        if parameter.ndim < 2:
            nn.init.normal_(parameter)
    return model


def resnet() -> nn.Module:
    return network("resnet18", channels=(8, 12, 16, 20))


def vit() -> nn.Module:
    return network("vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=2, num_heads=3)


def batches(size: int, count: int) -> Batches:
    torch.manual_seed(1)
    return [(torch.randn(4, 3, size, size), torch.randint(4, (4,))) for _ in range(count)]


pytestmark = pytest.mark.filterwarnings("ignore:Unwrapped parameters detected")  # of the library's own graph


def score(model: nn.Module, criterion: Criterion, of: Batches) -> Importance:
    size = of[0][0].shape[-1]
    config = Score(Unit.channel, criterion, Reduction.mean_abs, ScoreOf.gate, View.adapter, None, 4)
    layers = channels(model, groups(model, size))
    return measure_layers(model, layers, lambda: iter(of), config, CPU, seed=0)


def library(model: nn.Module, of: Batches) -> tuple[nn.Module, tp.DependencyGraph]:
    """A copy with the gradients of the first batch, and its graph."""
    twin = copy.deepcopy(model).requires_grad_(True)
    graph = tp.DependencyGraph().build_dependency(twin, of[0][0][:1])
    nn.functional.cross_entropy(twin(of[0][0]), of[0][1]).backward()
    return twin, graph


@pytest.mark.parametrize("criterion", SCORERS)
@pytest.mark.parametrize("name", ["layer1.0.conv1", "conv1", "layer3.0.conv1"])
def test_a_channel_of_a_resnet_has_the_librarys_score(name: str, criterion: Criterion) -> None:
    model, of = resnet(), batches(64, 1)
    found = score(model, criterion, of).by_name()
    twin, graph = library(model, of)
    conv = twin.get_submodule(name)
    group = graph.get_pruning_group(conv, tp.prune_conv_out_channels, list(range(conv.out_channels)))
    expected = SCORERS[criterion]()(group)
    ours = [found[f"{name}.channels.{i}"] for i in range(conv.out_channels)]
    torch.testing.assert_close(torch.tensor(ours), expected, rtol=1e-4, atol=1e-5)
    assert math.isclose(sum(ours) / len(ours), 1, rel_tol=1e-5)


@pytest.mark.parametrize("criterion", SCORERS)
def test_a_head_has_the_mean_over_its_channels_as_the_librarys_pruner_takes_it(criterion: Criterion) -> None:
    model, of = vit(), batches(32, 1)
    found = score(model, criterion, of).by_name()
    twin, _ = library(model, of)
    seen: dict[str, Tensor] = {}

    def scorer(group: tp.Group) -> Tensor:
        value = SCORERS[criterion]()(group)
        seen[names[group[0].dep.target.module]] = value
        return value

    names = {module: name for name, module in twin.named_modules()}
    heads = {block.attn.qkv: 3 for block in twin.blocks}
    tp.pruner.BasePruner(
        twin, of[0][0][:1], scorer, pruning_ratio=0.5, num_heads=heads, prune_num_heads=True,
        head_pruning_ratio=0.5, ignored_layers=[twin.head],
    ).step(interactive=False)  # fmt: skip
    for block in (0, 1):
        expected = seen[f"blocks.{block}.attn.proj"].view(3, 8).mean(1)
        ours = [found[f"blocks.{block}.attn.qkv.channels.{head}"] for head in range(3)]
        torch.testing.assert_close(torch.tensor(ours), expected, rtol=1e-4, atol=1e-5)


def test_group_taylor_is_the_mean_of_what_the_library_says_of_each_batch() -> None:
    model, of = vit(), batches(32, 3)
    each = [score(model, Criterion.group_taylor, [batch]).scores for batch in of]
    together = score(model, Criterion.group_taylor, of)
    torch.testing.assert_close(torch.tensor(together.scores), torch.tensor(each).mean(0))
    assert together.kendall_tau is not None


@pytest.mark.parametrize("criterion", SCORERS)
def test_groups_score_the_weights_that_hold_the_updates(criterion: Criterion) -> None:
    model, of = vit(), batches(32, 1)
    adaptation = Adaptation(model, SPLoRA(lr=1, rank=2, slots=("attn.qkv", "mlp.fc1", "mlp.fc2"))).attach(
        model
    )
    before = score(bare(model), criterion, of).scores
    for parameter in adaptation.parameters():
        nn.init.normal_(parameter, std=0.3)
    merged = merge(model)
    plain = vit()
    plain.load_state_dict(merged.state_dict())
    assert score(merged, criterion, of).scores == score(plain, criterion, of).scores != before


@pytest.mark.parametrize("criterion", SCORERS)
def test_a_group_without_any_importance_scores_zero(criterion: Criterion) -> None:
    model = vit()
    nn.init.zeros_(model.blocks[0].mlp.fc1.weight)
    nn.init.zeros_(model.blocks[0].mlp.fc2.weight)
    found = score(model, criterion, batches(32, 1)).by_name()
    assert found["blocks.0.mlp.fc1.channels.5"] == 0
    assert found["blocks.1.mlp.fc1.channels.5"] > 0


def test_scoring_leaves_the_network_as_it_was() -> None:
    model, of = vit(), batches(32, 2)
    before = copy.deepcopy(model.state_dict())
    score(model, Criterion.group_taylor, of)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
