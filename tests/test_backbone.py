"""Frozen weights: what is a file of them, and what the messages say."""

import pytest
import torch
from safetensors.torch import save_file

from pear_cli import backbone as backbones
from pear_cli.errors import ConfigError
from pear_cli.nodes import Backbone

TINY = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


def tiny(weights=None, **changes):
    settings = {"mean": None, "std": None, **changes}
    return Backbone("vit_tiny_patch16_224", False, weights and str(weights), 0, 0.0, args=TINY, **settings)


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_safetensors_and_torch_files_load(tmp_path, ending):
    weights = backbones.build(tiny(), 2).state_dict()
    weights = {name: tensor + 1 for name, tensor in weights.items() if not name.startswith("head")}
    path = tmp_path / f"weights.{ending}"
    (save_file if ending == "safetensors" else torch.save)(weights, path)
    assert torch.equal(backbones.build(tiny(path), 2).norm.weight, weights["norm.weight"])


@pytest.mark.parametrize("name", ["notes.txt", "weights.safetensors", "weights.pt"])
def test_a_file_that_has_no_weights_is_told_so(tmp_path, name):
    path = tmp_path / name
    path.write_text("root:x:0:0:root:/root:/bin/bash\n")
    with pytest.raises(ConfigError, match=f"{name} is not a safetensors or torch weights file"):
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
    with pytest.raises(ConfigError, match=r"backbone\.std = .* is out of range: three numbers above 0"):
        tiny(mean=half, std=(0.5, 0.0, 0.5))
    with pytest.raises(ConfigError, match=r"backbone\.mean = \(0\.5,\) is out of range: three numbers"):
        tiny(mean=(0.5,), std=half)
    with pytest.raises(ConfigError, match="go together"):
        tiny(mean=half)


def test_the_bundled_weights_are_of_one_architecture_and_another_name_says_how():
    config = Backbone("vit_base_patch16_224", False, "pear_mini", 0, 0.0, None, None, {})
    with pytest.raises(ConfigError, match=r"use backbone=timm backbone\.name=vit_base_patch16_224"):
        backbones.weights_hash(config)


def test_a_network_that_takes_images_of_any_size_gets_those_of_img_size():
    thin = {"channels": [4, 6, 8, 10], "img_size": 32}
    config = Backbone("resnet18", False, None, 0, 0.0, None, None, thin)
    model = backbones.build(config, 2)
    assert model.pretrained_cfg["input_size"] == (3, 32, 32)
    assert backbones.arguments(config, model) == {"channels": [4, 6, 8, 10]}
    assert backbones.arguments(tiny(), backbones.build(tiny(), 2)) == TINY
    with pytest.raises(ConfigError, match="unexpected keyword argument 'depht'"):
        backbones.build(Backbone("resnet18", False, None, 0, 0.0, None, None, thin | {"depht": 3}), 2)
