"""Stores of made-up experiments: manifests as the stages write them, without a model."""

import hashlib
import io
import re

import pytest
from rich.console import Console

from pear_cli.store.store import Store

OPTIM = {"lr": 0.01, "batch_size": 32}
COSTS = {"trainable_params": 26_112, "stored_params": 52_224, "stored_bytes": 104_448}


METHOD = {"_target_": "pear_cli.adapters.lora.LoRA", "rank": 8, "slots": ["attn.q", "attn.v"]}
BACKBONE = {"name": "vit_tiny", "drop_path": 0.0, "args": {"depth": 2}}
DATASET = {"_target_": "pear_cli.data.bundled.Bundled", "train_split": "train800val200", "split_seed": 0}
HISTORY = [{"train_loss": 1 / epoch, "train_accuracy": 0.9, "lr": 0.01} for epoch in range(1, 31)]


class Faker:
    """Writes whole experiments into a store."""

    def __init__(self, root):
        self.store = Store(root)
        self.count = 0

    def publish(
        self, stage, config, inputs=None, metrics=None, accounting=None, files=None, weights="a" * 64,
        environment=None,
    ):  # fmt: skip
        self.count += 1
        known = {"torch": "2", "weights": weights, "data": {"train800val200": "d" * 64}}
        key = hashlib.sha256(str(self.count).encode()).hexdigest()[:32]
        with self.store.draft(stage, key) as draft:
            for name, content in (files or {}).items():
                draft.save_json(name, content)
            return draft.publish(
                inputs={name: artifact.key for name, artifact in (inputs or {}).items()},
                config=config,
                metrics=metrics or {},
                accounting=accounting or {},
                seconds=2.0,
                environment=known | (environment or {}),
            )

    def experiment(
        self, dataset="digits", seed=0, ratio=0.5, rule="ranked", kind="frozen", accuracy=0.9, select="last",
        *, weights="a" * 64, normalization="backbone", task=None, metric="accuracy", dense_only=False,
    ):  # fmt: skip
        """All six artifacts, by step; `dense_only` stops before scoring."""
        common = {"seed": seed, "select": select, "precision": "float32"}
        data = DATASET | {"name": dataset, "normalization": normalization} | ({"task": task} if task else {})
        dense = {"phase": "dense", "backbone": BACKBONE, "dataset": data, "method": METHOD}
        trained = {"epochs": 4, "selected_epoch": 4, "train_accuracy": 0.99}
        optim = {"optim": {"epochs": 4, **OPTIM}}
        train = self.publish(
            "train", dense | optim | common, None, trained, COSTS, {"history": HISTORY}, weights
        )
        test = {"phase": "dense", "test_split": "test", "precision": "float32", "metric": metric}
        measured = {"accuracy": accuracy, "mean_per_class_accuracy": accuracy - 0.1}
        measured |= {"loss": 0.3, "images": 797, "select": select}
        if dense_only:
            evaluated = self.publish("eval", test, {"train": train}, measured, COSTS, weights=weights)
            return {"train": train, "eval": evaluated}
        scored = {"_target_": "pear_cli.config.settings.Score", "criterion": "taylor"}
        score = self.publish(
            "score", {"score": scored, "precision": "float32"}, {"train": train},
            files={"importance": importance()},
        )  # fmt: skip
        share = self.publish(
            "prune-share", {"prune": {"ratio": ratio, "by": "count"}, "share": {"rule": rule}},
            {"score": score}, {"units": 4, "pruned": 2, "notes": ["blocks.1.attn.v stays"]},
            files={"share_map": share_map()},
        )  # fmt: skip
        inputs = {"train": train, "score": score, "prune-share": share}
        knowledge = {"knowledge": {"kind": kind, "rank": 1}}
        checkpoint = self.publish("checkpoint", knowledge, inputs, accounting=COSTS)
        model = {"owners": share_map()["owners"], "knowledge": None if kind == "none" else {"kind": kind}}
        shared = {"phase": "shared", "optim": {"adapt_epochs": 6, **OPTIM}, **common}
        files = {"model": model, "history": []}
        adapt = self.publish("train", shared, {"checkpoint": checkpoint}, None, COSTS, files)
        test |= {"phase": "shared"}
        evaluated = self.publish("eval", test, {"adapt": adapt}, measured, COSTS, weights=weights)
        return {**inputs, "checkpoint": checkpoint, "adapt": adapt, "eval": evaluated}


def importance():
    scores = {(0, "attn.q"): 0.1, (0, "attn.v"): 0.3, (1, "attn.q"): 0.5, (1, "attn.v"): 0.2}
    units = [
        {"name": f"blocks.{block}.{slot}", "block": block, "slot": slot, "group": [slot, 16, 16],
         "parameters": 64, "score": score}
        for (block, slot), score in scores.items()
    ]  # fmt: skip
    return {"criterion": "taylor", "images": 100, "kendall_tau": None, "units": units, "similarity": {}}


def share_map():
    owners = {
        "blocks.0.attn.q": "blocks.1.attn.q",
        "blocks.0.attn.v": "blocks.0.attn.v",
        "blocks.1.attn.q": "blocks.1.attn.q",
        "blocks.1.attn.v": None,
    }
    groups = {site: [site.split(".", 2)[2], 16, 16] for site in owners}
    return {"owners": owners, "groups": groups, "rule": "ranked", "notes": []}


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    """What is made for a terminal depends on its width alone."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.fixture
def fake(tmp_path):
    return Faker(tmp_path / "store")


@pytest.fixture
def lines_of():
    """What a command prints, line by line; `width` makes it a terminal of that width."""

    def run(print_it, *args, width=None, **options):
        file = io.StringIO()
        terminal = {"width": width, "force_terminal": True, "no_color": True} if width else {}
        print_it(*args, Console(file=file, highlight=False, markup=False, **terminal), **options)
        return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).splitlines()

    return run
