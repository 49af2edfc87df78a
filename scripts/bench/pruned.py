"""How much faster a network is without 75% of its mlp channels and heads, beside what its MACs promise.

    python scripts/bench/pruned.py [--backbone vit_tiny_patch16_224] [--ratio 0.75] [--round-to 1,16,32]

Random weights, importance at random, the same share of every kind of layer. Both networks are merged and take
turns; latencies are medians. No layer loses all its heads, so that of ViT-Ti's three a block, two go.
"""

import argparse
import os

import torch

from pear_cli.adapters.splora import SPLoRA
from pear_cli.backbone.channels import bare, groups
from pear_cli.backbone.widths import Group, Widths
from pear_cli.config.choices import Effect, Precision, PruneBy, Scope, Tracker, Unit
from pear_cli.config.settings import Backbone, Prune, Runtime
from pear_cli.model import costs, merge
from pear_cli.model import model as models
from pear_cli.pruning.choose import choose
from pear_cli.pruning.mask import Mask
from pear_cli.scoring.importance import Importance
from pear_cli.scoring.layers import channels
from pear_cli.training import engine

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
    print("| round_to | heads | mlp channels | batch | ms, p50 (p95) | after | faster | by MACs | share |")
    print("|---|---|---|---|---|---|---|---|---|")
    for multiple in map(int, options.round_to.split(",")):
        prune = Prune(options.ratio, PruneBy.count, Scope.slot, Effect.adapter, 1, multiple)
        gone = Mask.of(Unit.channel, Effect.adapter, choose(importance, prune).units).by_place()
        narrow = models.create(backbone, method, num_classes=100, seed=0)
        models.narrow(narrow, Widths.without(gone, of))
        left = {slot: count(of, gone, slot) for slot in ("attn.qkv", "mlp.fc1")}
        merged = [merge.merge(model).to(where.device) for model in (narrow, whole)]
        found = costs.speed_up(*merged, size, where)
        theory = found["speedup_theoretical"]
        for batch in (1, 64):
            before, after = (latency(found, f"{whose}latency_{batch}") for whose in ("whole_", ""))
            gain = found[f"speedup_{batch}"]
            row = (multiple, left["attn.qkv"], left["mlp.fc1"], batch, before, after)
            print("|", " | ".join(map(str, row)), f"| {gain:.2f} | {theory:.2f} | {gain / theory:.2f} |")


def latency(found: dict[str, float], name: str) -> str:
    return f"{found[f'{name}_p50_ms']:.1f} ({found[f'{name}_p95_ms']:.1f})"


def count(of: list[Group], gone: dict[str, list[int]], slot: str) -> str:
    total = sum(len(group) for group in of if group.slot == slot)
    lost = sum(len(gone.get(group.name, ())) for group in of if group.slot == slot)
    return f"{total - lost}/{total}"


if __name__ == "__main__":
    main()
