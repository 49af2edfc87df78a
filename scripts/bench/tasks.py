"""Serve many tasks from one backbone, and compare with as many loaded models, and with PEFT.

    python scripts/bench/tasks.py [--models vit_tiny_patch16_224 vit_base_patch16_224] [--tasks 16]

Random weights; each task is LoRA of rank 8 on q and v with ten classes. Each measurement of memory has a
process of its own. Cells go to docs/results/tasks.json:

- tensor bytes in memory, over those of the backbone and the files; growth of the resident set over the files;
- milliseconds to add a task, verified or not, and to switch, beside `load` and PEFT's `load_adapter` and
  `set_adapter`;
- milliseconds of a batch of 64 images: bare, of one task, and mixed over all tasks, beside PEFT's own mixed
  batch and task by task. Repetitions alternate; medians.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import pear_cli

sys.path.append(str(Path(__file__).parents[1] / "tables"))
from cells import Cells, made_with

MODELS = ("vit_tiny_patch16_224", "vit_base_patch16_224")
BATCH, CLASSES, RANK = 64, 10, 8


def backbone(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0).eval()


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make(name: str, tasks: int, folder: Path) -> list[Path]:
    """The files of some tasks, with weights that do something."""
    model = backbone(name)
    model.reset_classifier(CLASSES)
    adapted = pear_cli.attach(model, "lora", rank=RANK)
    paths = []
    for number in range(tasks):
        for parameter in adapted.parameters():
            nn.init.normal_(parameter, std=0.02)
        classes = [str(index) for index in range(CLASSES)]
        paths.append(adapted.save(folder / f"{number}.safetensors", classes=classes))
    return paths


def resident() -> int:
    """Bytes of the resident set of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def tensor_bytes() -> int:
    """Bytes of all tensors that are alive, each storage once."""
    gc.collect()
    found = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor):
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def memory(name: str, how: str, paths: list[Path]) -> dict[str, float]:
    """Tensor bytes and growth of the resident set, of a bank or of models of their own."""
    model = backbone(name)
    kept: Any = pear_cli.TaskBank(model, {"warm": paths[0]}, verify=False)
    kept.remove("warm")
    gc.collect()
    before = resident()
    if how == "bank":
        for path in paths:
            kept.add(path.stem, path)
    else:
        kept = [pear_cli.load(path, backbone=backbone(name)) for path in paths]
    gc.collect()
    files = sum(path.stat().st_size for path in paths)
    whole = sum(p.numel() * p.element_size() for p in backbone(name).parameters()) + files
    return {"tensors": tensor_bytes() / whole, "growth": (resident() - before) / files, "files": files}


def alternating(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median milliseconds of each step; two rounds warm up."""
    times: dict[str, list[float]] = {step: [] for step in steps}
    for round_ in range(repeats + 2):
        for step, run in steps.items():
            start = time.perf_counter()
            run()
            if device().type == "cuda":
                torch.cuda.synchronize()
            if round_ >= 2:
                times[step].append(1000 * (time.perf_counter() - start))
    return {step: statistics.median(found) for step, found in times.items()}


def peft_model(name: str, tasks: int, folder: Path) -> Any:
    """PEFT's model with as many LoRA adapters on the fused qkv, of the same rank."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=RANK, target_modules=["qkv"], lora_alpha=RANK)
    model: Any = get_peft_model(backbone(name), config, adapter_name="0")
    for number in range(1, tasks):
        model.add_adapter(str(number), config)
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(folder)
    return model.to(device()).eval()


@torch.inference_mode()
def times(
    name: str, tasks: int, paths: list[Path], folder: Path
) -> dict[str, dict[str, Callable[[], object]]]:
    """What a bank does, and the same by PEFT, by what is compared: adding a task, switching, a batch."""
    model = backbone(name).to(device())
    named = {path.stem: path for path in paths}
    bank = pear_cli.TaskBank(model, named, verify=False)
    x = torch.randn(BATCH, 3, 224, 224, device=device())
    mixed = [str(index % tasks) for index in range(BATCH)]
    peft = peft_model(name, tasks, folder)
    one = x[:1]

    def add(verify: bool) -> None:
        bank._verify = verify
        bank.remove("0")
        bank.add("0", named["0"])

    def load_adapter() -> None:
        peft.delete_adapter("0")
        peft.load_adapter(folder / "0", adapter_name="0")

    def by_task() -> None:
        for task in range(tasks):
            bank(x[task::tasks], str(task))

    return {
        "add": {
            "add": lambda: add(False),
            "add_verified": lambda: add(True),
            "peft_load_adapter": load_adapter,
        },
        "switch": {
            "same_task_twice": lambda: (bank(one, "1"), bank(one, "1")),
            "two_tasks": lambda: (bank(one, "1"), bank(one, "2")),
            "peft_set_adapter_twice": lambda: (peft.set_adapter("1"), peft.set_adapter("2")),
        },
        "batch": {
            "bare": lambda: model(x),
            "one_task": lambda: bank(x, "0"),
            "mixed": lambda: bank(x, mixed),
            "task_by_task": by_task,
            "peft_mixed": lambda: peft(x, adapter_names=mixed),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--groups", nargs="*", default=["add", "switch", "batch"], help="of times to measure")
    parser.add_argument("--memory", nargs=3, metavar=("MODEL", "HOW", "FOLDER"), help="for itself alone")
    options = parser.parse_args()
    if options.memory:
        name, how, folder = options.memory
        print(json.dumps(memory(name, how, sorted(Path(folder).glob("*.safetensors")))))
        return
    cells = Cells("tasks")
    for name in options.models:
        with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as peft:
            paths = make(name, options.tasks, Path(made))
            for how in ("bank", "models") if options.groups != ["batch"] else ():
                command = [sys.executable, __file__, "--memory", name, how, made]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"{name} {how}: tensors {found['tensors']:.3f}, growth {found['growth']:.2f} of the files"
                )
                cell = {"model": name, "memory": how, "tasks": options.tasks}
                cells.add([{"cell": cell, **found, **made_with(torch.get_num_threads())}])
            groups = times(name, options.tasks, paths, Path(peft))
            for group in options.groups:
                with torch.inference_mode():
                    measured = alternating(groups[group], options.repeats)
                for what, ms in measured.items():
                    print(f"{name} {what:24} {ms:10.2f} ms", flush=True)
                about = torch.cuda.get_device_name() if device().type == "cuda" else "cpu"
                cell = {"model": name, "ms": group, "tasks": options.tasks, "device": about}
                rounded = {what: round(ms, 3) for what, ms in measured.items()}
                made = made_with(torch.get_num_threads())
                cells.add([{"cell": cell, **rounded, "repeats": options.repeats, **made}])


if __name__ == "__main__":
    main()
