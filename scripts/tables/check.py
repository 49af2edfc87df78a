"""Measure a sample of the published figures again, and compare.

    bash scripts/check_figures.sh

The quickstart's table, and three cells of each big table, are made again with an empty cache and an empty
store. On a processor of the family that a figure was measured on it must be the same to the digit; elsewhere
within 0.3 points, as other processors round differently; in trainings of twenty epochs with pruning between,
other rounding can grow to more. What differs is said, with what may explain it; the exit code is then 1.
"""

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import quickstart
from cells import Cells, Record, content, fresh, pear, processor

from pear_cli.experiment.step import VERSIONS

TOLERANCE = 0.003  # of an accuracy, where the processor is another
SAMPLE: tuple[tuple[str, Mapping[str, Any]], ...] = (
    *(
        ("quickstart", {"task": task, "model": model})
        for task in quickstart.TASKS
        for model in quickstart.MODELS
    ),
    ("methods", {"task": "shapes_orientation", "method": "linear probe", "seed": 0}),
    ("methods", {"task": "mnist5k", "method": "LoRA, D = 4", "seed": 1}),
    ("methods", {"task": "digits", "method": "Pear, LoRA D = 8, half shared", "seed": 2}),
    ("spa", {"task": "digits", "method": "fine-tuning", "seed": 0, "ratio": 0.5}),
    ("spa", {"task": "shapes_orientation", "method": "SPLoRA, D = 8", "seed": 0, "ratio": 0.7}),
    ("spa", {"task": "shapes_orientation", "method": "fine-tuning", "seed": 1, "ratio": 0.9}),
    ("learning_rates", {"task": "shapes_orientation", "method": "LoRA", "rate": 5e-3}),
    ("learning_rates", {"task": "shapes_orientation", "method": "linear probe", "rate": 1e-2}),
    ("learning_rates", {"task": "shapes_orientation", "method": "full fine-tuning", "rate": 3e-4}),
)


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    tables = {name: Cells(name) for name, _ in SAMPLE}
    different = 0
    with fresh() as store:
        for table, cell in SAMPLE:
            name = f"{table}: {', '.join(map(str, cell.values()))}"
            record = tables[table].find(cell)
            if record is None:
                print(f"{name}: not published", flush=True)
                different += 1
                continue
            found = measured(table, record, f"runtime.store={store}")
            wrong = difference(record, found)
            different += bool(wrong)
            spelled = f"{100 * found:.2f} %, published {100 * record['accuracy']:.2f}"
            print(f"{name}: {spelled}{''.join(f'; {part}' for part in wrong)}", flush=True)
    print(f"{len(SAMPLE) - different} of {len(SAMPLE)} figures are as published")
    sys.exit(bool(different))


def measured(table: str, record: Record, store: str) -> float:
    """The accuracy of a cell, measured now."""
    cell = record["cell"]
    words = [*record["words"], *(f"seed={cell['seed']}" for _ in range("seed" in cell)), store]
    if "runtime.threads=1" not in words:
        words.append(f"runtime.threads={record['threads']}")  # sums over other parts round differently
    if table == "spa":
        words.append(f"prune.ratio={cell['ratio']}")
    if table == "learning_rates":
        words.append(f"optim.lr={cell['rate']}")
    if "optim.adapt_epochs=0" in words:
        pear("train", *words)
        return float(pear("eval", "phase=dense", *words)[0]["metrics"]["accuracy"])
    return float(pear("run", *words)[0]["metrics"]["accuracy"])


def difference(record: Record, accuracy: float) -> Sequence[str]:
    """How an accuracy differs from the published one, and why it may; nothing where it does not."""
    same = record["processor"] == processor()
    allowed = 0.0 if same else TOLERANCE
    task = record["cell"]["task"]
    data = [split for split, found in record["data"].items() if content(task, split) != found]
    if abs(accuracy - record["accuracy"]) <= allowed and not data:
        return []
    why = [f"differs by {100 * (accuracy - record['accuracy']):+.2f} points, {100 * allowed:g} are allowed"]
    why += [f"other content of {split}: this machine generates other images" for split in data]
    stages = [stage for stage, version in record["stages"].items() if VERSIONS[stage] != version]
    why += [f"{stage} computes something else since then" for stage in stages]
    today = {name: importlib.metadata.version(name) for name in ("torch", "timm")}
    today["python"] = platform.python_version()
    versions = record["versions"]
    why += [
        f"{name} {today[name]} instead of {versions[name]}" for name in today if today[name] != versions[name]
    ]
    return [*why, *([] if same else [f"measured on {record['processor']}, here {processor()}"])]


if __name__ == "__main__":
    main()
