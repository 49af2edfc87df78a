"""Every method at the same number of trained parameters: accuracy, size and speed on the five bundled tasks.

    bash scripts/tables/methods.sh              all of it; resumes where it was stopped
    bash scripts/tables/methods.sh --quick      three tasks, half the epochs

Every method gets the same 1000 training images, the same epochs and its own learning rate, tuned on
train800/val200 by scripts/tables/learning_rates.py; the test set is read once, after the last epoch. Ranks
are such that an adapter has 25 600 trained parameters, within 10%, the classifier aside; the probe, BitFit,
SPPaRA and full fine-tuning have the number that they have. HEAT and Pear prune half of twice as many after
half of the epochs. `from scratch` is full fine-tuning from random weights.

Accuracies are means with the 95% t-interval over seeds. Images a second are medians of alternating
repetitions on batches of 64, taken when all training is done: of a training step, and of the evaluation of
the model as it was trained, nothing merged. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pear_cli.report.analysis.estimate import Estimate

TASKS = ("digits", "mnist5k", "shapes_count", "shapes_orientation", "shapes_location")
QUICK = ("digits", "mnist5k", "shapes_count")
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
Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three tasks, half the epochs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="10, or 5 with --quick")
    parser.add_argument("--tasks", help="all five, or three with --quick")
    parser.add_argument("--methods", help=f"some of: {'; '.join(METHODS)}", default=";".join(METHODS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    options = parser.parse_args()
    tasks = options.tasks.split(",") if options.tasks else list(QUICK if options.quick else TASKS)
    epochs = options.epochs or (5 if options.quick else 10)
    methods = options.methods.split(";")

    with ThreadPoolExecutor(options.jobs) as pool:
        found = pool.map(lambda method: evaluations(METHODS[method], tasks, options.seeds, epochs), methods)
        results = dict(zip(methods, found, strict=True))
    speeds = speed({method: of_method[0]["artifact"] for method, of_method in results.items()})

    head = ("accuracy, %", *tasks, "mean", "trained", "stored, KiB", "images/s, training", "evaluating")
    print(row(head))
    print(row(["---"] * len(head)))
    for method, of_method in results.items():
        of_task = by_task(of_method, options.seeds)
        means = [statistics.fmean(of_seed) for of_seed in zip(*of_task, strict=True)]
        costs = of_method[0]["accounting"]
        size = f"{costs['trainable_params_without_head']:,}", f"{costs['stored_bytes'] / 1024:,.0f}"
        rates = (f"{rate:,.0f}" for rate in speeds[method])
        print(row([method, *map(cell, (*of_task, means)), *size, *rates]))


def evaluations(words: tuple[str, ...], tasks: list[str], seeds: int, epochs: int) -> list[Record]:
    """Train and evaluate a method on every task with every seed; what is in the store is reused."""
    sweep = [f"dataset={','.join(tasks)}", f"seed={','.join(map(str, range(seeds)))}", *words]
    sweep += [f"optim.epochs={epochs}", "runtime.threads=1"]
    if "prune.ratio=0.5" in words:
        return pear("run", *sweep)
    pear("train", *sweep, "optim.adapt_epochs=0")
    return pear("eval", *sweep, "optim.adapt_epochs=0", "phase=dense")


def pear(command: str, *overrides: str) -> list[Record]:
    """The records of a sweep, in its order."""
    words = [sys.executable, "-m", "pear_cli", command, "-m", "--json", *overrides]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words[2:])}\n{done.stderr}")
    print(command, *overrides, file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def by_task(found: list[Record], seeds: int) -> list[list[float]]:
    """Accuracies in %, tasks × seeds."""
    values = [100 * record["metrics"]["accuracy"] for record in found]
    return [values[i : i + seeds] for i in range(0, len(values), seeds)]


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(values: list[float]) -> str:
    found = Estimate.from_seeds(values)
    assert found is not None
    return f"{found.mean:.1f}" + ("" if found.half is None else f" ± {found.half:.1f}")


def speed(artifacts: dict[str, str], batch: int = 64, repeats: int = 9) -> dict[str, tuple[float, float]]:
    """Images a second of a training step and of an evaluation, medians of alternating repetitions."""
    import torch

    import pear_cli
    from pear_cli.model import model as models

    def training(model: torch.nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(models.trained(model).values(), fused=True)

        def step() -> None:
            torch.nn.functional.cross_entropy(model.train()(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def evaluating(model: torch.nn.Module) -> Callable[[], None]:
        def step() -> None:
            with torch.inference_mode():
                model.eval()(images)

        return step

    loaded = {method: pear_cli.load(path) for method, path in artifacts.items()}
    size = next(iter(loaded.values())).pretrained_cfg["input_size"][-1]
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(batch) % next(iter(loaded.values())).num_classes
    steps = {method: (training(model), evaluating(model)) for method, model in loaded.items()}
    seconds: dict[str, tuple[list[float], list[float]]] = {method: ([], []) for method in steps}
    for repeat in range(repeats + 1):
        for method, kinds in steps.items():
            for step, times in zip(kinds, seconds[method], strict=True):
                start = time.perf_counter()
                step()
                if repeat:
                    times.append(time.perf_counter() - start)
    return {
        method: (batch / statistics.median(train), batch / statistics.median(evaluate))
        for method, (train, evaluate) in seconds.items()
    }


if __name__ == "__main__":
    main()
