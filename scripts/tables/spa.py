"""Structured pruning with adapters and with plain fine-tuning: accuracy, learned parameters, MACs.

    bash scripts/tables/spa.sh                  every cell that is missing or out of date
    bash scripts/tables/spa.sh --tasks digits --seeds 1

The form of the tables in arXiv 2211.10155, on the bundled tasks and backbone: every method is trained for 10
epochs, loses a share of its channels and attention heads, the least important by Taylor in every kind of
layer, and is trained for 10 epochs more. 1000 training images; learning rates tuned on train800/val200 before
pruning; the test set is read once. The share is one of channels and heads, not of weights.

Cells go to docs/results/spa.json, one after the other (see cells.py): a run that was stopped resumes.
`python scripts/tables/render.py` puts them into the tables.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor

from cells import Cells, fresh, pear, record
from methods import EPOCHS, SEEDS, TASKS

RATIOS = (0, 0.3, 0.5, 0.7, 0.9)
LINEAR = "method.slots=[attn.qkv,attn.proj,mlp.fc1,mlp.fc2]"
METHODS = {
    "fine-tuning": ("method=full", "score=channel", "prune.scope=slot"),
    "SPPaRA": ("method=sppara", LINEAR),
    "SPLoRA, D = 32": ("method=splora", "method.rank=32"),
    "SPLoRA, D = 8": ("method=splora",),
}
PAIRED = "fine-tuning"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--methods", help=f"some of: {'; '.join(METHODS)}", default=";".join(METHODS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    options = parser.parse_args()
    cells = Cells("spa")
    rows = [
        (task, method, seed)
        for task in options.tasks.split(",")
        for method in options.methods.split(";")
        for seed in range(options.seeds)
    ]
    with fresh() as store, ThreadPoolExecutor(options.jobs) as pool:
        place = f"runtime.store={store}"
        list(pool.map(lambda row: measure(cells, *row, place), rows))


def measure(cells: Cells, task: str, method: str, seed: int, store: str) -> None:
    """Prune at the ratios that are missing; the stages before pruning are made once."""
    named = {ratio: {"task": task, "method": method, "seed": seed, "ratio": ratio} for ratio in RATIOS}
    words = words_of(task, method)
    missing = [ratio for ratio, cell in named.items() if not cells.is_current(cell, words)]
    if not missing:
        return
    found = pear("run", *words, f"seed={seed}", f"prune.ratio={','.join(map(str, missing))}", store)
    cells.add([record(named[ratio], words, made) for ratio, made in zip(missing, found, strict=True)])


def words_of(task: str, method: str) -> list[str]:
    """The overrides of a cell, but for ratio, seed and the place of the store."""
    return [f"dataset={task}", *METHODS[method], f"optim.epochs={EPOCHS}", "runtime.threads=1"]


if __name__ == "__main__":
    main()
