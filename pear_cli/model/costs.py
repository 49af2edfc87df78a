"""What a model costs: parameters, bytes, multiply-accumulates, memory, time."""

import os
import resource
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.backbone.changes import evaluating
from pear_cli.model import models
from pear_cli.system.threads import cores
from pear_cli.training.devices import Device


@dataclass(frozen=True)
class Costs:
    """What a task costs beside its frozen backbone.

    Args:
        trained: parameters that are trained, each tensor once.
        stored: parameters that are stored: adapters, classifier and kept knowledge.
        bytes: of the stored tensors, as files.
        macs: multiply-accumulates of the whole network for one image; sharing does not lower them.
    """

    trained: int
    stored: int
    bytes: int
    macs: int


def of_task(model: nn.Module, kept: Mapping[str, Tensor], size: int) -> Costs:
    """What an adapted model costs beside its frozen backbone.

    Args:
        kept: its encoded knowledge.
        size: side of its input, in pixels.
    """
    counted = parameters(model, kept)
    files = [save(models.tensors(model)), *([save(dict(kept))] if kept else [])]
    return Costs(
        counted["trainable_params"],
        counted["stored_params"],
        sum(map(len, files)),
        macs_per_image(model, size),
    )


def parameters(model: nn.Module, kept: Mapping[str, Tensor] | None = None) -> dict[str, int]:
    """Trained and stored parameters, each tensor once.

    `stored_params` counts what a task adds to the frozen backbone: adapters and what they gathered,
    running statistics that training changed, classifier and knowledge.

    Args:
        kept: the encoded knowledge of the model; its scales are stored parameters too.
    """
    trained = models.trained(model)
    head = sum(p.numel() for name, p in trained.items() if name.startswith("head."))
    knowledge = sum(tensor.numel() for tensor in (kept or {}).values())
    total = sum(p.numel() for p in trained.values())
    stored = sum(tensor.numel() for tensor in models.tensors(model).values())
    return {
        "trainable_params": total,
        "trainable_params_without_head": total - head,
        "head_params": head,
        "knowledge_params": knowledge,
        "stored_params": stored + knowledge,
    }


def network_params(model: nn.Module) -> int:
    """Parameters of the network as it runs: backbone, adapters, kept knowledge and classifier."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.inference_mode()
def macs_per_image(model: nn.Module, size: int) -> int:
    """Multiply-accumulates that one more image in a batch costs; sharing does not lower them.

    What is computed once a forward pass, such as NEAT's product with the frozen weight, is not counted.
    """
    device, flops = next(model.parameters()).device, []
    # each position by itself, as the formulas have it: products that are stacked are padded with zeros
    adaptation = getattr(model, "adaptation", None)  # a merged model has none
    positions = adaptation.each() if isinstance(adaptation, Adaptation) else []
    hooks = [position.register_forward_pre_hook(lambda *_: None) for position in positions]
    try:
        for batch in (1, 2):
            with evaluating(model), FlopCounterMode(display=False) as counter:
                model(torch.zeros(batch, 3, size, size, device=device))
            flops.append(int(counter.get_total_flops()))
    finally:
        for hook in hooks:
            hook.remove()
    return (flops[1] - flops[0]) // 2


def latency(model: nn.Module, size: int, where: Device) -> dict[str, float]:
    """Milliseconds for one image, median and 95th percentile; and the load a core just before."""
    load = os.getloadavg()[0] / cores()
    (found,) = _latencies([model], size, where, batch=1, runs=30)
    return {f"latency_{name}_ms": value for name, value in found.items()} | {"latency_load": load}


def speed_up(narrow: nn.Module, whole: nn.Module, size: int, where: Device) -> dict[str, float]:
    """How much faster a narrowed network is than the whole one, as measured and in theory.

    Both are measured alternately, on one image and on 64. In theory time goes with multiply-accumulates.

    Returns:
        `whole_macs_per_image`, `speedup_theoretical`, and for batches of 1 and 64 `speedup_<batch>`, the
        ratio of the medians, with `latency_<batch>_p50_ms`, `…_p95_ms` and those of the `whole_` network.
    """
    macs = [macs_per_image(model, size) for model in (narrow, whole)]
    found: dict[str, float] = {"whole_macs_per_image": macs[1], "speedup_theoretical": macs[1] / macs[0]}
    for batch, runs in ((1, 30), (64, 7)):
        ours, theirs = _latencies([narrow, whole], size, where, batch, runs)
        found[f"speedup_{batch}"] = theirs["p50"] / ours["p50"]
        found |= {f"latency_{batch}_{name}_ms": value for name, value in ours.items()}
        found |= {f"whole_latency_{batch}_{name}_ms": value for name, value in theirs.items()}
    return found


@torch.inference_mode()
def _latencies(
    of: Sequence[nn.Module], size: int, where: Device, batch: int, runs: int
) -> list[dict[str, float]]:
    """Milliseconds a batch, median (`p50`) and 95th percentile (`p95`), of models that take turns."""
    x = torch.zeros(batch, 3, size, size, device=where.device)
    times: list[list[float]] = [[] for _ in of]
    with where.autocast():
        for _ in range(runs + 3):
            for model, mine in zip(of, times, strict=True):
                model.eval()
                start = time.perf_counter()
                model(x).cpu()
                mine.append(1000 * (time.perf_counter() - start))
    settled = [mine[3:] for mine in times]
    return [
        {"p50": statistics.median(t), "p95": statistics.quantiles(t, n=20, method="inclusive")[-1]}
        for t in settled
    ]


class Stopwatch:
    """Seconds that a block takes, waiting for the GPU where there is one."""

    seconds = 0.0

    def __enter__(self) -> "Stopwatch":
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._start


class PeakMemory:
    """Peak memory since it was made.

    On a CPU it is the resident set of the whole process: Python, torch, the images and the model. On a GPU it
    is the peak of torch's allocator there: tensors, not the driver's context. The two do not compare.
    """

    def __init__(self, where: Device) -> None:
        self.gpu = where.device if where.device.type == "cuda" else None
        if self.gpu is not None:
            torch.cuda.reset_peak_memory_stats(self.gpu)
        elif sys.platform == "linux":
            try:
                Path("/proc/self/clear_refs").write_text("5")  # resets the peak of the resident set
            except OSError:
                return

    def bytes(self) -> int:
        if self.gpu is not None:
            return int(torch.cuda.max_memory_allocated(self.gpu))
        try:
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) * 1024
        except (OSError, IndexError):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak if sys.platform == "darwin" else peak * 1024
