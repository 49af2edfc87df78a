"""The hash of frozen tensors: of what no task changes, whatever is attached."""

import copy

import timm
import torch
from torch import nn

import pear_cli
from pear_cli.adapters.bitfit import BitFit
from pear_cli.adapters.linear import LinearProbe
from pear_cli.model.frozen import frozen_hash

LINEAR = LinearProbe(lr=1.0, slots=())
ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def model():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, **ARGS)


def test_adapters_classes_and_modes_do_not_change_it():
    made = model()
    expected = frozen_hash(made, LINEAR)
    made.reset_classifier(7)
    assert frozen_hash(made.train(), LINEAR) == expected
    pear_cli.attach(made, "lora", rank=2)
    assert frozen_hash(made, pear_cli.adapted(made).method) == expected


def test_each_frozen_value_name_shape_and_dtype_counts():
    expected = frozen_hash(model(), LINEAR)

    def flip(made):
        made.blocks[1].mlp.fc2.bias.data[3] += 1e-7

    def rename(made):
        made.blocks[0].extra = made.blocks[0].norm1
        del made.blocks[0].norm1

    def reshape(made):
        made.cls_token = nn.Parameter(made.cls_token.data.flatten())

    for change in (flip, rename, reshape, lambda made: made.double()):
        made = copy.deepcopy(model())
        change(made)
        assert frozen_hash(made, LINEAR) != expected


def test_what_a_method_trains_is_not_frozen():
    made, method = model(), BitFit(lr=1.0, slots=())
    expected = frozen_hash(made, method)
    made.blocks[1].mlp.fc2.bias.data += 1
    assert frozen_hash(made, method) == expected
    made.blocks[1].mlp.fc2.weight.data += 1
    assert frozen_hash(made, method) != expected
