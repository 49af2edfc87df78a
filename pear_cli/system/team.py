"""How the processes of one job work together: they share orders, batches and gradients."""

import functools
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pear_cli.errors import PearError, TrainingError
from pear_cli.system import processes

FOREVER = timedelta(days=365)  # the main process may evaluate, or wait for a lock, for as long as that takes
END = "end"
"""The last of what the main process shares: there is nothing more to do."""


class Lost(PearError):
    """Another process of the job has ended, so that this one cannot continue."""


class Failed(PearError):
    """A piece of work failed on another process, and so on all of them; the main one tells of it."""


@dataclass(frozen=True)
class Part:
    """What one process has of a batch.

    Args:
        places: (n,), its images among those of the batch, at least one.
        whole: images of the batch.
        counted: how many of its images count: n, or 0 where the batch has fewer images than there are
            processes, and this one computes another's image to keep step.
    """

    places: Tensor
    whole: int
    counted: int

    @property
    def is_whole(self) -> bool:
        return len(self.places) == self.whole == self.counted

    def with_counterparts(self) -> "Part":
        """The same images, then those that stand as far from the other end of the batch."""
        places = torch.cat([self.places, self.whole - 1 - self.places])
        return Part(places, self.whole, self.counted)


class Team:
    """This process among those of its job; here it is alone, and there is nobody to speak to."""

    rank, size, local, together = 0, 1, 0, 1

    def part(self, count: int) -> Part:
        """What this process has of a batch of `count` images."""
        places = torch.tensor_split(torch.arange(count), self.size)[self.rank]
        if len(places):
            return Part(places, count, len(places))
        return Part(torch.zeros(1, dtype=torch.int64), count, 0)

    def share(self, value: Any = None) -> Any:
        """What the main process has; the others wait for it."""
        return value

    @contextmanager
    def leading(self, order: Any) -> Iterator[None]:
        """Of the main process: the others carry out `order` beside the block."""
        yield

    @contextmanager
    def step(self, value: Any) -> Iterator[None]:
        """Of the main process, in the block of `leading`: all take the step that `value` names."""
        yield

    def agree(self, error: Exception | None) -> None:
        """Raise on all processes where one of them has an error: the main one says which."""
        if error is not None:
            raise error

    def add_gradients(self, parameters: Sequence[nn.Parameter], error: Exception | None) -> None:
        """Sum the gradients over the processes, in one exchange an update.

        Args:
            parameters: the same on all processes; those without a gradient have none anywhere.
            error: why this process has no gradients; then all raise, as in `agree`.
        """
        self.agree(error)

    def add(self, value: Tensor) -> None:
        """Sum a tensor over the processes, in place."""

    def dismiss(self) -> None:
        """Of the main process: let the others end."""


class Several(Team):
    """This process among others of its job.

    Args:
        rank: its number, from 0; that is the main process.
        size: how many there are, on all machines.
        local, together: its number and theirs on this machine.
    """

    def __init__(self, rank: int, size: int, local: int, together: int) -> None:
        self.rank, self.size, self.local, self.together = rank, size, local, together
        self.joined = self.stepping = self.lost = False

    def join(self) -> None:
        """Meet the other processes; at once where it has been done."""
        if self.joined:
            return
        state = processes.accelerate().PartialState
        if torch.cuda.device_count() >= self.together:
            state(backend="cpu:gloo,cuda:nccl", timeout=FOREVER)
        else:
            state(cpu=True, backend="gloo", timeout=FOREVER)
        self.joined = True

    def share(self, value: Any = None) -> Any:
        holder = [value]
        with self._exchange():
            distributed.broadcast_object_list(holder, src=0, device=torch.device("cpu"))
        return holder[0]

    @contextmanager
    def leading(self, order: Any) -> Iterator[None]:
        self.share(order)
        try:
            yield
        except Exception:
            if self.stepping:  # the others are in the middle of it, and will not hear
                self.lost = True
            else:
                self.share(None)
            raise
        self.share(None)

    @contextmanager
    def step(self, value: Any) -> Iterator[None]:
        self.share(value)
        self.stepping = True
        yield
        self.stepping = False

    def agree(self, error: Exception | None) -> None:
        found: list[str | None] = [None] * self.size
        with self._exchange():
            distributed.all_gather_object(found, None if error is None else _told(error))
        self.stepping = False
        if self.rank:
            if any(found):
                raise Failed(str(found))
        elif error is not None:
            raise error
        for rank, message in enumerate(found):
            if message is not None:
                raise TrainingError(f"process {rank} of {self.size}: {message}")

    def add_gradients(self, parameters: Sequence[nn.Parameter], error: Exception | None) -> None:
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        failed = grads[0].new_tensor([error is not None])
        flat = torch.cat([*(grad.flatten() for grad in grads), failed])
        self.add(flat)
        if flat[-1] > 0:
            self.agree(error)
        totals = torch.split(flat[:-1], [grad.numel() for grad in grads])
        for parameter, total in zip(parameters, totals, strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(total.view_as(parameter))

    def add(self, value: Tensor) -> None:
        with self._exchange():
            distributed.all_reduce(value)

    def dismiss(self) -> None:
        self.share(END)
        distributed.destroy_process_group()

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Speak to the others; that one of them is gone is a failure of its own kind."""
        try:
            if self.lost:
                raise RuntimeError
            self.join()
            yield
        except RuntimeError:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's: first this is told
            self.lost = True
            raise Lost(
                "another process of this job has ended; what is finished is kept, the same command resumes "
                "from there"
            ) from None


@functools.cache
def this_team() -> Team:
    """The processes that this one was started with."""
    if not processes.launched():
        return Team()
    rank, size, local, together = (int(os.environ[name]) for name in processes.NUMBERED[:4])
    return Several(rank, size, local, together)


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, PearError) else f"{type(error).__name__}: {error}"
