"""A whole experiment that takes a second: digits on a two-block ViT with random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pear_cli.experiment.experiment import Experiment
from pear_cli.store.store import Store

TINY: dict[str, Any] = {
    "dataset": {"_target_": "pear_cli.data.bundled.Bundled", "name": "digits", "root": None},
    "backbone": {
        "name": "vit_tiny_patch16_224",
        "pretrained": False,
        "weights": None,
        "seed": 0,
        "drop_path": 0.0,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "args": {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2},
    },
    "method": {
        "_target_": "pear_cli.adapters.lora.LoRA",
        "lr": 0.01,
        "rank": 2,
        "scale": 1.0,
        "dropout": 0.1,
        "slots": ["attn.q", "attn.v"],
    },
    "score": {
        "unit": "adapter",
        "criterion": "taylor",
        "reduction": "mean_abs",
        "of": "gate",
        "view": "adapter",
        "batches": 4,
        "batch_size": 50,
    },
    "prune": {"ratio": 0.5, "by": "count", "scope": "global", "effect": "adapter", "steps": 1, "round_to": 1},
    "share": {"rule": "ranked"},
    "knowledge": {"kind": "frozen", "rank": 1, "beta": 1.0, "learn_beta": False},
    "optim": {
        "epochs": 2,
        "adapt_epochs": 2,
        "schedule": "per_phase",
        "prune_at": 0.5,
        "lr": 0.01,
        "start_lr": 1e-6,
        "final_lr": 0.0,
        "weight_decay": 0.01,
        "batch_size": 200,
        "accumulate": 1,
        "warmup": 0.1,
        "clip": 1.0,
        "label_smoothing": 0.0,
        "mixup": 0.0,
        "optimizer_state": "keep",
        "shared_grad": "sum",
    },
    "runtime": {
        "device": "cpu",
        "precision": "float32",
        "threads": 1,
        "workers": 0,
        "store": "unused",
        "processes": None,
        "tracker": "none",
    },
    "seed": 0,
    "select": "last",
    "phase": None,
}

Make = Callable[..., Experiment]


@pytest.fixture
def make() -> Make:
    """Build the tiny experiment with changes given as `node__key=value`."""

    def build(**changes: Any) -> Experiment:
        cfg = OmegaConf.create(TINY)
        for key, value in changes.items():
            OmegaConf.update(cfg, key.replace("__", "."), value, merge=False)
        return Experiment.from_config(cfg)

    return build


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
