"""Choose each method's learning rate on train800/val200, never on a test set.

    python scripts/tables/learning_rates.py [--tasks digits,shapes_count] [--methods NEAT,Lily]

Cells go to docs/results/learning_rates.json (see cells.py): the accuracy on val200 after the last epoch, seed
0. `python scripts/tables/render.py` puts them into the tables.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor

from cells import Cells, fresh, pear, record
from methods import EPOCHS, METHODS, TASKS

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
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    options = parser.parse_args()
    cells = Cells("learning_rates")
    methods = options.methods.split(",")
    rows = [(task, method) for task in options.tasks.split(",") for method in methods]
    with fresh() as store, ThreadPoolExecutor(options.jobs) as pool:
        place = f"runtime.store={store}"
        list(pool.map(lambda row: measure(cells, *row, place), rows))


def measure(cells: Cells, task: str, method: str, store: str) -> None:
    """Train on train800 at the rates that are missing, and evaluate on val200."""
    named = {rate: {"task": task, "method": method, "rate": rate} for rate in RATES[method]}
    words = [f"dataset={task}", *WORDS[method], f"optim.epochs={EPOCHS}", "runtime.threads=1"]
    words += ["dataset.train_split=train800", "dataset.test_split=val200", "optim.adapt_epochs=0"]
    missing = [rate for rate, cell in named.items() if not cells.is_current(cell, words)]
    if not missing:
        return
    without = [word for word in words if not word.startswith("optim.lr=")]
    sweep = (*without, f"optim.lr={','.join(map(str, missing))}", store)
    pear("train", *sweep)
    found = pear("eval", "phase=dense", *sweep)
    cells.add([record(named[rate], words, made) for rate, made in zip(missing, found, strict=True)])


if __name__ == "__main__":
    main()
