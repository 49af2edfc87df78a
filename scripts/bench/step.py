"""Time a training step of each method against the floor: the bare frozen backbone, forward and backward
with respect to its activations. Prints medians and ratios; repetitions alternate between the methods.

    python scripts/bench/step.py [--repeats 9] [--batch 64]

Cells go to docs/results/step.json; `python scripts/tables/render.py` puts them into the README.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from pear_cli.adapters.adaptformer import AdaptFormer
from pear_cli.adapters.full import FullFineTuning
from pear_cli.adapters.linear import LinearProbe
from pear_cli.adapters.lora import LoRA
from pear_cli.config.settings import Backbone
from pear_cli.model import models

sys.path.append(str(Path(__file__).parents[1] / "tables"))
from cells import Cells, made_with

MINI = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 12, "num_heads": 4}
METHODS = {
    "lora q,v D=8": LoRA(lr=1, rank=8, scale=1, dropout=0, slots=("attn.q", "attn.v")),
    "lora q,v D=8, dropout": LoRA(lr=1, rank=8, scale=1, dropout=0.1, slots=("attn.q", "attn.v")),
    "adaptformer D=8": AdaptFormer(lr=1, rank=8, scale=1, dropout=0, bias=False, slots=("mlp",)),
    "full": FullFineTuning(lr=1, slots=()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    backbone = Backbone("vit_tiny_patch16_224", False, None, 0, 0.0, None, None, MINI)
    x = torch.randn(options.batch, 3, 32, 32)
    y = torch.arange(options.batch) % 10

    steps: dict[str, Callable[[], None]] = {}
    bare = models.create(backbone, LinearProbe(lr=1, slots=()), 10, 0).train()
    steps["forward"] = lambda: _forward(bare, x)
    steps["floor"] = lambda: _floor(bare, x, y)
    for name, method in METHODS.items():
        model = models.create(backbone, method, 10, 0).train()
        optimizer = torch.optim.AdamW(models.trained(model).values(), fused=True)
        steps[name] = lambda model=model, optimizer=optimizer: _step(model, optimizer, x, y)  # type: ignore[misc]

    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(options.repeats + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat >= 2:
                times[name].append(1000 * (time.perf_counter() - start))
    floor = statistics.median(times["floor"])
    cells = Cells("step")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:24} {median:8.1f} ms   {median / floor:5.2f} of the floor")
        measured = {"ms": round(median, 2), "repeats": options.repeats, **made_with(torch.get_num_threads())}
        cells.add([{"cell": {"step": name, "batch": options.batch}, **measured}])


@torch.inference_mode()
def _forward(model: nn.Module, x: torch.Tensor) -> None:
    model(x)


def _floor(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    # Gradients flow to every activation, as they must for an adapter in the first block.
    hook = model.blocks[0].register_forward_pre_hook(lambda m, args: (args[0].detach().requires_grad_(),))
    nn.functional.cross_entropy(model(x), y).backward()
    hook.remove()


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()


if __name__ == "__main__":
    main()
