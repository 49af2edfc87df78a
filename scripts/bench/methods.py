"""Images a second of a training step and of an evaluation, for every method of the methods table.

    python scripts/bench/methods.py [--repeats 9] [--batch 64]

The bundled backbone, nothing merged; medians of repetitions that alternate between the methods. HEAT and Pear
are as they are after pruning and one epoch. Cells go to docs/results/speeds.json; `python
scripts/tables/render.py` puts them into the README.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import pear_cli
from pear_cli.model import models

sys.path.append(str(Path(__file__).parents[1] / "tables"))
from cells import Cells, fresh, made_with, pear
from methods import METHODS, words_of


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    with fresh() as store:
        loaded = {method: pear_cli.load(artifact(method, f"runtime.store={store}")) for method in METHODS}
    size = next(iter(loaded.values())).pretrained_cfg["input_size"][-1]
    images = torch.randn(options.batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(options.batch) % 10
    steps = {
        (method, kind): make(model, images, labels)
        for method, model in loaded.items()
        for kind, make in (("training", training), ("evaluating", evaluating))
    }
    seconds: dict[tuple[str, str], list[float]] = {step: [] for step in steps}
    for repeat in range(options.repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    cells = Cells("speeds")
    for method in METHODS:
        speed = {
            kind: round(options.batch / statistics.median(seconds[method, kind]))
            for kind in ("training", "evaluating")
        }
        print(method, speed)
        record = {"cell": {"method": method, "batch": options.batch}, **speed, "repeats": options.repeats}
        cells.add([record | made_with(torch.get_num_threads())])


def artifact(method: str, store: str) -> str:
    """The artifact of a method after one epoch on digits, pruned if it prunes."""
    words = [word for word in words_of("digits", method) if not word.startswith("optim.epochs=")]
    whole = "prune.ratio=0.5" in words
    line = [*words, f"optim.epochs={2 if whole else 1}", store]
    found = pear("run", *line) if whole else pear("train", *line)
    return str(found[0]["artifact"])


def training(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(models.trained(model).values(), fused=True)

    def step() -> None:
        nn.functional.cross_entropy(model.train()(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def evaluating(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    def step() -> None:
        with torch.inference_mode():
            model.eval()(images)

    return step


if __name__ == "__main__":
    main()
