"""What pear takes for granted of timm's architectures, measured on small copies of them."""

import copy
import functools
import hashlib
import runpy
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from omegaconf import OmegaConf
from torch import nn

from pear_cli.adapters.adaptformer import AdaptFormer
from pear_cli.adapters.linear import LinearProbe
from pear_cli.adapters.lora import LoRA
from pear_cli.backbone import backbones, identity, pretrained
from pear_cli.backbone.sites import (
    HEAD_BY_HEAD,
    PARALLEL_SCALING,
    PARALLEL_THINGS,
    STREAMS,
    all_sites,
    find,
)
from pear_cli.config.settings import Backbone
from pear_cli.errors import ConfigError
from pear_cli.experiment.read import read
from pear_cli.model import models
from pear_cli.model.load import load_model
from pear_cli.stages.perform import perform_all
from pear_cli.store.store import Store

VIT = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2}
EVA = {"img_size": 28, "embed_dim": 32, "depth": 2, "num_heads": 2}
SWIN = {"img_size": 32, "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4}
SAM = {"img_size": 64, "neck_chans": 16, "global_attn_indexes": [1], "window_size": 2}
SMALL = {
    "vit_tiny_patch16_224": VIT,
    "vit_tiny_patch16_224 patches of 8": VIT | {"patch_size": 8},
    "vit_medium_patch16_reg4_gap_256": VIT,
    "vit_base_patch16_clip_224": VIT,
    "vit_base_patch16_siglip_224": VIT,
    "vit_small_patch14_reg4_dinov2": VIT | {"img_size": 28},
    "vit_giant_patch14_reg4_dinov2": VIT | {"img_size": 28},
    "vit_base_patch16_rpn_224": VIT,
    "vit_small_patch16_18x2_224": VIT | {"depth": 1},
    "vit_base_patch16_xp_224": VIT,
    "vit_dwee_patch16_reg1_gap_256": VIT,
    "vit_dpwee_patch16_reg1_gap_256": VIT,
    "vit_tiny_r_s16_p8_224": VIT,
    "vit_relpos_small_patch16_224": VIT,
    "vit_relpos_base_patch16_rpn_224": VIT,
    "vit_base_patch16_rope_224": VIT,
    "vit_small_patch16_dinov3": EVA | {"img_size": 32},
    "vit_base_patch16_sapiens2": EVA | {"img_size": 32, "num_kv_heads": [2, 1]},
    "samvit_base_patch16_224": VIT | SAM,
    "naflexvit_base_patch16_gap": VIT,
    "deit_tiny_distilled_patch16_224": VIT,
    "deit3_small_patch16_224": VIT,
    "beit_base_patch16_224": VIT,
    "eva_giant_patch14_224": EVA,
    "eva02_tiny_patch14_224": EVA,
    "eva02_base_patch14_224": EVA,
    "eva02_enormous_patch14_clip_224": EVA,
    "swin_tiny_patch4_window7_224": SWIN,
    "swinv2_tiny_window8_256": SWIN,
    "swinv2_cr_tiny_224": SWIN,
}
PAST = ("beit_base_patch16_224", "eva_giant_patch14_224", "eva02_tiny_patch14_224", "swinv2_tiny_window8_256")
PACKED = ("vit_base_patch16_xp_224", "vit_dpwee_patch16_reg1_gap_256")  # attention and mlp in one projection
HEADED = [name for name in SMALL if name not in PACKED]
STREAMED = [name for name in HEADED if name != "swinv2_cr_tiny_224"]


def config(name, **changes):
    given = {"pretrained": False, "weights": None, "seed": 0, "drop_path": 0.0, "mean": None, "std": None}
    return Backbone(**{"name": name.split()[0], "args": SMALL.get(name, {})} | given | changes)


@functools.cache
def _built(name):
    """A small copy with random weights; no branch of a block is near zero, as timm starts some of them."""
    model = backbones.build(config(name), num_classes=3)
    generator = torch.Generator().manual_seed(1)
    for key, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.data.add_(noise * 0.1)
        elif "gamma" in key or ("norm" in key and key.endswith("weight")):
            parameter.data.copy_(0.5 + noise * 0.1)
    return model


def built(name):
    return copy.deepcopy(_built(name))


def images(name, count=2):
    size = models.input_size(_built(name))
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """A second thread costs these small models more than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def slots_of(model):
    return list(dict.fromkeys(site.slot for site in all_sites(model)))


def kind(module):
    return f"{type(module).__module__}.{type(module).__name__}"


def test_each_architecture_has_the_slots_of_its_layers():
    every = {"attn.qkv", "attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2", "mlp"}
    gated = every - {"attn.qkv", "mlp.fc1"} | {"mlp.fc1_g", "mlp.fc1_x"}
    others = {
        "vit_base_patch16_xp_224": every - {"mlp"},
        "vit_dpwee_patch16_reg1_gap_256": every - {"mlp", "mlp.fc2", "attn.proj"},
        "vit_base_patch16_sapiens2": every - {"attn.qkv"},
        "eva02_base_patch14_224": gated,
        "swinv2_cr_tiny_224": every - {"mlp"},
    }
    for name in SMALL:
        assert set(slots_of(_built(name))) == others.get(name, every), name


def test_every_class_of_timm_that_sites_rely_on_is_measured_here():
    met = {kind(module) for name in SMALL for module in _built(name).modules()}
    trusted = HEAD_BY_HEAD | STREAMS.keys() | PARALLEL_SCALING | {PARALLEL_THINGS}
    assert trusted - met <= {"timm.layers.attention.Attention", "timm.models.vision_transformer.Attention"}


@pytest.mark.parametrize("name", PAST)
def test_a_qkv_that_timm_goes_past_is_called_and_the_logits_stay(name):
    model = built(name)
    for key, parameter in model.named_parameters():
        if key.endswith(("q_bias", "v_bias")):
            parameter.data.normal_()
    bare = timm.create_model(name, num_classes=3, **SMALL[name]).eval()
    bare.load_state_dict(model.state_dict())
    calls = []
    for each in (bare, model):
        path = next(site.module for site in all_sites(each) if site.slot == "attn.q")
        each.get_submodule(path).register_forward_hook(lambda module, *_, each=each: calls.append(each))
    x = images(name)
    torch.testing.assert_close(model(x), bare(x), atol=1e-6, rtol=1e-6)
    assert calls == [model]


def attentions(model):
    """The sites of q, k and v of every attention."""
    found = {}
    for site in all_sites(model):
        if site.slot in ("attn.q", "attn.k", "attn.v"):
            found.setdefault(site.name.rpartition(".")[0], {})[site.slot[-1]] = site
    return list(found.values())


def attended(model, sites, x, **changes):
    """What the heads of an attention come to, (tokens, H·Dh), with some of q, k, v changed."""

    def change(slot):
        def hook(module, args, out):
            rows = slice(*(sites[slot].rows or (0, None)))
            out = out.clone()
            part = out[..., rows].reshape(-1, out[..., rows].shape[-1])  # B, N, C -> B·N, C
            out[..., rows] = changes[slot](part.clone()).reshape(out[..., rows].shape)
            return out

        return hook

    module = model.get_submodule(sites["q"].module.rpartition(".")[0])
    readers = [getattr(module, name, None) for name in ("norm", "proj", "attn_out_proj", "out_proj")]
    reader = next(r for r in readers if r is not None and not isinstance(r, nn.Identity))
    seen = []
    handles = [
        model.get_submodule(sites[slot].module).register_forward_hook(change(slot)) for slot in changes
    ]
    handles.append(reader.register_forward_pre_hook(lambda module, args: seen.append(args[0])))
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return seen[0].flatten(0, -2)[:, : sites["q"].out_dim]


def shifted(rows=slice(None), channels=slice(None)):
    def shift(part):
        noise = torch.randn(part.shape, generator=torch.Generator().manual_seed(3))
        part[rows, channels] += noise[rows, channels]
        return part

    return shift


@pytest.mark.parametrize("name", SMALL)
def test_the_slots_q_k_and_v_are_what_the_attention_takes_for_them(name):
    model, x = built(name), images(name)
    for sites in attentions(model):
        a = attended(model, sites, x)
        odd = [torch.allclose(attended(model, sites, x, **{s: torch.neg}), -a, atol=1e-4) for s in "qkv"]
        assert odd == [False, False, True]  # linear in the values
        one = [(attended(model, sites, x, **{s: shifted(rows=0)}) - a).abs() > 1e-5 for s in "qkv"]
        tokens = [changed.any(-1).nonzero().flatten().tolist() for changed in one]
        assert tokens[0] == [0]  # a query serves its own token, keys and values all of them
        assert len(tokens[1]) > 1
        assert len(tokens[2]) > 1


@pytest.mark.parametrize("name", HEADED)
def test_the_channels_of_a_head_stand_together_in_q_k_v_and_in_what_they_come_to(name):
    model, x = built(name), images(name)
    for sites in attentions(model):
        if sites["q"].heads is None:
            continue
        a, heads = attended(model, sites, x), sites["q"].heads
        for slot, site in sites.items():
            width = site.out_dim // heads
            for head in range(heads):
                channels = slice(head * width, (head + 1) * width)
                d = attended(model, sites, x, **{slot: shifted(channels=channels)}) - a
                assert (d.abs() > 1e-5).any(0).reshape(heads, width).any(1).nonzero().tolist() == [[head]]


def test_heads_are_those_of_the_stage_and_unknown_where_queries_share_keys():
    def heads(name):
        return [site.heads for site in all_sites(_built(name)) if site.slot == "attn.k"]

    assert heads("swin_tiny_patch4_window7_224") == [2, 4, 4]
    assert heads("vit_base_patch16_sapiens2") == [2, None]
    assert heads("vit_base_patch16_xp_224") == [None, None]
    slots = {site.slot for site in all_sites(_built("vit_tiny_patch16_224")) if site.heads is not None}
    assert slots == {"attn.qkv", "attn.q", "attn.k", "attn.v"}


@pytest.mark.parametrize("name", STREAMED)
def test_without_its_mlp_a_block_gives_the_residual_stream_that_is_read_beside_it(name):
    model, seen = built(name), {}
    sites = find(model, ["mlp"])
    for site in sites:
        reads, adds = (model.get_submodule(path) for path in site.stream)
        model.get_submodule(site.module).register_forward_hook(lambda m, args, out: torch.zeros_like(out))
        reads.register_forward_pre_hook(lambda m, args, site=site: seen.update({(site, "in"): args[0]}))
        adds.register_forward_hook(lambda m, args, out, site=site: seen.update({(site, "out"): out}))
    model(images(name))
    for site in sites:
        stream, out = seen[site, "in"], seen[site, "out"]
        assert torch.equal(out.reshape(stream.shape), stream)
        assert stream.shape[-1] == site.in_dim == site.out_dim


@pytest.mark.parametrize("name", STREAMED)
def test_adaptformer_adds_to_what_its_block_gives(name):
    method = AdaptFormer(lr=1, rank=3, scale=0.5, dropout=0.0, bias=False, slots=("mlp",))
    model = models.create(config(name), method, 3, 0)
    bare = models.create(config(name), LinearProbe(lr=1, slots=()), 3, 0)
    adaptation = models.adaptation(model)
    for parameter in adaptation.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(4))
    first = [p for p in adaptation.each() if p.site.module == adaptation.sites[0].module]
    seen = {}
    for each in (model, bare):
        block, norm = (each.get_submodule(path) for path in (first[0].site.module, first[0].site.reads))
        block.register_forward_hook(lambda m, args, out, each=each: seen.update({each: out}))
        norm.register_forward_pre_hook(lambda m, args: seen.update(stream=args[0]))
        each(images(name))
    update = sum(0.5 * (seen["stream"] @ p.owner.down.T).relu() @ p.owner.up.T for p in first)
    torch.testing.assert_close(
        seen[model], seen[bare] + update.reshape(seen[bare].shape), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("name", SMALL)
def test_lora_equals_a_changed_weight_at_every_linear_slot(name):
    model, bare, x = built(name), built(name), images(name)
    slots = tuple(slot for slot in slots_of(model) if slot not in ("attn.qkv", "mlp"))
    method = LoRA(lr=1, rank=2, scale=0.5, dropout=0.0, slots=slots)
    adaptation = models.Adaptation(model, method).attach(model)
    before = model(x)
    generator = torch.Generator().manual_seed(5)
    for position in adaptation.each():
        for parameter in position.owner.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        rows = slice(*(position.site.rows or (0, None)))
        weight = bare.get_submodule(position.site.module).weight
        weight.data[rows] += 0.5 * position.owner.up @ position.owner.down
    adaptation.check_called_by(model, models.input_size(model))
    after = model(x)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, bare(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_the_input_has_the_size_that_the_arguments_say(name):
    assert models.input_size(_built(name)) == SMALL[name]["img_size"]


def test_an_input_of_two_sides_is_refused():
    with pytest.raises(ConfigError, match=r"img_size = \[32, 48\]: images become squares; give one number"):
        backbones.build(config("vit_tiny_patch16_224", args=VIT | {"img_size": [32, 48]}), 3)


@pytest.mark.parametrize(
    "name", ["maxvit_rmlp_pico_rw_256", "tiny_vit_5m_224", "davit_tiny", "gcvit_xxtiny", "cait_xxs24_224"]
)
def test_an_attention_that_was_not_measured_offers_its_linear_layers_alone(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert {site.slot for site in all_sites(model)} == {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}
    with pytest.raises(ConfigError, match=r"no slot 'attn\.q'; .*slots: attn\.qkv, attn\.proj, mlp\.f"):
        find(model, ["attn.q"])


@pytest.mark.parametrize("name", ["vgg11", "levit_128s", "coatnet_pico_rw_224"])
def test_a_backbone_without_linear_layers_in_blocks_says_so_and_what_has_them(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ConfigError, match=r"has no slots: .* ViT, DeiT, .*; method=linear and method=full"):
        find(model, ["attn.q"])


TINY = runpy.run_path(str(Path(__file__).parent.parent / "conftest.py"))["TINY"]
ADAPTFORMER = {
    "_target_": "pear_cli.adapters.adaptformer.AdaptFormer",
    "lr": 0.01,
    "rank": 2,
    "scale": 1.0,
    "dropout": 0.1,
    "bias": True,
    "slots": ["mlp"],
}


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("vit_medium_patch16_reg4_gap_256", {}),
        ("vit_base_patch16_clip_224", ADAPTFORMER),
        ("vit_giant_patch14_reg4_dinov2", {}),
        ("vit_base_patch16_rpn_224", ADAPTFORMER),
        ("vit_small_patch16_18x2_224", ADAPTFORMER),
        ("vit_base_patch16_xp_224", {}),
        ("naflexvit_base_patch16_gap", {}),
        ("deit_tiny_distilled_patch16_224", {}),
        ("beit_base_patch16_224", {}),
        ("eva02_base_patch14_224", {}),
        ("eva02_tiny_patch14_224", ADAPTFORMER),
        ("swin_tiny_patch4_window7_224", ADAPTFORMER),
        ("swinv2_tiny_window8_256", {}),
    ],
)
def test_a_whole_run_trains_shares_and_adapts(name, method, store, tmp_path):
    weights = tmp_path / "frozen.safetensors"
    safetensors.torch.save_file(_built(name).state_dict(), weights)
    tiny = copy.deepcopy(TINY)
    tiny["backbone"] |= {"name": name, "args": SMALL[name], "weights": str(weights)}
    tiny["method"] |= method
    tiny["optim"] |= {"epochs": 1, "adapt_epochs": 1}
    outcomes = perform_all(read(OmegaConf.create(tiny)), store)
    checkpoint, adapt, evaluation = (outcome.artifact for outcome in outcomes[3:])
    _, description = load_model(adapt)
    owners = description.owners
    assert any(owner not in (site, None) for site, owner in owners.items())
    before, after = (artifact.tensors("adapters") for artifact in (checkpoint, adapt))
    assert before.keys() == after.keys()
    assert not [key for key in before if torch.equal(before[key], after[key])]
    assert evaluation.manifest["metrics"]["images"] == 797


TAG = "vit_tiny_patch16_224.augreg_in21k"
SWIN_TAG = "swin_tiny_patch4_window7_224.ms_in1k"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Put tensors where the hub's client keeps the file of a tag; the hub itself is out of reach."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(pretrained, "_within_reach", lambda source: False)

    def keep(tag, tensors):
        repository = tmp_path / f"models--timm--{tag}"
        file = repository / "snapshots" / ("0" * 40) / "model.safetensors"
        for folder in (file.parent, repository / "refs"):
            folder.mkdir(parents=True)
        (repository / "refs" / "main").write_text("0" * 40)
        safetensors.torch.save_file(tensors, file)
        return file

    return keep


def test_pretrained_weights_come_from_the_cache_and_are_resampled_to_the_size(hub):
    larger = backbones.build(config(TAG, args=VIT | {"img_size": 64}), 5).state_dict()
    file = hub(TAG, larger)
    wanted = config(TAG, args=VIT, pretrained=True)
    assert identity.weights_hash(wanted) == hashlib.sha256(file.read_bytes()).hexdigest()
    model = backbones.build(wanted, 3)
    assert model.pos_embed.shape == (1, 5, 24)
    assert torch.equal(model.blocks[1].attn.qkv.weight, larger["blocks.1.attn.qkv.weight"])
    assert model.head.weight.shape == (3, 24)
    assert model.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)


def test_pretrained_swin_weights_with_the_buffers_of_older_timm_load(hub):
    tensors = backbones.build(config(SWIN_TAG, args=SWIN), 5).state_dict()
    buffers = ("layers.1.blocks.1.attn_mask", "layers.1.blocks.1.attn.relative_position_index")
    hub(SWIN_TAG, tensors | {name: torch.zeros(1) for name in buffers})
    model = backbones.build(config(SWIN_TAG, args=SWIN, pretrained=True), 3)
    attn = "layers.0.blocks.0.attn.qkv.weight"
    assert torch.equal(model.get_parameter(attn), tensors[attn])


def test_pretrained_weights_that_lack_a_tensor_are_refused(hub):
    tensors = backbones.build(config(TAG, args=VIT), 5).state_dict()
    hub(TAG, {name: tensor for name, tensor in tensors.items() if not name.startswith("blocks.1.mlp")})
    with pytest.raises(ConfigError, match=r"does not fit .* it lacks blocks\.1\.mlp\.fc1\.weight, "):
        backbones.build(config(TAG, args=VIT, pretrained=True), 3)


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        (TAG, rf"out of reach\n.*: hf download timm/{TAG} model\.safetensors --local-dir"),
        ("vit_tiny_patch16_224.augreg_in22k", f'no pretrained weights .*did you mean "{TAG}"'),
        ("gcvit_tiny.in1k", r"out of reach\n.*: curl -LO https://.*/gcvit_tiny_224_nvidia-ac783954\.pth"),
    ],
)
def test_pretrained_weights_that_are_not_there_are_an_error_with_a_remedy(hub, tag, message):
    with pytest.raises(ConfigError, match=message):
        identity.weights_hash(config(tag, pretrained=True))


def test_the_original_weights_of_a_vit_load(tmp_path):
    model = _built("vit_tiny_patch16_224").eval()
    jax = {
        "cls": model.cls_token,
        "embedding/kernel": model.patch_embed.proj.weight.permute(2, 3, 1, 0),
        "embedding/bias": model.patch_embed.proj.bias,
        "Transformer/posembed_input/pos_embedding": model.pos_embed,
        "Transformer/encoder_norm/scale": model.norm.weight,
        "Transformer/encoder_norm/bias": model.norm.bias,
    }
    for i, block in enumerate(model.blocks):
        q, k, v = block.attn.qkv.weight.view(3, 2, 12, 24).permute(0, 3, 1, 2)  # 3, H, Dh, C -> 3, C, H, Dh
        biases = block.attn.qkv.bias.view(3, 2, 12)
        layers = {
            "LayerNorm_0": {"scale": block.norm1.weight, "bias": block.norm1.bias},
            "LayerNorm_2": {"scale": block.norm2.weight, "bias": block.norm2.bias},
            "MlpBlock_3/Dense_0": {"kernel": block.mlp.fc1.weight.T, "bias": block.mlp.fc1.bias},
            "MlpBlock_3/Dense_1": {"kernel": block.mlp.fc2.weight.T, "bias": block.mlp.fc2.bias},
        }
        out = {"kernel": block.attn.proj.weight.T.reshape(2, 12, 24), "bias": block.attn.proj.bias}
        parts = {"query": q, "key": k, "value": v}
        layers |= {
            f"MultiHeadDotProductAttention_1/{n}": {"kernel": w, "bias": b}
            for (n, w), b in zip(parts.items(), biases, strict=True)
        }
        layers["MultiHeadDotProductAttention_1/out"] = out
        jax |= {
            f"Transformer/encoderblock_{i}/{layer}/{name}": tensor
            for layer, tensors in layers.items()
            for name, tensor in tensors.items()
        }
    file = tmp_path / "ViT-Ti_16.npz"
    np.savez(file, **{name: tensor.detach().numpy() for name, tensor in jax.items()})
    loaded = backbones.build(config("vit_tiny_patch16_224", weights=str(file), seed=1), 3)
    x = images("vit_tiny_patch16_224")
    assert torch.equal(loaded.forward_features(x), model.forward_features(x))
