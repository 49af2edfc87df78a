"""A merged model is timm's own and gives the logits of the adapted one, or is refused."""

import copy

import pytest
import timm
import torch

from pear_cli.adapters.adaptformer import AdaptFormer
from pear_cli.adapters.bitfit import BitFit
from pear_cli.adapters.bottleneck import Activation, Bottleneck
from pear_cli.adapters.full import FullFineTuning
from pear_cli.adapters.lily import Lily, RouterStats
from pear_cli.adapters.linear import LinearProbe
from pear_cli.adapters.lora import LoRA
from pear_cli.adapters.neat import NEAT
from pear_cli.config.choices import Effect, KnowledgeKind, Unit
from pear_cli.config.settings import Backbone, Knowledge
from pear_cli.errors import ConfigError, MergeError
from pear_cli.model import merge, models
from pear_cli.pruning.knowledge import decode, encode
from pear_cli.pruning.mask import Mask

VIT = ("vit_tiny_patch16_224", {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3})
EVA = ("eva02_tiny_patch14_224", {"img_size": 28, "embed_dim": 24, "depth": 2, "num_heads": 2})
SWIN = {"img_size": 32, "embed_dim": 12, "depths": [1, 2], "num_heads": [2, 3], "window_size": 4}
MODELS = {
    "vit": VIT,
    "vit distilled": ("deit_tiny_distilled_patch16_224", VIT[1]),
    "vit in parallel": ("vit_small_patch16_18x2_224", VIT[1]),
    "eva": (EVA[0], EVA[1] | {"qkv_fused": True}),
    "eva separate": (EVA[0], EVA[1] | {"qkv_fused": False}),
    "eva gated": ("eva02_base_patch14_224", EVA[1]),
    "beit": ("beit_base_patch16_224", VIT[1]),
    "swin": ("swin_tiny_patch4_window7_224", SWIN),
    "swin v2": ("swinv2_tiny_window8_256", SWIN),
}
QV = ("attn.q", "attn.v")
LINEAR = {name: ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2") for name in MODELS}
LINEAR["eva gated"] = (*LINEAR["vit"][:4], "mlp.fc1_g", "mlp.fc1_x", "mlp.fc2")


def lora(*slots):
    return LoRA(lr=1, rank=3, scale=0.5, dropout=0.1, slots=slots or QV)


def neat(depth, *slots):
    return NEAT(lr=1, rank=3, depth=depth, scale=0.5, dropout=0.1, slots=slots or QV)


def lily(monoscale, *slots):
    given = {"lr": 1, "rank": 3, "scale": 0.5, "experts": 2, "stride": 2, "router_stats": RouterStats.batch}
    return Lily(**given, monoscale=monoscale, slots=slots)


def adapted(method, name="vit"):
    """A model whose trained parameters are of the size that training gives them."""
    timm_name, args = MODELS[name]
    given = {"name": timm_name, "pretrained": False, "weights": None, "seed": 0, "args": args}
    model = models.create(Backbone(**given, drop_path=0.0, mean=None, std=None), method, 4, seed=0)
    generator = torch.Generator().manual_seed(2)
    for parameter in models.trained(model).values():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    for parameter_name, parameter in model.named_parameters():
        if "gamma" in parameter_name or (".norm" in parameter_name and parameter_name.endswith("weight")):
            parameter.data.fill_(1)  # some start at 0 or at 1e-5, which would hide the blocks
    return model.eval()


def shares(model, **owners):
    """Let block owners serve elsewhere, in every slot: `b2=0` lets block 0 serve in block 2."""
    adaptation = models.adaptation(model)
    changed = dict(adaptation.owners())
    for site in adaptation.sites:
        if f"b{site.block}" in owners:
            owner = owners[f"b{site.block}"]
            changed[site.name] = None if owner is None else site.name.replace(f".{site.block}.", f".{owner}.")
    adaptation.share(changed)
    return model


def knows(model, kind, beta, *blocks, learn=False):
    """Keep what the adapters of some blocks know, before `shares` prunes them."""
    adaptation = models.adaptation(model)
    config = Knowledge(kind, rank=2, beta=beta, learn_beta=learn)
    pruned = {name: a for name, a in adaptation.adapters().items() if a.site.block in blocks}
    adaptation.keep(
        decode(encode(config, pruned), adaptation.method, adaptation.sites), config.beta, config.learn_beta
    )
    return model


def masks(model, unit, effect, *pruned):
    Mask.of(unit, effect, pruned).apply(model, models.adaptation(model))
    return model


def in_plain_timm(merged, name="vit"):
    """The model that timm makes by itself, with the merged weights."""
    timm_name, args = MODELS[name]
    plain = timm.create_model(timm_name, num_classes=4, **args).eval()
    plain.load_state_dict(merged.state_dict(), strict=True)
    return plain


def assert_same_logits(model, name="vit"):
    merged = merge.merge(model)
    assert merge.error(model, merged) < 1e-5
    assert merge.error(model, in_plain_timm(merged, name)) < 1e-5
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in merged.modules())
    size = models.input_size(model)
    bare = copy.deepcopy(model)
    for parameter in models.adaptation(bare).parameters():
        parameter.data.zero_()
    if models.adaptation(model).sites:  # or there would be nothing to see
        assert (models.probe(bare, size) - models.probe(model, size)).abs().max() > 1e-3


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", [lora, lambda *slots: neat(4, *slots)], ids=["lora", "neat"])
def test_every_linear_slot_of_every_kind_of_backbone_merges(name, method):
    assert_same_logits(adapted(method(*LINEAR[name]), name), name)


@pytest.mark.parametrize(
    "method",
    [
        lora("attn.q"),
        lora(*QV),
        lora("attn.qkv", "mlp.fc2"),
        neat(2),
        neat(4, "attn.v"),
        neat(6, "attn.qkv"),
        lily(True, "attn.k", "attn.v"),
        lily(True, "attn.qkv", "attn.proj", "mlp.fc1"),
    ],
    ids=lambda method: f"{type(method).__name__} {' '.join(method.slots)}",
)
def test_a_linear_update_merges(method):
    assert_same_logits(adapted(method))


def test_an_update_of_some_rows_leaves_the_others_as_they_were():
    model = adapted(lora(*QV))
    before = model.blocks[0].attn.qkv.weight.clone()
    after = merge.merge(model).blocks[0].attn.qkv.weight
    assert torch.equal(after[24:48], before[24:48])  # k
    assert not torch.isclose(after[:24], before[:24], atol=1e-6).all()
    assert not torch.isclose(after[48:], before[48:], atol=1e-6).all()


@pytest.mark.parametrize(
    "method",
    [lora(), neat(2), neat(4), lily(True, "attn.k", "attn.v")],
    ids=["lora", "neat", "deep neat", "lily"],
)
def test_a_shared_owner_merges_at_each_site_that_it_serves(method):
    assert_same_logits(shares(adapted(method), b1=0, b2=None))


@pytest.mark.parametrize("kind", ["frozen", "lowrank", "int8"])
@pytest.mark.parametrize("beta", [1.0, -0.7])
def test_kept_knowledge_merges_with_its_beta(kind, beta):
    model = knows(adapted(lora(*LINEAR["vit"])), KnowledgeKind[kind], beta, 1, 2)
    assert_same_logits(shares(model, b1=0, b2=None))


def test_a_learned_beta_merges():
    model = shares(knows(adapted(lora()), KnowledgeKind.frozen, 1.0, 1, learn=True), b1=0)
    for position in models.adaptation(model).each():
        if position.beta is not None:
            position.beta.data.fill_(0.3)
    assert_same_logits(model)


@pytest.mark.parametrize("kind", ["frozen", "int8"])
@pytest.mark.parametrize("depth", [2, 4])
def test_owner_and_knowledge_of_neat_both_work_on_the_original_weight(kind, depth):
    model = knows(adapted(neat(depth, "attn.q", "mlp.fc1")), KnowledgeKind[kind], 0.6, 1, 2)
    assert_same_logits(shares(model, b1=0, b2=None))


@pytest.mark.parametrize("effect", Effect)
@pytest.mark.parametrize("name", ["vit", "eva separate", "swin"])
def test_switched_off_heads_merge(effect, name):
    model = adapted(
        lora("attn.q", "attn.v", "attn.proj", "mlp.fc2" if name == "eva separate" else "mlp.fc1"), name
    )
    attentions = sorted(
        {s.name.rpartition(".")[0] for s in models.adaptation(model).sites if s.slot == "attn.q"}
    )
    pruned = (f"{attentions[0]}.heads.1", f"{attentions[1]}.heads.0", f"{attentions[1]}.heads.1")
    assert_same_logits(masks(model, Unit.head, effect, *pruned), name)


def test_the_output_of_a_switched_off_head_meets_zero_columns():
    model = adapted(neat(2, "attn.proj"))
    models.adaptation(model).silence(model, "blocks.1.attn", (2,))
    weight = merge.merge(model).blocks[1].attn.proj.weight
    assert not weight[:, 16:].any()
    assert weight[:, :16].all()
    assert_same_logits(model)


@pytest.mark.parametrize("effect", Effect)
def test_pruned_ranks_merge(effect):
    pruned = ("blocks.0.attn.q.ranks.0", *(f"blocks.1.attn.v.ranks.{rank}" for rank in range(3)))
    assert_same_logits(masks(adapted(lora()), Unit.rank, effect, *pruned))


@pytest.mark.parametrize("method", [FullFineTuning, BitFit, LinearProbe])
@pytest.mark.parametrize("name", ["vit", "eva", "swin v2"])
def test_a_model_without_adapters_is_merged_already(method, name):
    model = adapted(method(lr=1, slots=()), name)
    merged = merge.merge(model)
    assert merge.error(model, merged) == 0
    assert merge.error(model, in_plain_timm(merged, name)) < 1e-5


MLP = {"lr": 1, "rank": 3, "scale": 0.5, "dropout": 0.1, "bias": False}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            AdaptFormer(**MLP, slots=("mlp",)),
            r"blocks\.0\.mlp: .* AdaptFormer .* activation between",
        ),
        (
            Bottleneck(**MLP, activation=Activation.gelu, slots=("attn.proj", "mlp")),
            r"blocks\.0\.attn\.proj: the update of Bottleneck .* reads the layer's output",
        ),
        (
            lily(False, "attn.k"),
            r"blocks\.0\.attn\.k: the update of Lily .* routers .* method\.monoscale=true",
        ),
        (lily(True, "attn.k", "mlp"), r"blocks\.0\.mlp: the update of Lily .* ReLU"),
        (lora("attn.q", "mlp"), r"blocks\.0\.mlp: the update of LoRA .* whole mlp has no weight"),
    ],
    ids=["adaptformer", "houlsby", "lily router", "lily at the mlp", "lora beside the mlp"],
)
def test_an_update_that_no_weight_can_hold_is_refused_with_the_reason(method, message):
    model = adapted(method)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=message):
        merge.merge(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_where_no_adapter_is_left_there_is_nothing_to_refuse():
    model = shares(adapted(AdaptFormer(**MLP, slots=("mlp",))), b0=None, b1=None, b2=None)
    assert merge.error(model, merge.merge(model)) == 0


def test_merging_leaves_the_adapted_model_as_it_was():
    model = adapted(neat(4))
    before, logits = copy.deepcopy(model.state_dict()), models.probe(model, 16)
    merged = merge.merge(model)
    for parameter in merged.parameters():
        parameter.data.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert torch.equal(models.probe(model, 16), logits)


def test_it_is_computed_in_float64_and_kept_in_the_dtype_of_the_weight():
    model = adapted(lora("mlp.fc1"))
    position = models.adaptation(model).at("blocks.0.mlp.fc1")[0]
    up, down = (tensor.detach().double() for tensor in (position.owner.up, position.owner.down))
    expected = (model.blocks[0].mlp.fc1.weight.double() + 0.5 * up @ down).float()
    assert torch.equal(merge.merge(model).blocks[0].mlp.fc1.weight, expected)


@pytest.mark.parametrize("wrong", [1.01, float("nan")])
def test_a_merged_model_with_other_logits_is_an_error(wrong):
    model = adapted(lora())
    merged = merge.merge(model)
    merged.head.weight.data.mul_(wrong)
    with pytest.raises(MergeError, match="gives other logits than the adapted one"):
        merge.error(model, merged)
