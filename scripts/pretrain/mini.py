"""Pretrain pear_mini, the bundled backbone, on generated images only.

    python scripts/pretrain/mini.py --minutes 72 --processes 2 --probe

The backbone is timm's VisionTransformer at 32x32 with patches of 8: 17 tokens, width 128, 12 blocks, 4
attention heads, 2,406,528 parameters. Eleven linear heads on its class token name what `images`
drew: the glyph, fractal, texture or shape; where it is, how large, which way it points; how many there are
and in which cells. The loss is the weighted sum of their cross-entropies, each over the images that carry the
label. The heads are thrown away.

Muon for the matrices of the blocks, AdamW for the rest; the learning rate warms up for 100 steps, stays until
40% of the budget and falls linearly to zero. The budget is `--images`, `--minutes`, or whichever ends first.
No image is drawn twice. With `--images` alone a run is a function of its seed, batch and number of processes,
resumed or not; `--minutes` makes it depend on the machine's speed too.

The bundled weights: 1,692,672 images in 72 minutes on two CPU cores (seed 0); then, in %, glyph
69 of 500 classes, direction 85 of 16, count 76 of 10; a probe on 1000 images: digits 95.5, mnist5k
91.5 (random weights 79.5 and 55.8).

Files: the weights (float16 safetensors) at `--out`, the results as JSON beside them; `state.pt` under
`--work`, from which the same command resumes. A snapshot goes to `--out` every `--snapshot-minutes`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torch.distributed as dist
from images import World
from safetensors.torch import save_file
from student import ARCHITECTURE, MEAN, NAME, STD, Student, evaluate, loss_of, probe
from torch import Tensor

TRAIN = 0  # the stream of images it learns from
CHECKPOINT_SECONDS, LOG_STEPS, WARM_UP = 180, 50, 100


@dataclass(frozen=True)
class Budget:
    """When to stop, and how the learning rate gets there."""

    images: int | None
    minutes: float | None

    def progress(self, seen: int, seconds: float) -> float:
        spent = [seen / self.images] if self.images else []
        spent += [seconds / (60 * self.minutes)] if self.minutes else []
        return max(spent)

    def rate(self, step: int, progress: float) -> float:
        """Fraction of the peak learning rate."""
        return min(1.0, (step + 1) / WARM_UP, max(0.0, (1 - progress) / 0.6))


def optimizers_of(student: Student) -> list[torch.optim.Optimizer]:
    matrices = [p for p in student.backbone.blocks.parameters() if p.ndim == 2]
    known = {id(p) for p in matrices}
    rest = [p for p in student.parameters() if id(p) not in known]
    return [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=2e-3, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a neighbour of `path`, then rename it: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = path.with_name(f".{path.name}.{os.getpid()}")
    write(neighbour)
    neighbour.chmod(0o644)
    os.replace(neighbour, path)


def save_weights(student: Student, path: Path, note: dict[str, object]) -> None:
    tensors = {
        k: v.detach().to("cpu", torch.float16).contiguous() for k, v in student.backbone.state_dict().items()
    }
    recipe = {
        "recipe": "scripts/pretrain/mini.py: generated images, eleven heads, Muon and AdamW",
        "architecture": f"timm {NAME} {json.dumps(ARCHITECTURE)}",
        "mean": MEAN,
        "std": STD,
        "pooling": "token",
        **note,
    }
    write_whole(path, lambda p: save_file(tensors, p, {k: str(v) for k, v in recipe.items()}))


class Run:
    """One process's share of the training; every process holds the same weights, rank 0 writes."""

    def __init__(self, rank: int, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.rank, self.args = rank, args
        self.world, self.student = World(args.seed, args.device), Student().to(args.device)
        self.optimizers, self.budget = optimizers_of(self.student), Budget(args.images, args.minutes)
        self.groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self.peaks = [group["lr"] for group in self.groups]
        self.steps, self.seconds, self.state_path = 0, 0.0, args.work / "state.pt"
        if self.state_path.exists():
            self.load()

    def load(self) -> None:
        state = torch.load(self.state_path, map_location=self.args.device, weights_only=True)
        seed, batch = state["seed"], state["batch"]
        if (seed, batch) != (self.args.seed, self.args.batch):
            sys.exit(f"{self.state_path} is of seed {seed} and batch {batch}: choose another --work")
        self.student.load_state_dict(state["student"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self.steps, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        state = {
            "seed": self.args.seed,
            "batch": self.args.batch,
            "step": self.steps,
            "seconds": self.seconds,
            "student": self.student.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        write_whole(self.state_path, lambda path: torch.save(state, path))

    @property
    def images(self) -> int:
        return self.steps * self.args.batch

    @property
    def progress(self) -> float:
        return self.budget.progress(self.images, self.seconds)

    def step(self, clock: float) -> float:
        """One batch; `clock` is when training would have begun without a pause. -> the mean loss"""
        rate = self.budget.rate(self.steps, self.progress)
        for group, peak in zip(self.groups, self.peaks, strict=True):
            group["lr"] = peak * rate
        share, processes = self.args.batch // self.args.processes, self.args.processes
        batch = self.world.batch(share, TRAIN, self.steps * processes + self.rank)
        self.student.train()
        loss = loss_of(self.student(batch.pixels), batch)
        self.student.zero_grad()
        loss.backward()
        mean, self.seconds = self.averaged(loss.detach(), time.monotonic() - clock)
        for optimizer in self.optimizers:
            optimizer.step()
        self.steps += 1
        return mean

    def averaged(self, loss: Tensor, seconds: float) -> tuple[float, float]:
        """Average the gradients and the loss over processes; all take rank 0's clock."""
        if self.args.processes == 1:
            return loss.item(), seconds
        gradients = [p.grad for p in self.student.parameters() if p.grad is not None]
        clock = torch.tensor([seconds if self.rank == 0 else 0.0]) * self.args.processes
        flat = torch.cat([*(g.flatten() for g in gradients), loss.view(1), clock])
        dist.all_reduce(flat)
        flat /= self.args.processes
        *parts, mean, clock = flat.split([*(g.numel() for g in gradients), 1, 1])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return mean.item(), clock.item()

    def snapshot(self, finished: bool = False) -> dict[str, object]:
        note = {"seed": self.args.seed, "images": self.images, "finished": finished}
        save_weights(self.student, self.args.out, note)
        return note


def train(rank: int, args: argparse.Namespace) -> None:
    """From the last state, or from the start, to the end of the budget or `--stop-at`."""
    if args.processes > 1:
        torch.set_num_threads(1)
        meeting = f"file://{(args.work / 'meeting').resolve()}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=args.processes)
    run = Run(rank, args)
    logged = saved = shown = time.monotonic()
    clock = logged - run.seconds
    while run.progress < 1 and run.steps != args.stop_at:
        loss = run.step(clock)
        now = time.monotonic()
        if rank == 0 and run.steps % LOG_STEPS == 0:
            speed, logged = LOG_STEPS * args.batch / (now - logged), now
            line = f"step {run.steps}  images {run.images}  {100 * run.progress:.1f}%  loss {loss:.3f}"
            log(f"{line}  {speed:.0f} images/s  {run.seconds / 60:.1f} min")
        if rank == 0 and now - saved > CHECKPOINT_SECONDS:
            run.save()
            saved = now
        if rank == 0 and now - shown > 60 * args.snapshot_minutes:
            run.snapshot()
            shown = now
            log(f"snapshot {json.dumps(evaluate(run.student, run.world, batches=4, size=256))}")
    if rank == 0:
        run.save()
    if args.processes > 1:
        dist.barrier()
        dist.destroy_process_group()


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def finish(args: argparse.Namespace) -> None:
    """Weights, and what they are worth, from the last state."""
    run = Run(0, args)
    results: dict[str, object] = {
        **run.snapshot(finished=run.progress >= 1),
        "steps": run.steps,
        "batch": args.batch,
        "processes": args.processes,
        "device": args.device,
        "minutes": round(run.seconds / 60, 1),
        "heads": evaluate(run.student, run.world),
    }
    if args.probe:
        results["probe"] = probe(timm.create_model(NAME, **ARCHITECTURE, checkpoint_path=str(args.out)))
        torch.manual_seed(args.seed)
        results["probe_random"] = probe(timm.create_model(NAME, **ARCHITECTURE))
    text = json.dumps(results, indent=2) + "\n"
    for path in (args.out.with_suffix(".json"), args.work / "results.json"):
        write_whole(path, lambda p: p.write_text(text))
    log(text)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, help="stop after this many images")
    parser.add_argument("--minutes", type=float, help="stop after this much training time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=256, help="images a step, over all processes")
    parser.add_argument("--processes", type=int, default=1, help="processes of one thread each, on the CPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("pear_cli/weights/pear_mini.safetensors"))
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/pretrain"), help="folder of the resumable state"
    )
    parser.add_argument("--snapshot-minutes", type=float, default=12.0)
    parser.add_argument("--stop-at", type=int, help="leave after this many steps, to resume later")
    parser.add_argument("--probe", action="store_true", help="test the result on 1000 handwritten digits")
    args = parser.parse_args(argv)
    if not (args.images or args.minutes):
        parser.error("give a budget: --images, --minutes or both")
    if args.batch % args.processes or (args.processes > 1 and args.device != "cpu"):
        parser.error("--processes must divide --batch, and needs --device cpu")
    return args


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    if args.processes > 1:
        (args.work / "meeting").unlink(missing_ok=True)
        torch.multiprocessing.spawn(train, (args,), nprocs=args.processes)
    else:
        train(0, args)
    finish(args)


if __name__ == "__main__":
    main()
