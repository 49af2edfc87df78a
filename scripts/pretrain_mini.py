"""Pretrain pear_mini, the bundled backbone, on generated images only.

    python scripts/pretrain_mini.py --minutes 72 --processes 2 --probe

The backbone is timm's VisionTransformer at 32x32 with patches of 8: 17 tokens, width 128, 12 blocks, 4
attention heads, 2,406,528 parameters. Eleven linear heads on its class token name what `pretrain_images`
drew: the glyph, fractal, texture or shape; where it is, how large, which way it points; how many there are and
in which cells. The loss is the weighted sum of their cross-entropies, each over the images that carry the
label. The heads are thrown away.

Muon for the matrices of the blocks, AdamW for the rest; the learning rate warms up for 100 steps, stays until
40% of the budget and falls linearly to zero. The budget is `--images`, `--minutes`, or whichever ends first.
No image is drawn twice. With `--images` alone a run is a function of its seed, batch and number of processes,
resumed or not; `--minutes` makes it depend on the machine's speed too.

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
from pretrain_images import World
from pretrain_student import ARCHITECTURE, MEAN, NAME, STD, Student, evaluate, loss_of, probe
from safetensors.torch import save_file
from torch import Tensor, nn

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
    os.replace(neighbour, path)


def save_weights(student: Student, path: Path, note: dict[str, object]) -> None:
    tensors = {
        k: v.detach().to("cpu", torch.float16).contiguous() for k, v in student.backbone.state_dict().items()
    }
    recipe = {
        "recipe": "scripts/pretrain_mini.py: generated images, eleven heads, Muon and AdamW",
        "architecture": f"timm {NAME} {json.dumps(ARCHITECTURE)}",
        "mean": MEAN,
        "std": STD,
        "pooling": "token",
        **note,
    }
    write_whole(path, lambda p: save_file(tensors, p, {k: str(v) for k, v in recipe.items()}))


def train(rank: int, args: argparse.Namespace) -> None:
    """One process's share of the run; every process holds the same weights, rank 0 writes."""
    if args.processes > 1:
        torch.set_num_threads(1)
        meeting = f"file://{(args.work / 'meeting').resolve()}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=args.processes)
    torch.manual_seed(args.seed)
    world, student = World(args.seed, args.device), Student().to(args.device)
    optimizers, budget = optimizers_of(student), Budget(args.images, args.minutes)
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    step, before = 0, 0.0
    state_path = args.work / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, map_location=args.device, weights_only=True)
        if (state["seed"], state["batch"]) != (args.seed, args.batch):
            sys.exit(
                f"{state_path} belongs to seed {state['seed']} and batch {state['batch']}: choose another --work"
            )
        student.load_state_dict(state["student"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, before = state["step"], state["seconds"]

    def save_state() -> None:
        state = {
            "seed": args.seed, "batch": args.batch, "step": step, "seconds": seconds,
            "student": student.state_dict(), "optimizers": [o.state_dict() for o in optimizers],
        }  # fmt: skip
        write_whole(state_path, lambda path: torch.save(state, path))

    parameters = list(student.parameters())
    share = args.batch // args.processes
    start, seconds = time.monotonic(), before
    logged = saved = start
    snapshot = start
    while (progress := budget.progress(step * args.batch, seconds)) < 1 and step != args.stop_at:
        rate = budget.rate(step, progress)
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * rate
        student.train()
        batch = world.batch(share, TRAIN, step * args.processes + rank)
        loss = loss_of(student(batch.pixels), batch)
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        seconds = before + time.monotonic() - start
        loss, seconds = average(parameters, loss.detach(), seconds, rank, args.processes)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        if rank:
            continue
        now = time.monotonic()
        if step % LOG_STEPS == 0:
            speed, logged = LOG_STEPS * args.batch / (now - logged), now
            print(
                f"step {step}  images {step * args.batch}  {100 * progress:.1f}%  loss {loss:.3f}  rate {rate:.2f}"
                f"  {speed:.0f} images/s  {seconds / 60:.1f} min", file=sys.stderr, flush=True,
            )  # fmt: skip
        if now - saved > CHECKPOINT_SECONDS:
            save_state()
            saved = now
        if now - snapshot > 60 * args.snapshot_minutes:
            save_weights(
                student, args.out, {"seed": args.seed, "images": step * args.batch, "finished": False}
            )
            snapshot = now
            heads = evaluate(student, world, batches=4, size=256)
            print(f"snapshot {json.dumps(heads)}", file=sys.stderr, flush=True)
    if rank == 0:
        save_state()
    if args.processes > 1:
        dist.barrier()
        dist.destroy_process_group()


def average(
    parameters: list[nn.Parameter], loss: Tensor, seconds: float, rank: int, processes: int
) -> tuple[float, float]:
    """Average the gradients and the loss over processes; all take rank 0's clock."""
    if processes == 1:
        return (loss.item() if loss.device.type == "cpu" else float("nan")), seconds
    clock = torch.tensor([seconds if rank == 0 else 0.0]) * processes
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None] + [loss.view(1), clock])
    dist.all_reduce(flat)
    flat /= processes
    offset = 0
    for p in parameters:
        if p.grad is not None:
            p.grad.copy_(flat[offset : offset + p.numel()].view_as(p))
            offset += p.numel()
    mean, clock_of_rank_0 = flat[offset:].tolist()
    return mean, clock_of_rank_0


def finish(args: argparse.Namespace) -> None:
    """Weights, and what they are worth, from the last state."""
    state = torch.load(args.work / "state.pt", map_location=args.device, weights_only=True)
    student = Student().to(args.device)
    student.load_state_dict(state["student"])
    seen = state["step"] * state["batch"]
    done = Budget(args.images, args.minutes).progress(seen, state["seconds"]) >= 1
    note = {"seed": args.seed, "images": seen, "finished": done}
    save_weights(student, args.out, note)
    results: dict[str, object] = {
        **note,
        "steps": state["step"],
        "batch": state["batch"],
        "processes": args.processes,
        "device": args.device,
        "minutes": round(state["seconds"] / 60, 1),
        "heads": evaluate(student, World(args.seed, args.device)),
    }
    if args.probe:
        results["probe"] = probe(timm.create_model(NAME, **ARCHITECTURE, checkpoint_path=str(args.out)))
        torch.manual_seed(args.seed)
        results["probe_random"] = probe(timm.create_model(NAME, **ARCHITECTURE))
    text = json.dumps(results, indent=2) + "\n"
    for path in (args.out.with_suffix(".json"), args.work / "results.json"):
        write_whole(path, lambda p: p.write_text(text))
    print(text, file=sys.stderr)


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
