"""Structured pruning with adapters and with plain fine-tuning: accuracy, learned parameters, MACs.

    bash scripts/tables/spa.sh                  all of it; resumes where it was stopped
    bash scripts/tables/spa.sh --tasks digits --seeds 1

The form of the tables in arXiv 2211.10155, on the bundled tasks and backbone: every method is trained for 10
epochs, loses a share of its channels and attention heads, the least important by Taylor in every kind of
layer, and goes on for 10 epochs more. 1000 training images; learning rates tuned on train800/val200
before pruning; the test set is read once. The share is one of channels and heads, not of weights.

Accuracies are means with the 95% t-interval over seeds; `against fine-tuning` is the difference of the means
over tasks, paired by seed. Prints a Markdown table.
"""

import argparse
import os
import statistics
from concurrent.futures import ThreadPoolExecutor

from methods import TASKS, Record, by_task, cell, pear, row

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
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10, help="before pruning, and as many after it")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--methods", help=f"some of: {'; '.join(METHODS)}", default=";".join(METHODS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    options = parser.parse_args()
    tasks, methods = options.tasks.split(","), options.methods.split(";")
    common = [f"dataset={options.tasks}", f"seed={','.join(map(str, range(options.seeds)))}"]
    common += [f"optim.epochs={options.epochs}", "runtime.threads=1"]

    def evaluations(method: str, ratio: float) -> list[Record]:
        return pear("run", *common, *METHODS[method], f"prune.ratio={ratio}")

    # The stages before pruning are made once, by the first ratio of each method.
    with ThreadPoolExecutor(options.jobs) as pool:
        first = dict(zip(methods, pool.map(lambda m: evaluations(m, RATIOS[0]), methods), strict=True))
        cells = [(ratio, method) for ratio in RATIOS[1:] for method in methods]
        rest = dict(zip(cells, pool.map(lambda c: evaluations(c[1], c[0]), cells), strict=True))
    results = {(RATIOS[0], method): found for method, found in first.items()} | rest

    head = ("pruned", "accuracy, %", *tasks, "mean", f"against {PAIRED}", "learned", "MACs, M")
    print(row(head))
    print(row(["---"] * len(head)))
    for (ratio, method), found in results.items():
        means = over_tasks(found, options.seeds)
        beside = over_tasks(results[ratio, PAIRED], options.seeds) if PAIRED in methods else []
        differences = [mine - other for mine, other in zip(means, beside, strict=False)]
        gain = cell(differences) if differences and method != PAIRED else ""
        learned = statistics.fmean(r["accounting"]["trainable_params_without_head"] for r in found)
        macs = statistics.fmean(r["accounting"]["macs_per_image"] for r in found)
        accuracies = map(cell, (*by_task(found, options.seeds), means))
        print(row([f"{ratio:.0%}", method, *accuracies, gain, f"{learned:,.0f}", f"{macs / 1e6:.1f}"]))


def over_tasks(found: list[Record], seeds: int) -> list[float]:
    """The mean over the tasks, by seed."""
    return [statistics.fmean(of_seed) for of_seed in zip(*by_task(found, seeds), strict=True)]


if __name__ == "__main__":
    main()
