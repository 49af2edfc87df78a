"""SPLoRA and SPPaRA: their updates against whole weights, and whole runs."""

import pytest
import timm
import torch
from torch import nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.lora import LoRA
from pear_cli.adapters.splopa import SPLoPA
from pear_cli.adapters.splora import SPLoRA
from pear_cli.adapters.sppara import SPPaRA
from pear_cli.backbone.channels import bare, groups
from pear_cli.config.choices import Effect, Initial, Unit
from pear_cli.errors import ConfigError
from pear_cli.model.merge import merge
from pear_cli.pruning.mask import Mask
from pear_cli.scoring.layers import channels

LINEAR = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
CASES = [
    ("vit_tiny_patch16_224", {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2}, LINEAR, 32),
    ("resnet18", {"channels": (8, 12, 16, 20)}, ("conv1", "conv2", "downsample"), 64),
    ("resnet26", {"channels": (4, 6, 8, 10)}, ("conv1", "conv2", "conv3", "downsample"), 64),
    ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, ("mlp.fc1", "mlp.fc2"), 64),
]


def adapted(case: int, method: type[SPLoRA] | type[SPPaRA]) -> tuple[nn.Module, Adaptation, int]:
    name, args, slots, size = CASES[case]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4, **args).eval().requires_grad_(False)
    rank = {"rank": 3} if method is SPLoRA else {}
    return model, Adaptation(model, method(lr=1, slots=slots, **rank)).attach(model), size


@pytest.mark.parametrize("method", [SPLoRA, SPPaRA])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_updates_are_those_of_the_merged_weights(case, method):
    model, adaptation, size = adapted(case, method)
    for parameter in model.parameters():
        if parameter.ndim < 2:  # the last norms of ResNets start at zero, and would hide their block
            nn.init.normal_(parameter)
    for parameter in adaptation.parameters():
        nn.init.normal_(parameter, std=0.05)
    x = torch.randn(2, 3, size, size)
    expected, plain = model(x), bare(model)(x)
    tolerance = 1e-4 * expected.abs().max().item()
    torch.testing.assert_close(merge(model)(x), expected, atol=tolerance, rtol=0)
    assert (expected - plain).abs().max() > 10 * tolerance  # the updates did something


@pytest.mark.parametrize("method", [SPLoRA, SPPaRA])
def test_a_new_adaptation_is_nearly_the_identity(method):
    model, _, size = adapted(0, method)
    x = torch.randn(2, 3, size, size)
    plain = bare(model)
    nn.init.normal_(plain.head.weight)
    model.head.load_state_dict(plain.head.state_dict())
    expected = plain(x)
    assert 0 < (model(x) - expected).abs().max() < 1e-2 * expected.abs().max()


def test_the_parameters_are_those_of_the_closed_form():
    rank, layers = 3, [(24, 72), (24, 24), (24, 96), (96, 24)]
    for method, size in (
        (SPLoRA, sum(rank * (i + o) + o for i, o in layers)),
        (SPPaRA, sum(i * o + o for i, o in layers)),
    ):
        _, adaptation, _ = adapted(0, method)
        assert sum(parameter.numel() for parameter in adaptation.parameters()) == 2 * size


def test_rows_of_a_fused_qkv_are_refused_and_so_is_lora_at_a_convolution():
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=1, num_heads=2)
    with pytest.raises(ConfigError, match=r"whole layers, such as attn\.qkv"):
        Adaptation(vit, SPLoRA(lr=1, slots=("attn.q",), rank=2)).attach(vit)
    resnet = timm.create_model("resnet18", channels=(8, 12, 16, 20))
    with pytest.raises(ConfigError, match="is a convolution, which LoRA cannot adapt"):
        Adaptation(resnet, LoRA(lr=1, rank=2, scale=1, dropout=0, slots=("conv1",))).attach(resnet)


def test_a_unit_counts_all_parameters_that_go_with_it():
    model, _, size = adapted(0, SPLoRA)
    plain = bare(model)
    layers = channels(plain, groups(plain, size))
    found = {unit.name: unit.parameters for layer in layers for unit in layer.units}
    assert found["blocks.0.attn.qkv.channels.1"] == 3 * 12 * (24 + 1) + 12 * 24
    assert found["blocks.1.mlp.fc1.channels.95"] == 24 + 1 + 24


def prototyped(pruned: tuple[str, ...] = ()) -> tuple[nn.Module, Adaptation]:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=4, **CASES[0][1]).eval()
    model.requires_grad_(False)
    method = SPLoPA(lr=1, slots=("attn.qkv", "mlp.fc1"), prototypes=3, block=(8, 12), rank=2)
    adaptation = Adaptation(model, method).attach(model)
    for parameter in adaptation.parameters():
        nn.init.normal_(parameter, std=0.3)
    if pruned:
        Mask.of(Unit.block, Effect.adapter, pruned).apply(model, adaptation)
    return model, adaptation


def test_the_prototypes_are_stored_once_and_the_positions_by_site():
    _, adaptation = prototyped()
    shapes = {name: tuple(tensor.shape) for name, tensor in adaptation.tensors().items()}
    assert shapes["bank.prototypes.cols"] == (3, 8, 2)
    assert shapes["bank.prototypes.rows"] == (3, 2, 12)
    assert shapes["blocks.1.mlp.fc1.pos"] == (3, 96 // 8, 24 // 12)
    assert len(shapes) == 2 + 4 * 2


def test_pruned_blocks_are_zeros_of_the_merged_weight_and_have_no_positions():
    pruned = tuple(f"blocks.0.mlp.fc1.blocks.{i}" for i in (0, 5, 23))
    (dense, _), (model, adaptation) = prototyped(), prototyped(pruned)
    assert adaptation.tensors()["blocks.0.mlp.fc1.pos"].shape == (3, 24 - 3)
    expected = merge(dense)
    weight = expected.blocks[0].mlp.fc1.weight.data.view(12, 8, 2, 12)
    for block in (0, 5, 23):
        weight[block // 2, :, block % 2] = 0
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x), expected(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(merge(model)(x), expected(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"block": (7, 12)}, "must divide 72 and 24, the widths of blocks.0.attn.qkv"),
        ({"block": (8,)}, "two sides"),
        ({"rank": 9}, "1 to 8, the smaller side of a block"),
        ({"prototypes": 0}, "1 to 65536"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(change, words):
    settings = {"prototypes": 3, "block": (8, 12), "rank": 2, **change}
    vit = timm.create_model("vit_tiny_patch16_224", **CASES[0][1])
    with pytest.raises(ConfigError, match=words):
        Adaptation(vit, SPLoPA(lr=1, slots=("attn.qkv",), **settings)).attach(vit)


def test_splopa_is_of_linear_layers():
    resnet = timm.create_model("resnet18", channels=(8, 12, 16, 20))
    with pytest.raises(ConfigError, match="SPLoPA is of linear layers"):
        Adaptation(resnet, SPLoPA(lr=1, slots=("conv1",), prototypes=1, block=(2, 2), rank=1)).attach(resnet)


@pytest.mark.parametrize(("initial", "bound"), [(Initial.paper, 24**-0.5), (Initial.code, (3 * 24) ** -0.5)])
def test_rows_of_splora_start_within_the_bound_of_the_paper_or_of_the_code(initial, bound):
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=2, num_heads=2)
    adaptation = Adaptation(vit, SPLoRA(lr=1, slots=("attn.qkv", "mlp.fc1"), rank=3, initial=initial)).attach(
        vit
    )
    largest = max(adapter.rows.abs().max().item() for adapter in adaptation.adapters().values())
    assert 0.95 * bound < largest <= bound


@pytest.mark.parametrize("initial", Initial)
def test_splopa_starts_from_small_positions_or_from_small_prototypes(initial):
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=2, num_heads=2)
    method = SPLoPA(lr=1, slots=("attn.proj",), prototypes=4, block=(6, 6), rank=1, initial=initial)
    adaptation = Adaptation(vit, method).attach(vit)
    (adapter, *_) = adaptation.adapters().values()
    sizes = {
        "pos": adapter.pos.abs().max().item(),
        **{name: bank.abs().max().item() for name, bank in adapter.banks.items()},
    }
    small = "pos" if initial is Initial.paper else "cols"
    assert [name for name, size in sizes.items() if size <= 1e-4] == [small]
    assert all(size > 0.1 for name, size in sizes.items() if name != small)


def test_a_grouped_convolution_is_refused_with_the_reason():
    convnext = timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))
    with pytest.raises(ConfigError, match="depthwise convolution, which pear does not adapt"):
        Adaptation(convnext, SPLoRA(lr=1, slots=("conv_dw",), rank=2)).attach(convnext)
    resnext = timm.create_model("resnext50_32x4d", layers=(1, 1, 1, 1))
    with pytest.raises(ConfigError, match=r"grouped convolution, .* each output reads 4 of 128 channels"):
        Adaptation(resnext, SPLoRA(lr=1, slots=("conv2",), rank=2)).attach(resnext)
