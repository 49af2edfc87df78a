"""Frozen weights: what is a file of them, and what the messages say."""

import dataclasses
import hashlib
import importlib.metadata
import os
import pickle
import socket

import huggingface_hub
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from pear_cli.backbone import backbones, identity, pretrained
from pear_cli.backbone.sites import all_sites
from pear_cli.config.node import node
from pear_cli.config.presets import config_dir
from pear_cli.config.settings import Backbone
from pear_cli.errors import ConfigError
from pear_cli.store import cache

TINY = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


def tiny(weights=None, **changes):
    settings = {"name": "vit_tiny_patch16_224", "pretrained": False, "args": TINY, **changes}
    settings = {"seed": 0, "drop_path": 0.0, "mean": None, "std": None, **settings}
    return Backbone(weights=weights and str(weights), **settings)


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_safetensors_and_torch_files_load(tmp_path, ending):
    weights = backbones.build(tiny(), 2).state_dict()
    weights = {name: tensor + 1 for name, tensor in weights.items() if not name.startswith("head")}
    path = tmp_path / f"weights.{ending}"
    (save_file if ending == "safetensors" else torch.save)(weights, path)
    assert torch.equal(backbones.build(tiny(path), 2).norm.weight, weights["norm.weight"])


@pytest.mark.parametrize("nest", ["model", "state_dict"])
def test_a_state_dict_may_lie_below_a_name_beside_what_a_training_left(tmp_path, nest):
    weights = {
        f"module.{name}": tensor + 1 for name, tensor in backbones.build(tiny(), 5).state_dict().items()
    }
    path = tmp_path / "weights.pth"
    torch.save({nest: weights, "epoch": 3, "optimizer": {"lr": 0.1}}, path)
    model = backbones.build(tiny(path), 2)
    assert torch.equal(model.norm.weight, weights["module.norm.weight"])
    assert not model.head.weight.any()  # the classifier is ours


def test_dinov2_weights_load_by_the_names_of_their_authors(tmp_path):
    config = {"name": "vit_small_patch14_dinov2", "args": TINY | {"img_size": 28, "patch_size": 14}}
    larger = backbones.build(tiny(**{**config, "args": config["args"] | {"img_size": 42}}), 2)
    weights = {name: tensor for name, tensor in larger.state_dict().items() if "head" not in name}
    path = tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save(weights | {"mask_token": torch.zeros(1, 16)}, path)
    model = backbones.build(tiny(path, **config), 2)
    assert model.pos_embed.shape == (1, 5, 16)  # resampled from 3×3 patches to 2×2
    assert torch.equal(model.blocks[0].ls1.gamma, weights["blocks.0.ls1.gamma"])


def test_deit_3_weights_load_by_the_names_of_their_authors(tmp_path):
    weights = backbones.build(tiny(name="deit3_small_patch16_224"), 2).state_dict()
    theirs = {
        name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): weights[name]
        for name in weights
    }
    path = tmp_path / "deit_3_small.pth"
    torch.save({"model": theirs}, path)
    assert theirs.keys() != weights.keys()
    backbones.build(tiny(path, name="deit3_small_patch16_224"), 2)


CLIP = {"norm_pre": "ln_pre", "blocks": "transformer.resblocks", "norm1": "ln_1", "norm2": "ln_2"}
CLIP |= {"attn.qkv.": "attn.in_proj_", "attn.proj": "attn.out_proj", "fc1": "c_fc", "fc2": "c_proj"}
CLIP |= {"norm.": "ln_post.", "patch_embed.proj": "conv1"}


def test_clip_weights_load_by_the_names_of_their_authors(tmp_path):
    config = {"name": "vit_base_patch16_clip_quickgelu_224"}
    plain = backbones.build(tiny(seed=1, **config), 2)
    weights = {name: t for name, t in plain.state_dict().items() if "head" not in name}
    theirs = {"class_embedding": weights.pop("cls_token")[0, 0], "proj": torch.zeros(16, 8)}
    theirs |= {"positional_embedding": weights.pop("pos_embed")[0]}
    for name, tensor in weights.items():
        for ours, other in CLIP.items():
            name = name.replace(ours, other)
        theirs[name] = tensor
    path = tmp_path / "clip.pt"
    torch.save({f"visual.{n}": t for n, t in theirs.items()} | {"logit_scale": torch.ones(1)}, path)
    model = backbones.build(tiny(path, **config), 2)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.forward_features(x), plain.forward_features(x))


class Bomb:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickled_object_is_refused_and_not_executed(tmp_path, save):
    path = tmp_path / "weights.pth"
    save({"norm.weight": torch.ones(16), "more": Bomb(str(tmp_path / "exploded"))}, path)
    with pytest.raises(ConfigError, match="a pickled model is refused"):
        backbones.build(tiny(path), 2)
    assert not (tmp_path / "exploded").exists()


def test_an_archive_of_jax_with_other_blocks_or_of_something_else_is_refused(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **{f"Transformer/encoderblock_{i}/LayerNorm_0/bias": np.zeros(16) for i in range(3)})
    with pytest.raises(ConfigError, match="does not fit VisionTransformer: it has 3 blocks, not 1"):
        backbones.build(tiny(path), 2)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(ConfigError, match="does not load into this backbone"):
        backbones.build(tiny(path), 2)
    np.savez(path, a=np.array([Bomb(str(tmp_path / "exploded"))]))
    with pytest.raises(ConfigError):
        backbones.build(tiny(path), 2)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["notes.txt", "weights.safetensors", "weights.pt", "weights.npz"])
def test_a_file_that_has_no_weights_is_told_so(tmp_path, name):
    path = tmp_path / name
    path.write_text("root:x:0:0:root:/root:/bin/bash\n")
    with pytest.raises(ConfigError, match=f"{name} is not a file of weights: safetensors, "):
        backbones.build(tiny(path), 2)


def test_weights_of_another_model_are_told_by_what_does_not_fit(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"norm.weight": torch.ones(3)}, path)
    with pytest.raises(ConfigError, match=r"does not load .*: size mismatch for norm\.weight"):
        backbones.build(tiny(path), 2)
    save_file({"norm.weight": torch.ones(16)}, path)
    with pytest.raises(ConfigError, match="does not fit VisionTransformer: it lacks"):
        backbones.build(tiny(path), 2)


def test_channel_statistics_are_two_threes_of_numbers_and_no_deviation_is_0():
    half = (0.5, 0.5, 0.5)
    assert backbones.build(tiny(mean=half, std=half), 2).pretrained_cfg["std"] == half
    with pytest.raises(ConfigError, match=r"backbone\.std = .* is out of range: 1e-06 to 1000"):
        tiny(mean=half, std=(0.5, 0.0, 0.5))
    with pytest.raises(ConfigError, match=r"backbone\.mean = \(0\.5,\) is out of range: three numbers"):
        tiny(mean=(0.5,), std=half)
    with pytest.raises(ConfigError, match="go together"):
        tiny(mean=half)


def test_the_bundled_weights_are_of_one_architecture_and_another_name_says_how():
    config = Backbone("vit_base_patch16_224", False, "pear_mini", 0, 0.0, None, None, {})
    with pytest.raises(ConfigError, match=r"use backbone=timm backbone\.name=vit_base_patch16_224"):
        identity.weights_hash(config)


def test_a_network_that_takes_images_of_any_size_gets_those_of_img_size():
    thin = {"channels": [4, 6, 8, 10], "img_size": 32}
    config = Backbone("resnet18", False, None, 0, 0.0, None, None, thin)
    model = backbones.build(config, 2)
    assert model.pretrained_cfg["input_size"] == (3, 32, 32)
    assert backbones.arguments(config, model) == {"channels": [4, 6, 8, 10]}
    assert backbones.arguments(tiny(), backbones.build(tiny(), 2)) == TINY
    with pytest.raises(ConfigError, match="unexpected keyword argument 'depht'"):
        backbones.build(Backbone("resnet18", False, None, 0, 0.0, None, None, thin | {"depht": 3}), 2)


def test_weights_are_read_for_their_hash_once_and_again_when_they_change(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"weights")
    os.utime(path, (1, 1))
    monkeypatch.setattr(cache, "SETTLED_NS", 0)
    assert identity.weights_hash(tiny(path)) == hashlib.sha256(b"weights").hexdigest()
    path.write_bytes(b"altered")
    os.utime(path, (1, 1))
    assert identity.weights_hash(tiny(path)) == hashlib.sha256(b"altered").hexdigest()
    path.write_bytes(b"weights")
    assert identity.weights_hash(tiny(path)) == hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setattr(cache, "sha256", lambda path: pytest.fail("it is read again"))
    assert identity.weights_hash(tiny(path)) == hashlib.sha256(b"weights").hexdigest()


def test_weights_have_a_name_for_the_reader():
    made_up, other = identity.weights_hash(tiny()), identity.weights_hash(tiny(seed=1))
    assert made_up != other
    assert (identity.weights_name(made_up), identity.weights_name("a" * 64)) == ("random", "a" * 64)
    assert identity.weights_name(identity.weights_hash(tiny("pear_mini"))) == "pear_mini"


TAG = "vit_tiny_patch16_224.augreg_in21k"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The cache of the hub's client, with a file of timm's repository put into it; no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(pretrained, "_within_reach", lambda source: False)

    def keep(name, content, sha256=None):
        repository = tmp_path / "hub" / f"models--timm--{TAG}"
        blob = repository / "blobs" / (sha256 or hashlib.sha256(content).hexdigest())
        link = repository / "snapshots" / ("0" * 40) / name
        for folder in (blob.parent, link.parent, repository / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text("0" * 40)
        blob.write_bytes(content)
        link.symlink_to(blob)
        return link

    return keep


def test_pretrained_weights_without_safetensors_are_found_too(hub):
    link = hub("pytorch_model.bin", b"weights")
    assert pretrained.file_of(TAG) == link
    assert pretrained.file_of(TAG) != hub("model.safetensors", b"the same, unpickled")


def test_weights_that_have_an_address_only_are_found_where_torch_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "gcvit_tiny_224_nvidia-ac783954.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert pretrained.file_of("gcvit_tiny.in1k") == path
    with pytest.raises(ConfigError, match=r"is damaged: its sha256 is 9a129038d9a0… instead of ac783954…"):
        identity.weights_hash(tiny(name="gcvit_tiny.in1k", pretrained=True))


def test_pretrained_weights_are_compared_with_the_hash_that_the_hub_states(hub):
    link = hub("model.safetensors", b"weights")
    assert identity.weights_hash(tiny(name=TAG, pretrained=True)) == link.resolve().name
    link.resolve().write_bytes(b"weight")
    with pytest.raises(ConfigError, match=rf"is damaged: .*\nremove .*{link.resolve().name} and run again"):
        identity.weights_hash(tiny(name=TAG, pretrained=True))


@pytest.mark.parametrize("there", ["model.safetensors", "pytorch_model.bin"])
def test_a_download_says_so_and_takes_what_the_repository_has(hub, monkeypatch, capfd, there):
    def download(repository, file, revision):
        if file != there:
            raise huggingface_hub.errors.EntryNotFoundError(file)
        return str(hub(file, b"weights"))

    monkeypatch.setattr(pretrained, "_within_reach", lambda source: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert pretrained.file_of(TAG).name == there
    assert f"downloading the weights of {TAG} from timm/{TAG}" in capfd.readouterr().err


def test_a_download_that_fails_is_an_error_with_the_reason_and_the_remedy(hub, monkeypatch):
    def download(repository, file, revision):
        raise OSError("no space left on device\nat all")

    monkeypatch.setattr(pretrained, "_within_reach", lambda source: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    said = r"downloaded: no space left on device\n.*: hf download .*FILE; .*: backbone\.pretrained=false$"
    with pytest.raises(ConfigError, match=said):
        pretrained.file_of(TAG)


def test_without_a_network_the_hub_is_out_of_reach_at_once(monkeypatch):
    source = pretrained._source(TAG)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert not pretrained._within_reach(source)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        assert pretrained._within_reach(source)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        assert not pretrained._within_reach(source)
        assert "HF_HUB_OFFLINE is set" in pretrained._out_of_reach(source)


SHRUNK = {"swin": {"depths": [1] * 4}, "convnext": {"depths": [1] * 4}, "resnet": {"layers": [1] * 4}}
OTHERS = ("timm", "pear_mini")  # any model; and the bundled one, which many tests build
PRESETS = sorted({path.stem for path in (config_dir() / "backbone").glob("*.yaml")} - {*OTHERS})


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_model_of_timm_with_published_weights(preset):
    config = node(OmegaConf.load(config_dir() / "backbone" / f"{preset}.yaml"), Backbone, "backbone")
    assert config.pretrained
    assert pretrained._source(config.name).hub
    shrink = next((args for kind, args in SHRUNK.items() if preset.startswith(kind)), {"depth": 1})
    config = dataclasses.replace(config, pretrained=False, args=config.args | shrink)
    model = backbones.build(config, 3)
    size = config.args.get("img_size", 224)
    assert model(torch.zeros(1, 3, size, size)).shape == (1, 3)
    assert model.pretrained_cfg["input_size"] == (3, size, size)
    assert all_sites(model)


def test_where_weights_are_is_asked_of_timm_once_a_version(monkeypatch, tmp_path):
    monkeypatch.setenv("PEAR_CACHE", str(tmp_path))
    source = pretrained._source(TAG)
    assert (source.hub, source.files) == (f"timm/{TAG}", ("model.safetensors", "pytorch_model.bin"))
    monkeypatch.setattr(pretrained, "_ask_timm", lambda name: "asked again")
    assert pretrained._source(TAG) == source
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9")
    with pytest.raises(TypeError):  # what was asked again is no source
        pretrained._source(TAG)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    from safetensors.torch import save_file

    tensors = backbones.build(tiny(), 2).state_dict()
    tensors["blocks.0.norm1.weight"][0] = float("nan")
    path = tmp_path / "weights.safetensors"
    save_file({name: t for name, t in tensors.items() if not name.startswith("head.")}, path)
    with pytest.raises(ConfigError, match=r"is damaged: blocks\.0\.norm1\.weight has values that are not"):
        backbones.build(tiny(path), 2)


def test_torch_files_of_other_pickle_protocols_load_or_are_refused_without_a_remark(tmp_path, recwarn):
    weights = {n: t for n, t in backbones.build(tiny(), 2).state_dict().items() if "head" not in n}
    for protocol in (2, 3, 4, 5):
        torch.save(weights, tmp_path / f"{protocol}.pth", pickle_protocol=protocol)
    for protocol in (2, 3):
        backbones.build(tiny(tmp_path / f"{protocol}.pth"), 2)
    for protocol in (4, 5):
        with pytest.raises(ConfigError, match="is of a pickle protocol that torch reads only by running"):
            backbones.build(tiny(tmp_path / f"{protocol}.pth"), 2)
    assert not recwarn.list


@pytest.mark.parametrize("nest", ["", "model_state_dict", "teacher", "model", "student"])
@pytest.mark.parametrize(
    "prefix",
    ["model.", "teacher.backbone.", "module.model.", "_orig_mod.", "module.encoder_q.", "net.trunk."],
)
def test_groups_and_prefixes_around_weights_are_taken_off_and_said(tmp_path, capfd, nest, prefix):
    own = {name: t + 1 for name, t in backbones.build(tiny(), 2).state_dict().items() if "head" not in name}
    weights = {prefix + name: tensor for name, tensor in own.items()}
    if prefix.startswith("teacher"):
        weights |= {f"student.{name}": tensor - 1 for name, tensor in own.items()}
    torch.save({nest: weights, "epoch": 3} if nest else weights, tmp_path / "weights.pth")
    model = backbones.build(tiny(tmp_path / "weights.pth"), 2)
    assert torch.equal(model.norm.weight, own["norm.weight"])
    said = " ".join(capfd.readouterr().err.split())
    assert not nest or nest in ("model", "model_state_dict") or f"the weights are those of {nest}" in said


def test_weights_that_stand_in_a_file_twice_under_unknown_names_are_refused(tmp_path):
    own = {name: t for name, t in backbones.build(tiny(), 2).state_dict().items() if "head" not in name}
    weights = {f"{side}.{name}": tensor for side in ("left", "right") for name, tensor in own.items()}
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"has weights below left\. and below right\.; save one"):
        backbones.build(tiny(tmp_path / "weights.pth"), 2)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"args": TINY | {"in_chans": 1}}, "backbone.args.in_chans = 1 is out of range: 3"),
        ({"args": TINY | {"img_size": 4}}, "backbone.args.img_size = 4 is too small .*its patch, 8 pixels"),
        ({"name": "convnext_atto", "args": {"img_size": 8}}, "backbone.args.img_size = 8 is too small"),
    ],
)
def test_images_that_a_backbone_cannot_take_are_told_by_their_setting(changes, named):
    with pytest.raises(ConfigError, match=named):
        backbones.build(tiny(**changes), 2)


def test_a_pipe_or_a_device_is_not_a_file_of_weights(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(ConfigError, match="is a pipe, socket or device"):
            identity.weights_hash(tiny(path))
