"""How much faster a network is without 75% of its mlp channels and heads, beside what its MACs promise.

    python scripts/bench/pruned.py [--backbone vit_tiny_patch16_224] [--ratio 0.75] [--round-to 1,16,32]

Random weights, importance at random, the same share of every kind of layer. Both networks are merged and take
turns; latencies are medians. No layer loses all its heads, so that of ViT-Ti's three a block, two go.
Cells go to docs/results/pruned.json; `python scripts/tables/render.py` puts them into the README.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch

from pear_cli.adapters.splora import SPLoRA
from pear_cli.backbone.channels import bare, groups
from pear_cli.backbone.widths import Group, Widths
from pear_cli.config.choices import Effect, Precision, PruneBy, Scope, Tracker, Unit
from pear_cli.config.settings import Backbone, Prune, Runtime
from pear_cli.model import costs, models
from pear_cli.model import merge as merging
from pear_cli.pruning.choose import choose
from pear_cli.pruning.mask import Mask
from pear_cli.scoring.importance import Importance
from pear_cli.scoring.layers import channels
from pear_cli.training import engine

sys.path.append(str(Path(__file__).parents[1] / "tables"))
from cells import Cells, made_with

SLOTS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--ratio", type=float, default=0.75)
    parser.add_argument("--round-to", default="1,8,16,32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    runtime = Runtime("auto", Precision.float32, options.threads, 0, "unused", None, Tracker.none)
    where = engine.device(runtime)
    backbone = Backbone(options.backbone, False, None, 0, 0.0, None, None, {})
    method = SPLoRA(lr=1, rank=8, slots=SLOTS)
    whole = models.create(backbone, method, num_classes=100, seed=0)
    size = models.input_size(whole)
    of = groups(bare(whole), size)
    units = [unit for layer in channels(bare(whole), of) for unit in layer.units]
    scores = torch.rand(len(units), generator=torch.Generator().manual_seed(0)).tolist()
    importance = Importance("random", tuple(units), tuple(scores), 0, None, {})
    cells = Cells("pruned")
    for multiple in map(int, options.round_to.split(",")):
        prune = Prune(options.ratio, PruneBy.count, Scope.slot, Effect.adapter, 1, multiple)
        gone = Mask.of(Unit.channel, Effect.adapter, choose(importance, prune).units).by_place()
        narrow = models.create(backbone, method, num_classes=100, seed=0)
        models.narrow(narrow, Widths.without(gone, of))
        merged = [merging.merge(model).to(where.device) for model in (narrow, whole)]
        found = costs.speed_up(*merged, size, where)
        for batch in (1, 64):
            record = {
                "cell": {"round_to": multiple, "batch": batch},
                "heads": count(of, gone, "attn.qkv"),
                "mlp_channels": count(of, gone, "mlp.fc1"),
                "before": latency(found, f"whole_latency_{batch}"),
                "after": latency(found, f"latency_{batch}"),
                "faster": round(found[f"speedup_{batch}"], 3),
                "by_macs": round(found["speedup_theoretical"], 3),
                **made_with(where.threads),
            }
            print(json.dumps(record))
            cells.add([record])


def latency(found: dict[str, float], name: str) -> dict[str, float]:
    """Milliseconds a batch."""
    return {part: round(found[f"{name}_{part}_ms"], 2) for part in ("p50", "p95")}


def count(of: list[Group], gone: dict[str, list[int]], slot: str) -> str:
    total = sum(len(group) for group in of if group.slot == slot)
    lost = sum(len(gone.get(group.name, ())) for group in of if group.slot == slot)
    return f"{total - lost}/{total}"


if __name__ == "__main__":
    main()
