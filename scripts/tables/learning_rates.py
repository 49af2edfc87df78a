"""Choose each method's learning rate on train800/val200, never on a test set.

    python scripts/tables/learning_rates.py [--tasks digits,shapes_count] [--methods NEAT,Lily]

Prints the accuracy on val200 after the last epoch, for each method and rate, averaged over the tasks.
"""

import argparse
import os
import statistics
from concurrent.futures import ThreadPoolExecutor

from methods import METHODS, TASKS, pear

WORDS = METHODS | {
    "LoRA": ("method=lora",),
    "AdaptFormer": ("method=adaptformer",),
    "NEAT": ("method=neat",),
    "Lily": ("method=lily",),
    "Houlsby": ("method=houlsby",),
    "Pfeiffer": ("method=pfeiffer",),
    "SPLoRA": ("method=splora",),
    "SPPaRA": METHODS["SPPaRA, proj"],
    "SPLoPA": METHODS["SPLoPA, 5 prototypes"],
}
RATES = {
    "from scratch": (5e-4, 1e-3, 2e-3),
    "linear probe": (3e-3, 1e-2, 3e-2),
    "AdaptFormer": (1e-3, 2e-3, 5e-3, 1e-2),
    "LoRA": (5e-4, 1e-3, 2e-3, 5e-3),
    "full fine-tuning": (1e-4, 3e-4, 1e-3),
    "NEAT": (1e-3, 3e-3, 1e-2),
    "Lily": (1e-3, 3e-3, 1e-2),
    "Houlsby": (1e-3, 3e-3, 1e-2),
    "Pfeiffer": (5e-4, 1e-3, 3e-3, 1e-2),
    "BitFit": (2e-3, 5e-3, 1e-2, 2e-2),
    "SPLoRA": (5e-4, 2e-3, 5e-3),
    "SPPaRA": (3e-4, 1e-3, 3e-3),
    "SPLoPA": (1e-3, 3e-3, 1e-2, 3e-2),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--methods", default=",".join(RATES))
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    tasks = options.tasks.split(",")
    wanted = {method: RATES[method] for method in options.methods.split(",")}
    cells = [(m, rate, task) for m, rates in wanted.items() for rate in rates for task in tasks]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = dict(zip(cells, pool.map(lambda cell: accuracy(*cell, options.epochs), cells), strict=True))
    print(f"| val200, % | lr | mean | {' | '.join(tasks)} |")
    print("|---|---|---|" + "---|" * len(tasks))
    for method, rates in wanted.items():
        for rate in rates:
            row = [100 * found[method, rate, task] for task in tasks]
            print(f"| {method} | {rate:g} | {statistics.fmean(row):.1f} | "
                  f"{' | '.join(f'{value:.1f}' for value in row)} |")  # fmt: skip


def accuracy(method: str, rate: float, task: str, epochs: int) -> float:
    """Accuracy on val200 after training on train800."""
    overrides = [f"dataset={task}", *WORDS[method], f"optim.lr={rate}", f"optim.epochs={epochs}"]
    overrides += ["dataset.train_split=train800", "dataset.test_split=val200"]
    overrides += ["optim.adapt_epochs=0", "runtime.threads=1"]
    pear("train", *overrides)
    return float(pear("eval", "phase=dense", *overrides)[0]["metrics"]["accuracy"])


if __name__ == "__main__":
    main()
