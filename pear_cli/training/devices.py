"""Where computation runs: the device, for each process of a job its own, and the precision."""

from dataclasses import dataclass

import torch

from pear_cli.config.choices import Precision
from pear_cli.config.settings import Runtime
from pear_cli.errors import ConfigError
from pear_cli.system.team import this_team


@dataclass(frozen=True)
class Device:
    """Where computation runs, and in which precision the forward pass."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)


def device(runtime: Runtime) -> Device:
    """The device and precision that `runtime` asks for.

    `auto` precision is float32 on a CPU, and bfloat16 on a GPU that has it.

    Raises:
        ConfigError: a device that is not there, or not for each process of the job.
    """
    name, team = chosen(runtime.device), this_team()
    if team.size > 1:
        check(name, team.together)
        name = f"cuda:{team.local}" if name == "cuda" else name
    try:
        where = torch.device(name)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise ConfigError(f"runtime.device = {name} is not available: {line}") from None
    fast = where.type == "cuda" and torch.cuda.is_bf16_supported()
    dtypes = {
        Precision.auto: torch.bfloat16 if fast else torch.float32,
        Precision.float32: torch.float32,
        Precision.bf16: torch.bfloat16,
        Precision.float16: torch.float16,
    }
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    return Device(where, dtypes[runtime.precision])


def chosen(name: str) -> str:
    """The device that a name means; `auto` is the best that is there."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def check(name: str, together: int) -> None:
    """Refuse a device that several processes of a machine cannot have.

    Raises:
        ConfigError: it names the remedy.
    """
    gpus = torch.cuda.device_count()
    if name == "cuda" and gpus < together:
        there = "1 GPU" if gpus == 1 else f"{gpus or 'no'} GPUs"
        fewer = f"runtime.processes={gpus}, or " if gpus else ""
        raise ConfigError(
            f"{together} processes need a GPU each, but this machine has {there}; use {fewer}"
            "runtime.device=cpu"
        )
    if name not in ("cpu", "cuda"):
        raise ConfigError(
            f"runtime.device = {name}: {together} processes run on cuda or cpu, and choose their own GPUs"
        )
