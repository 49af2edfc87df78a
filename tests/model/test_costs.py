"""What a model costs, against closed forms."""

import pytest
import timm
import torch

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.lora import LoRA
from pear_cli.adapters.method import Method
from pear_cli.adapters.neat import NEAT
from pear_cli.model import costs
from pear_cli.training.devices import Device

TOKENS, WIDTH, DEPTH, RANK = 5, 16, 2, 3
SLOTS = ("attn.q", "attn.v")
LORA = LoRA(lr=1, rank=RANK, scale=1, dropout=0, slots=SLOTS)
DEEP = NEAT(lr=1, rank=RANK, scale=1, dropout=0, slots=SLOTS, depth=2)


def adapted(method: Method | None) -> torch.nn.Module:
    size = {"img_size": 16, "patch_size": 8, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **size).requires_grad_(False)
    Adaptation(model, method or LoRA(lr=1, rank=1, scale=1, dropout=0, slots=("attn.proj",))).attach(model)
    return model


@pytest.mark.parametrize("method", [LORA, DEEP])
def test_adapters_cost_what_their_formula_says(method: Method) -> None:
    reference = costs.macs_per_image(adapted(None), 16) - DEPTH * TOKENS * 2 * WIDTH
    ours = costs.macs_per_image(adapted(method), 16)
    assert ours - reference == DEPTH * len(SLOTS) * TOKENS * 2 * WIDTH * RANK


def test_counting_leaves_no_hook_behind() -> None:
    model = adapted(LORA)
    costs.macs_per_image(model, 16)
    assert isinstance(model.adaptation, Adaptation)
    assert not any(position._forward_pre_hooks for position in model.adaptation.each())


def test_a_latency_has_the_load_that_it_was_measured_under(monkeypatch) -> None:
    monkeypatch.setattr(costs.os, "getloadavg", lambda: (6.0, 0.0, 0.0))
    monkeypatch.setattr(costs, "cores", lambda: 2)
    found = costs.latency(torch.nn.Flatten(), 4, Device(torch.device("cpu"), torch.float32))
    assert found["latency_load"] == 3.0
    assert 0 < found["latency_p50_ms"] <= found["latency_p95_ms"]
