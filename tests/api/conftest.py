"""A small timm model, images and labels, to adapt in a loop of one's own."""

import copy

import pytest
import timm
import torch
from torch import nn

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 4}


@pytest.fixture(scope="session")
def backbone():
    """Makes the same small ViT again and again, with a new classifier."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **ARGS).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.1)

    def make(classes: int = 3) -> nn.Module:
        made = copy.deepcopy(model)
        torch.manual_seed(classes)
        made.reset_classifier(classes)
        return made

    return make


@pytest.fixture
def batch():
    """Images (12, 3, 32, 32) and labels."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(12, 3, 32, 32, generator=generator), torch.arange(12) % 3


def train(model, adapted, batch, steps=4, optimizer=None, lr=1e-2):
    """A plain loop."""
    x, y = batch
    optimizer = optimizer or torch.optim.AdamW(adapted.parameters(), lr=lr)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()
    return optimizer
