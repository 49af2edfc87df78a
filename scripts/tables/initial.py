"""Whether the initial values of structured pruning adapters matter: the paper's, and their authors' code's.

    python scripts/tables/initial.py

Dense training as in the methods table, on two tasks. Cells go to docs/results/initial.json (see cells.py);
`python scripts/tables/render.py` puts them into docs/methods.md.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor

from cells import Cells, fresh, pear, record
from methods import EPOCHS, METHODS, SEEDS

TASKS = ("mnist5k", "shapes_orientation")
ADAPTERS = {"SPLoRA, D = 8": ("method=splora",), "SPLoPA, 5 prototypes": METHODS["SPLoPA, 5 prototypes"]}
INITIAL = ("paper", "code")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    options = parser.parse_args()
    cells = Cells("initial")
    rows = [(task, method, initial) for task in TASKS for method in ADAPTERS for initial in INITIAL]
    with fresh() as store, ThreadPoolExecutor(options.jobs) as pool:
        place = f"runtime.store={store}"
        list(pool.map(lambda row: measure(cells, *row, place), rows))


def measure(cells: Cells, task: str, method: str, initial: str, store: str) -> None:
    """Train and evaluate with the seeds that are missing."""
    named = [{"task": task, "method": method, "initial": initial, "seed": seed} for seed in range(SEEDS)]
    words = [f"dataset={task}", *ADAPTERS[method], f"method.initial={initial}", f"optim.epochs={EPOCHS}"]
    words += ["optim.adapt_epochs=0", "runtime.threads=1"]
    missing = [cell for cell in named if not cells.is_current(cell, words)]
    if not missing:
        return
    sweep = (*words, f"seed={','.join(str(cell['seed']) for cell in missing)}", store)
    pear("train", *sweep)
    found = pear("eval", "phase=dense", *sweep)
    cells.add([record(cell, words, made) for cell, made in zip(missing, found, strict=True)])


if __name__ == "__main__":
    main()
