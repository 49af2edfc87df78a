"""Stores of made-up experiments: manifests as the stages write them, without a model."""

import hashlib
import json

import pytest

from pear_cli.store.store import Store

OPTIM = {"lr": 0.01, "batch_size": 32}
COSTS = {"trainable_params": 26_112, "stored_params": 52_224, "stored_bytes": 104_448}


class Faker:
    """Writes whole experiments into a store."""

    def __init__(self, root):
        self.store = Store(root)
        self.count = 0

    def publish(
        self, stage, config, inputs=None, metrics=None, accounting=None, files=None, weights="a" * 64
    ):
        self.count += 1
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
                environment={"torch": "2", "weights": weights, "data": {"train800val200": "d" * 64}},
            )

    def experiment(
        self,
        dataset="digits",
        seed=0,
        ratio=0.5,
        rule="ranked",
        kind="frozen",
        accuracy=0.9,
        select="last",
        **given,
    ):
        """All six artifacts, by step; `dense_only` stops before scoring."""
        weights = given.get("weights", "a" * 64)
        common = {"seed": seed, "select": select, "precision": "float32"}
        norm = given.get("normalization", "backbone")
        task = {"task": given["task"]} if "task" in given else {}
        train = self.publish(
            "train",
            {
                "phase": "dense",
                "backbone": {"name": "vit_tiny", "drop_path": 0.0, "args": {"depth": 2}},
                "dataset": {
                    "_target_": "pear_cli.data.bundled.Bundled",
                    "name": dataset,
                    "train_split": "train800val200",
                    "split_seed": 0,
                    "normalization": norm,
                    **task,
                },
                "method": {
                    "_target_": "pear_cli.adapters.lora.LoRA",
                    "rank": 8,
                    "slots": ["attn.q", "attn.v"],
                },
                "optim": {"epochs": 4, **OPTIM},
                **common,
            },
            metrics={"epochs": 4, "selected_epoch": 4, "train_accuracy": 0.99},
            accounting=COSTS,
            files={
                "history": [{"train_loss": 1 / e, "train_accuracy": 0.9, "lr": 0.01} for e in range(1, 31)]
            },
            weights=weights,
        )
        test = {"phase": "dense", "test_split": "test", "precision": "float32"}
        test |= {"metric": given.get("metric", "accuracy")}
        measured = {"accuracy": accuracy, "mean_per_class_accuracy": accuracy - 0.1}
        measured |= {"loss": 0.3, "images": 797, "select": select}
        if given.get("dense_only"):
            evaluated = self.publish("eval", test, {"train": train}, measured, COSTS, weights=weights)
            return {"train": train, "eval": evaluated}
        score = self.publish(
            "score",
            {
                "score": {"_target_": "pear_cli.config.settings.Score", "criterion": "taylor"},
                "precision": "float32",
            },
            {"train": train},
            files={"importance": importance()},
        )
        share = self.publish(
            "prune-share",
            {"prune": {"ratio": ratio, "by": "count"}, "share": {"rule": rule}},
            {"score": score},
            {"units": 4, "pruned": 2, "notes": ["blocks.1.attn.v stays"]},
            files={"share_map": share_map()},
        )
        inputs = {"train": train, "score": score, "prune-share": share}
        checkpoint = self.publish(
            "checkpoint", {"knowledge": {"kind": kind, "rank": 1}}, inputs, accounting=COSTS
        )
        model = {"owners": share_map()["owners"], "knowledge": None if kind == "none" else {"kind": kind}}
        adapt = self.publish(
            "train",
            {"phase": "shared", "optim": {"adapt_epochs": 6, **OPTIM}, **common},
            {"checkpoint": checkpoint},
            accounting=COSTS,
            files={"model": model, "history": []},
        )
        evaluated = self.publish(
            "eval", {**test, "phase": "shared"}, {"adapt": adapt}, measured, COSTS, weights=weights
        )
        names = ("train", "score", "prune-share", "checkpoint", "adapt", "eval")
        return dict(zip(names, (train, score, share, checkpoint, adapt, evaluated), strict=True))


def importance():
    sites = [(block, slot) for block in (0, 1) for slot in ("attn.q", "attn.v")]
    units = [
        {
            "name": f"blocks.{block}.{slot}",
            "block": block,
            "slot": slot,
            "group": [slot, 16, 16],
            "parameters": 64,
            "score": score,
        }
        for (block, slot), score in zip(sites, (0.1, 0.3, 0.5, 0.2), strict=True)
    ]
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
    import io

    from rich.console import Console

    def run(print_it, *args, width=None):
        file = io.StringIO()
        terminal = {"width": width, "force_terminal": True, "no_color": True} if width else {}
        print_it(*args, Console(file=file, highlight=False, markup=False, **terminal))
        return [json.loads(f'"{_bare(line)}"') for line in file.getvalue().splitlines()]

    return run


def _bare(line):
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", line).replace("\\", "\\\\").replace('"', '\\"')
