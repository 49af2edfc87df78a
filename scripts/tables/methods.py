"""Every method at the same number of trained parameters: accuracy and size on the five bundled tasks.

    bash scripts/tables/methods.sh              every cell that is missing or out of date
    bash scripts/tables/methods.sh --tasks digits --seeds 1

Every method gets the same 1000 training images, the same epochs and its own learning rate, tuned on
train800/val200 by scripts/tables/learning_rates.py; the test set is read once, after the last epoch. Ranks
are such that an adapter has 25 600 trained parameters, within 10%, the classifier aside; the probe, BitFit,
SPPaRA and full fine-tuning have the number that they have. HEAT and Pear prune half of twice as many after
half of the epochs. `from scratch` is full fine-tuning from random weights.

Cells go to docs/results/methods.json, one after the other (see cells.py): a run that was stopped resumes.
`python scripts/tables/render.py` puts them into the tables.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor

from cells import Cells, fresh, pear, record

TASKS = ("digits", "mnist5k", "shapes_count", "shapes_orientation", "shapes_location")
TWICE = ("optim.schedule=continued", "optim.prune_at=0.5", "prune.ratio=0.5")
METHODS = {
    "from scratch": ("method=full", "backbone.weights=null", "optim.lr=5e-4"),
    "linear probe": ("method=linear",),
    "BitFit": ("method=bitfit",),
    "LoRA, D = 4": ("method=lora", "method.rank=4"),
    "NEAT, D = 4": ("method=neat", "method.rank=4"),
    "AdaptFormer, D = 8": ("method=adaptformer",),
    "Houlsby, D = 4": ("method=houlsby", "method.rank=4"),
    "Pfeiffer, D = 8": ("method=pfeiffer",),
    "Lily, D = 6": ("method=lily", "method.rank=6"),
    "Lily monoscale, D = 6": ("method=lily_mono", "method.rank=6"),
    "SPLoRA, D = 2, qkv and proj": ("method=splora", "method.rank=2", "method.slots=[attn.qkv,attn.proj]"),
    "SPLoPA, 5 prototypes": ("method=splopa", "method.prototypes=5", "method.block=[32,32]"),
    "SPPaRA, proj": ("method=sppara", "method.slots=[attn.proj]"),
    "HEAT, D = 6, half of the heads": ("method=heat", "method.rank=6", *TWICE),
    "Pear, LoRA D = 8, half shared": ("method=lora", *TWICE),
    "full fine-tuning": ("method=full",),
}
EPOCHS = 10
SEEDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--methods", help=f"some of: {'; '.join(METHODS)}", default=";".join(METHODS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    options = parser.parse_args()
    cells = Cells("methods")
    rows = [(task, method) for task in options.tasks.split(",") for method in options.methods.split(";")]
    with fresh() as store, ThreadPoolExecutor(options.jobs) as pool:
        place = f"runtime.store={store}"
        list(pool.map(lambda row: measure(cells, *row, range(options.seeds), place), rows))


def measure(cells: Cells, task: str, method: str, seeds: range, store: str) -> None:
    """Train and evaluate a method on a task, with the seeds that are missing."""
    words = words_of(task, method)
    missing = [s for s in seeds if not cells.is_current({"task": task, "method": method, "seed": s}, words)]
    if not missing:
        return
    sweep = (*words, f"seed={','.join(map(str, missing))}", store)
    if "prune.ratio=0.5" in words:
        found = pear("run", *sweep)
    else:
        pear("train", *sweep)
        found = pear("eval", "phase=dense", *sweep)
    named = [{"task": task, "method": method, "seed": seed} for seed in missing]
    cells.add([record(cell, words, made) for cell, made in zip(named, found, strict=True)])


def words_of(task: str, method: str) -> list[str]:
    """The overrides of a cell, but for the seed and the place of the store."""
    words = [f"dataset={task}", *METHODS[method], f"optim.epochs={EPOCHS}", "runtime.threads=1"]
    return words if "prune.ratio=0.5" in words else [*words, "optim.adapt_epochs=0"]


if __name__ == "__main__":
    main()
